import json
import subprocess
import sys

import numpy as np
import pytest

from adarank_jax import errors, mergers, tree
from adarank_jax.checkpoints import files
from adarank_jax.core import merge, task_vectors
from experiments import embedded_suite, plan, rebuild, results, run, run_vit, starts
from experiments.merge_config import Method

TASKS = ("mnist", "shapes")
NUM_STEPS = 3
SHORT = (
    f"tasks=[{','.join(TASKS)}]",
    f"adaptation={{num_steps: {NUM_STEPS}, batch_size: 8, checkpoint_every: 2}}",
)


def options(folder, *overrides, **flags):
    return run_vit.Options(what=(*SHORT, *overrides), run_dir=folder, **flags)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_vit.main(options(folder))
    return folder


def test_run_writes_every_row_with_every_field(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["suite"] == "embedded"
    assert results["tasks"] == list(TASKS)
    assert results["metrics"] == dict.fromkeys(TASKS, "accuracy")
    fields = {
        *("method", "origin", "objective", "per_task", "mean", "standard_error"),
        *(
            "per_task_standard_error",
            "normalized",
            "agreement",
            "per_task_agreement",
            "seconds",
            "uses",
            "coefficient",
            "rank_ratio",
        ),
    }
    for row in results["rows"]:
        assert set(row) == fields
        assert set(row["per_task"]) == set(TASKS)
        assert row["mean"] == pytest.approx(np.mean(list(row["per_task"].values())))
        shares = [*row["per_task_agreement"].values()]
        assert row["agreement"] == pytest.approx(np.mean(shares))
    found = [
        (row["method"], row["origin"], row["objective"]) for row in results["rows"]
    ]
    assert found == [
        ("individual", None, None),
        ("pretrained", None, None),
        ("weight_averaging", None, None),
        ("task_arithmetic", None, None),
        ("cart", None, None),
        ("tsv_m", None, None),
        ("iso_c", None, None),
        ("adamerging", "task_arithmetic", "entropy"),
        ("adarank at step 0", "tsv_m", None),
        ("adarank", "tsv_m", "expert_labels"),
        ("adarank", "tsv_m", "entropy"),
    ]


def test_run_writes_figures_with_their_numbers(finished):
    for name in ("task_bars", "rank_map"):
        assert (finished / "figures" / f"{name}.png").read_bytes()[1:4] == b"PNG"
        assert b"<svg" in (finished / "figures" / f"{name}.svg").read_bytes()
        assert (finished / "figures" / f"{name}.csv").read_text().count("\n") > 2


def test_run_writes_a_merged_model_of_the_pretrained_shape(finished):
    merged = files.read(finished / "merged.safetensors")
    pretrained = embedded_suite.load(TASKS[:1]).pretrained
    tree.check_same(merged, pretrained, ("merged", "pretrained"))


def test_export_is_made_again_from_what_the_run_keeps(finished, tmp_path):
    rebuild.main(
        rebuild.Config(
            recipe=finished / "export" / "recipe.safetensors",
            base=str(finished / "base"),
            experts=tuple(f"{task}={finished / 'experts' / task}" for task in TASKS),
            out=tmp_path / "again",
        )
    )
    ours = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert ours == (finished / "export" / "model.safetensors").read_bytes()
    card = (finished / "export" / "README.md").read_text()
    assert str(finished / "experts" / "mnist") in card


def test_run_leaves_metrics_of_every_adaptation(finished):
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 3 * NUM_STEPS
    assert len({row["run"] for row in rows}) == 3


def test_same_command_shows_the_table_without_adapting_again(finished, capsys):
    before = (finished / "results.json").read_bytes()
    run_vit.main(options(finished))
    assert (finished / "results.json").read_bytes() == before
    assert "adarank" in capsys.readouterr().out


def test_other_options_in_the_same_folder_are_refused(finished):
    with pytest.raises(ValueError, match="merge.seed: 0 there, 1 now"):
        run_vit.main(options(finished, "seed=1"))


@pytest.mark.parametrize(
    ("overrides", "flags", "message"),
    [
        ((), {"preset": "vit-b32-8-cart-adarnk"}, "'vit-b32-8-cart-adarank'"),
        (("tasks=[mnist,shaeps]",), {}, "did you mean 'shapes'"),
        (("tasks=[mnist,mnist]",), {}, "each task once"),
        (("method.orgin=cart",), {}, "E010 .*did you mean `origin`"),
        (("qkv=split",), {}, "E013 `qkv` must be fused"),
        (("adaptation.batch_size=12",), {}, "E013 .*(multiple of|divide)"),
        (("adaptation.parallel=pmapped",), {}, "E011 .*parallel.*'auto', 'pmap'"),
        ((), {"coordinator": "localhost"}, "`num_processes` is missing"),
    ],
)
def test_bad_options_are_refused_before_a_folder_is_made(
    tmp_path, overrides, flags, message
):
    with pytest.raises(errors.AdaRankError, match=message) as caught:
        run_vit.main(options(tmp_path / "run", *overrides, **flags))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_unwritable_run_folder_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run_vit.embedded_suite, "check", None)
    with pytest.raises(OSError, match="--run-dir"):
        run_vit.main(options(tmp_path / "file" / "run"))


def test_plan_counts_and_changes_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_vit.main(options(tmp_path / "run", plan=True))
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "no problems" in shown
    assert "943,104 parameters, 8 matrices" in shown
    assert "mnist 1,500" in shown
    assert not (tmp_path / "run").exists()


