"""A tiny family of text classifiers, from `--plan` to the table, by the command."""

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import yaml
from huggingface_hub import constants

from adarank_jax import tree
from adarank_jax.checkpoints import files, language
from adarank_jax.core import task_vectors
from adarank_jax.models.language import FAMILIES
from experiments import plan, run_glue, text_presets
from tests import language_family

TASKS = ("mood", "pairs", "kind")
NUM_STEPS = 4


def write(root, family="roberta"):
    values = language_family.write(root, family)
    (root / "my_merge.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return root


def options(root, *overrides, **flags):
    flags = {"run_dir": root / "run"} | flags
    return run_glue.Options(what=(str(root / "my_merge.yaml"), *overrides), **flags)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return write(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def finished(family):
    run_glue.main(options(family))
    return family


@pytest.fixture
def quick_plan(monkeypatch):
    """Leaves out the product and the SVD that a plan times."""
    monkeypatch.setattr(plan, "_seconds", lambda call: 1e-3)


def results_of(root, name="run"):
    return json.loads((root / name / "results.json").read_text())


def test_run_writes_every_row_with_its_metrics(finished):
    found = results_of(finished)
    assert found["suite"] == "roberta"
    assert found["tasks"] == list(TASKS)
    metrics = {"mood": "accuracy", "pairs": "accuracy", "kind": "matthews"}
    assert found["metrics"] == metrics
    assert found["max_length"] == 16
    names = [(row["method"], row["origin"]) for row in found["rows"]]
    assert names == [
        ("pretrained", None),
        ("individual", None),
        ("weight_averaging", None),
        ("adarank at step 0", "cart"),
        ("adarank", "cart"),
    ]
    for row in found["rows"]:
        assert row["mean"] == pytest.approx(np.mean(list(row["per_task"].values())))
        errors = [*row["per_task_standard_error"].values()]
        assert row["standard_error"] == pytest.approx(np.linalg.norm(errors) / 3)
    assert found["rows"][1]["agreement"] == 1.0
    assert found["rows"][-1]["coefficient"] == 1.6  # the authors' for RoBERTa


def test_run_leaves_metrics_figures_and_a_merged_model(finished):
    lines = (finished / "run/metrics.jsonl").read_text().splitlines()
    assert len(lines) == NUM_STEPS
    for name in ("task_bars", "rank_map"):
        assert (finished / f"run/figures/{name}.png").read_bytes()[1:4] == b"PNG"
    rows = (finished / "run/figures/rank_map.csv").read_text()
    assert "encoder/layer_1/attention/self/query/kernel" in rows
    base = language.read_language(str(finished / "base")).encoder
    merged = files.read(finished / "run/merged.safetensors")
    tree.check_same(merged, base, ("merged", "base"))


def test_embeddings_are_those_of_the_origin(finished):
    places = [finished / "base", *(finished / "experts" / task for task in TASKS)]
    base, *experts = [language.read_language(str(each)).encoder for each in places]
    merged = files.read(finished / "run/merged.safetensors")
    average = task_vectors.average(experts)
    is_merged, kernels = FAMILIES["roberta"].is_merged, 0
    flat = tree.flatten(average)
    for path, leaf in tree.flatten(merged).items():
        if not is_merged(path, leaf):
            np.testing.assert_array_equal(leaf, flat[path])
            assert not np.array_equal(leaf, tree.flatten(base)[path])
        elif FAMILIES["roberta"].is_decomposed(path, leaf):
            kernels += not np.allclose(leaf, flat[path], atol=1e-6)
    assert kernels == 12


def test_same_command_shows_the_table_without_adapting_again(finished, capsys):
    before = (finished / "run/results.json").read_bytes()
    run_glue.main(options(finished))
    assert (finished / "run/results.json").read_bytes() == before
    shown = " ".join(capsys.readouterr().out.split())
    assert "Matthews correlation for kind, accuracy for the others" in shown
    assert "kind (Matthews)" in shown
    assert "unlabelled test texts" in shown
    assert "image" not in shown


def test_other_metric_does_not_resume_and_has_another_title(finished, capsys):
    changed = "experts.kind.metric=accuracy"
    with pytest.raises(ValueError, match="metric: .*matthews.* there, .*accuracy"):
        run_glue.main(options(finished, changed))
    run_glue.main(
        options(
            *(finished, changed, "method=weight_averaging", "compare=[individual]"),
            run_dir=finished / "accuracy",
        )
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert "Accuracy on the test texts" in shown and "Matthews" not in shown
    assert {*results_of(finished, "accuracy")["metrics"].values()} == {"accuracy"}


@pytest.mark.parametrize("name", ["gpt2", pytest.param("bert", marks=pytest.mark.slow)])
def test_other_families_run_from_top_to_bottom(name, tmp_path):
    root = write(tmp_path, name)
    short = ("adaptation.num_steps=2", "compare=[individual]")
    start = "method={name: adarank, origin: task_arithmetic}"
    run_glue.main(options(root, *short, start))
    found = results_of(root)
    assert found["suite"] == name
    assert [row["method"] for row in found["rows"]][-1] == "adarank"
    base = tree.flatten(language.read_language(str(root / "base")).encoder)
    merged = tree.flatten(files.read(root / "run/merged.safetensors"))
    kind = FAMILIES[name]
    same = {k for k, leaf in merged.items() if np.array_equal(leaf, base[k])}
    assert same == {k for k, leaf in merged.items() if not kind.is_merged(k, leaf)}


def test_labels_change_no_bit_of_the_merge(finished, tmp_path):
    root = tmp_path / "family"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns("run", "accuracy"))
    values = yaml.safe_load((root / "my_merge.yaml").read_text())
    text = yaml.safe_dump(values, sort_keys=False).replace(str(finished), str(root))
    (root / "my_merge.yaml").write_text(text)
    rows = (root / "texts/mood.csv").read_text().splitlines()
    turned = {"good": "bad", "bad": "good"}
    changed = [
        f"{text},{turned[label]}"
        for text, _, label in (x.rpartition(",") for x in rows[1:])
    ]
    (root / "texts/mood.csv").write_text("\n".join([rows[0], *changed]))
    run_glue.main(options(root, "compare=[individual]"))
    merged = [each / "run/merged.safetensors" for each in (finished, root)]
    assert merged[0].read_bytes() == merged[1].read_bytes()
    rows = results_of(finished)["rows"][1], results_of(root)["rows"][0]
    assert rows[0]["method"] == rows[1]["method"] == "individual"
    scores = [row["per_task"] for row in rows]
    assert scores[0]["mood"] == pytest.approx(1 - scores[1]["mood"])
    assert scores[0]["pairs"] == scores[1]["pairs"]


def test_texts_without_labels_are_merged_and_compared_with_experts(family, capsys):
    lines = [
        json.loads(line)
        for line in (family / "texts/kind.jsonl").read_text().splitlines()
    ]
    bare = "".join(f"{json.dumps({'text': row['text']})}\n" for row in lines)
    (family / "texts/bare.jsonl").write_text(bare)
    data = f"experts.kind.data={family}/texts/bare.jsonl"
    short = ("method=weight_averaging", "compare=[individual]")
    run_glue.main(options(family, data, *short, run_dir=family / "bare"))
    shown = capsys.readouterr()
    text = " ".join(shown.out.split())
    assert "Accuracy on the test texts" in text
    assert "No labels for kind, so no score there and no mean" in text
    for i, name in enumerate(TASKS, 1):
        assert f"Asking expert {i} of 3 ({name}) …" in shown.err
    row = results_of(family, "bare")["rows"][-1]
    assert row["per_task"]["kind"] is None and row["mean"] is None
    card = (family / "bare/export/README.md").read_text()
    (entry,) = yaml.safe_load(card.split("---")[1])["model-index"]
    scores = {r["dataset"]["name"]: r["metrics"][0]["value"] for r in entry["results"]}
    assert scores == {k: round(row["per_task"][k], 6) for k in ("mood", "pairs")}
    cells = [f"{100 * row['per_task'][k]:.2f}" for k in ("mood", "pairs")]
    agreed = f"{100 * row['agreement']:.2f}"
    assert f"| {cells[0]} | {cells[1]} | – | {agreed} |" in card
    assert "Not measured" not in card


def test_phases_are_announced_where_no_terminal_is(family, capsys):
    changed = ("compare=[cart, individual]", "adaptation.num_steps=1")
    run_glue.main(options(family, *changed, run_dir=family / "phases"))
    told = capsys.readouterr().err
    phases = (
        *("Making and measuring: cart", "Splitting the task vectors of 3 experts"),
        *("Asking expert 1 of 3", "Making and measuring: adarank at step 0"),
        "or reading them from the run folder",
        *("Making and measuring: adarank · cart", "the first step is compiled"),
    )
    places = [told.find(phase) for phase in phases]
    assert -1 not in places
    assert places[0] < places[1] < places[2] < places[5] < places[6]


def listing(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_plan_shows_what_was_found_and_changes_nothing(family, capsys, quick_plan):
    before = listing(family)
    with pytest.raises(SystemExit) as stopped:
        run_glue.main(options(family, run_dir=family / "planned", plan=True))
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "no problems" in shown
    assert "mood 24 · pairs 18 · kind 20" in shown
    assert "12 matrices" in shown
    assert f"{3 * 2 * 6 * 16:,} logits" in shown
    assert "at most 16; batches are padded to 8, 16" in shown
    assert "Matthews correlation for kind, accuracy for the others" in shown
    assert "8 texts a task" in shown
    assert "image" not in shown and "qkv" not in shown and "prompts" not in shown
    assert listing(family) == before


def test_plan_lists_every_problem_at_once(family, capsys, quick_plan):
    wrong = (
        f"experts.mood.model={family}/experts/moood",
        f"experts.pairs.data={family}/texts/pears.jsonl",
        "adaptation.batch_size=12",
    )
    with pytest.raises(SystemExit) as stopped:
        run_glue.main(options(family, *wrong, run_dir=family / "new", plan=True))
    shown = capsys.readouterr().out
    assert stopped.value.code == 3
    assert "3 problems" in shown
    assert shown.count("\nproblem ") == 3


@pytest.mark.parametrize(
    ("preset", "logits", "matrices"),
    [
        ("roberta-cart-adarank", 387_072, 72),
        ("roberta-ta-adarank", 387_072, 72),
        ("gpt2-cart-adarank", 258_048, 48),
        ("gpt2-ta-adarank", 258_048, 48),
    ],
)
def test_plan_counts_the_logits_of_the_paper_before_anything_is_fetched(
    preset, logits, matrices, tmp_path, monkeypatch, capsys, quick_plan
):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_glue.main(run_glue.Options(preset=preset, plan=True))
    shown = capsys.readouterr().out
    assert stopped.value.code == 0, shown
    assert f"{logits:,} logits" in shown
    published = text_presets.configure(preset).published
    if published.mean is not None:
        assert f"published {published.mean:.1f} % ({published.source})" in shown
    assert f"{matrices} matrices with SVD" in shown
    assert "qqp 40,430 · mnli 9,815" in shown
    config = text_presets.configure(preset)
    (fetched,) = [line for line in shown.splitlines() if line.startswith("fetch")]
    for source in (config.base, *(each.model for each in config.experts.values())):
        assert f"{source}," in f"{fetched},"
    assert "nyu-mll/glue" in fetched
    assert not [*tmp_path.iterdir()]


def test_plan_without_a_network_lists_what_is_missing(
    tmp_path, monkeypatch, capsys, quick_plan
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    flags = {"preset": "gpt2-cart-adarank", "plan": True, "offline": True}
    with pytest.raises(SystemExit) as stopped:
        run_glue.main(run_glue.Options(**flags))
    shown = capsys.readouterr().out
    assert stopped.value.code == 3
    assert "258,048 logits" in shown
    assert shown.count("\nproblem ") == 1 + 2 * 7
    assert "\nnext" not in shown


def test_list_presets_shows_those_of_text_only(capsys):
    run_glue.main(run_glue.Options(list_presets=True))
    shown = capsys.readouterr().out
    for name in ("text-demo", "roberta-cart-adarank", "gpt2-fusionbench-tsv-m"):
        assert name in shown
    assert "vit" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--preset", "roberta-cart-adarnk"), 2, "did you mean 'roberta-cart-adarank'"),
        (("my_merge.yaml",), 2, "there is no file `my_merge.yaml`"),
        (("--preset", "gpt2-cart-adarank", "qkv=split"), 2, "unknown key `qkv`"),
    ],
)
def test_user_errors_are_a_message_and_not_a_traceback(arguments, code, message):
    shown = subprocess.run(
        [sys.executable, "-m", "experiments.run_glue", *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == code
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


def test_flipped_bit_of_an_expert_does_not_resume(finished):
    file = finished / "experts/mood/model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-4] + bytes([content[-4] ^ 1]) + content[-3:])
    try:
        with pytest.raises(ValueError, match="mood.*sha256.*there, .*now"):
            run_glue.main(options(finished))
    finally:
        file.write_bytes(content)