def test_plan_lists_every_problem_at_once(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        wrong = ("qkv=split", "adaptation.batch_size=12")
        run_vit.main(options(tmp_path / "run", *wrong, plan=True))
    shown = capsys.readouterr().out
    assert stopped.value.code == 2
    assert "2 problems" in shown
    assert shown.count("\nproblem ") == 2


@pytest.mark.parametrize("module", ["run_vit", "make_embedded"])
def test_help_explains_every_option(module):
    command = [sys.executable, "-m", f"experiments.{module}", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for word in ("--run-dir", "--restart", "default"):
        assert word in shown
    assert len(shown.splitlines()) <= 90


@pytest.mark.parametrize("name", starts.STARTS)
def test_start_is_its_static_merge(name, tmp_path):
    rng = np.random.default_rng(0)
    model = lambda: {"w": rng.normal(size=(12, 8)).astype(np.float32)}
    pretrained, finetuned = model(), [model(), model()]
    start = starts.get(Method(name="adarank", origin=name))
    decomposed = lambda path, leaf: True
    models = (pretrained, finetuned, decomposed)
    origin, factors = starts.build(start, *models, tmp_path)
    options = {"coefficient": start.coefficient}
    if name == "cart":
        options["rank_ratio"] = start.rank_ratio
    static = mergers.MERGERS[name](*models, **options)
    started = merge.static_params(origin, factors, start.coefficient, start.rank_ratio)
    np.testing.assert_allclose(started["w"], static["w"], atol=1e-4)
    adamerging = starts.get(
        Method(name="adamerging", origin=name, coefficient=start.coefficient)
    )._replace(rank_ratio=start.rank_ratio)
    origin, vectors = starts.build_dense(adamerging, *models, tmp_path)
    whole = origin["w"] + start.coefficient * vectors["w"].sum(axis=0)
    np.testing.assert_allclose(whole, static["w"], atol=1e-4)


def test_assets_experts_moved_by_a_few_per_cent():
    manifest = embedded_suite.read_manifest()
    assert len(manifest["tasks"]) >= 8
    for name, report in manifest["report"].items():
        assert 0.01 <= report["relative_weight_change"] <= 0.05, name


def test_assets_are_small_and_whole():
    loaded = embedded_suite.load(())
    assert sum(f.stat().st_size for f in embedded_suite.ASSETS.iterdir()) <= 25_000_000
    vectors = task_vectors.task_vectors(loaded.pretrained, loaded.finetuned)
    assert all(np.any(leaf) for leaf in tree.flatten(vectors).values())


def test_damaged_asset_is_refused(tmp_path):
    for file in embedded_suite.ASSETS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = bytearray((tmp_path / "shapes.safetensors").read_bytes())
    content[-3] ^= 4
    (tmp_path / "shapes.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"shapes\.safetensors.*SHA-256"):
        embedded_suite.load(("shapes",), tmp_path)


def test_missing_assets_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="experiments.make_embedded"):
        embedded_suite.load((), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "embeded"), "did you mean 'embedded'"),
        (("tasks=[shaeps]",), "did you mean 'shapes'"),
        (("my_merge.yaml",), "there is no file `my_merge.yaml`"),
        (("--run-dri", "x"), "--run-dir"),
        (("--run-dir", "/dev/null/run"), "--run-dir"),
        (("adaptation.num_steps=-3",), "num_steps"),
    ],
)
def test_user_errors_are_a_message_and_not_a_traceback(arguments, message):
    shown = subprocess.run(
        [sys.executable, "-m", "experiments.run_vit", *arguments],
        capture_output=True,
        text=True,
    )
    assert shown.returncode != 0
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr


def test_adaptations_that_differ_in_the_last_digit_have_folders_of_their_own():
    one = Method(name="adarank", coefficient=0.3)
    two = Method(name="adarank", coefficient=0.30000004)
    assert results.slug(one) != results.slug(two)
    assert results.slug(one) == "adarank-cart-entropy-coefficient0.3"


def test_single_values_may_stand_anywhere_on_the_command_line():
    words = ["--plan", "my.yaml", "--run-dir", "a=b", "seed=1", "--preset", "x"]
    ordered = ["my.yaml", "seed=1", "--plan", "--run-dir", "a=b", "--preset", "x"]
    assert run.in_order(words) == ordered


def test_plan_says_that_the_run_folder_holds_another_run(finished, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_vit.main(options(finished, "seed=1", plan=True))
    assert stopped.value.code == 3
    assert "merge.seed: 0 there, 1 now" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method.origin=cart",), "with two experts"),
        (
            ("adaptation.num_steps=50",),
            "50 steps at a rate of 0.001 cannot flip a mask: its logit starts at 0.1 "
            "or -0.1 and moves by about the rate a step; take 100 steps or more at "
            "this rate, or a rate of 0.002 for 50.",
        ),
        (
            ("adaptation={num_steps: 300, batch_size: 8, learning_rate: 1.5e-4}",),
            "take 667 steps or more at this rate, or a rate of 0.00034 for 300.",
        ),
        (("adaptation.num_steps=0",), "take 100 steps or more at this rate."),
    ],
)
def test_settings_that_can_do_nothing_are_warned_of(
    tmp_path, capsys, monkeypatch, overrides, message
):
    monkeypatch.setattr(plan, "_seconds", lambda call: 1e-3)
    with pytest.raises(SystemExit):
        run_vit.main(options(tmp_path / "run", *overrides, plan=True))
    assert message in capsys.readouterr().out
