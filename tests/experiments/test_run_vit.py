import json
import subprocess
import sys

import numpy as np
import pytest
import tyro

from adarank_jax import mergers, tree
from adarank_jax.adaptation.loop import AdaptationConfig
from adarank_jax.checkpoints import files
from adarank_jax.core import merge, task_vectors
from experiments import presets, run_vit, suite

TASKS = ("mnist", "shapes")
SHORT = AdaptationConfig(num_steps=3, batch_size=8, checkpoint_every=2)


def config(folder, **options):
    options = {"tasks": TASKS, "adaptation": SHORT} | options
    return run_vit.Config(run_dir=folder, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run_vit.main(config(folder))
    return folder


def test_run_writes_every_row_with_every_field(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["suite"] == "embedded"
    assert results["tasks"] == list(TASKS)
    fields = {
        *("method", "origin", "objective", "per_task", "mean", "standard_error"),
        *("normalized", "agreement", "seconds", "uses"),
    }
    for row in results["rows"]:
        assert set(row) == fields
        assert set(row["per_task"]) == set(TASKS)
        assert row["mean"] == pytest.approx(np.mean(list(row["per_task"].values())))
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
        ("adarank at step 0", run_vit.Config().preset, None),
        ("adarank", run_vit.Config().preset, "entropy"),
        ("adarank", run_vit.Config().preset, "expert_labels"),
    ]


def test_run_writes_figures_with_their_numbers(finished):
    for name in ("task_bars", "rank_map"):
        assert (finished / "figures" / f"{name}.png").read_bytes()[1:4] == b"PNG"
        assert b"<svg" in (finished / "figures" / f"{name}.svg").read_bytes()
        assert (finished / "figures" / f"{name}.csv").read_text().count("\n") > 2


def test_run_writes_a_merged_model_of_the_pretrained_shape(finished):
    merged = files.read(finished / "merged.safetensors")
    pretrained = suite.load_embedded(TASKS[:1]).pretrained
    tree.check_same(merged, pretrained, ("merged", "pretrained"))


def test_run_leaves_metrics_of_every_adaptation(finished):
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 3 * SHORT.num_steps
    assert len({row["run"] for row in rows}) == 3


def test_same_command_shows_the_table_without_adapting_again(finished, capsys):
    before = (finished / "results.json").read_bytes()
    run_vit.main(config(finished))
    assert (finished / "results.json").read_bytes() == before
    assert "adarank" in capsys.readouterr().out


def test_other_options_in_the_same_folder_are_refused(finished):
    with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
        run_vit.main(config(finished, seed=1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"preset": "crat"}, KeyError, "did you mean 'cart'"),
        ({"tasks": ("mnist", "shaeps")}, KeyError, "did you mean 'shapes'"),
        ({"tasks": ("mnist", "mnist")}, ValueError, r"\['mnist'\] twice"),
    ],
)
def test_unknown_names_are_refused_before_a_folder_is_made(
    tmp_path, options, error, message
):
    with pytest.raises(error, match=message):
        run_vit.main(config(tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_unwritable_run_folder_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run_vit.suites, "load_embedded", None)
    with pytest.raises(OSError, match="--run-dir"):
        run_vit.main(config(tmp_path / "file" / "run"))


def test_misspelt_option_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(run_vit.Config, args=["--adaptation.num-stpes", "3"])
    assert "--adaptation.num-steps" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["run_vit", "finetune"])
def test_help_explains_every_option(module):
    command = [sys.executable, "-m", f"experiments.{module}", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for word in ("seed", "tasks", "default"):
        assert word in shown
    assert len(shown.splitlines()) <= 90


@pytest.mark.parametrize("name", presets.PRESETS)
def test_preset_starts_at_its_static_merge(name, tmp_path):
    rng = np.random.default_rng(0)
    model = lambda: {"w": rng.normal(size=(12, 8)).astype(np.float32)}
    pretrained, finetuned = model(), [model(), model()]
    preset = presets.get(name)
    decomposed = lambda path, leaf: True
    origin, factors = presets.start(preset, pretrained, finetuned, decomposed, tmp_path)
    options = {"coefficient": preset.coefficient}
    if name == "cart":
        options["rank_ratio"] = preset.rank_ratio
    static = mergers.MERGERS[name](pretrained, finetuned, decomposed, **options)
    started = merge.static_params(
        origin, factors, preset.coefficient, preset.rank_ratio
    )
    np.testing.assert_allclose(started["w"], static["w"], atol=1e-4)


def test_assets_experts_moved_by_a_few_per_cent():
    manifest = suite.read_manifest(suite.ASSETS)
    assert len(manifest["tasks"]) >= 8
    for name, report in manifest["report"].items():
        assert 0.01 <= report["relative_weight_change"] <= 0.05, name


def test_assets_are_small_and_whole():
    loaded = suite.load_embedded(())
    assert sum(f.stat().st_size for f in suite.ASSETS.iterdir()) <= 25_000_000
    vectors = task_vectors.task_vectors(loaded.pretrained, loaded.finetuned)
    assert all(np.any(leaf) for leaf in tree.flatten(vectors).values())


def test_damaged_asset_is_refused(tmp_path):
    for file in suite.ASSETS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = bytearray((tmp_path / "shapes.safetensors").read_bytes())
    content[-3] ^= 4
    (tmp_path / "shapes.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"shapes\.safetensors.*SHA-256"):
        suite.load_embedded(("shapes",), tmp_path)


def test_missing_assets_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="experiments.finetune"):
        suite.load_embedded((), tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "crat"), "did you mean 'cart'"),
        (("--tasks", "shaeps"), "did you mean 'shapes'"),
        (("--run-dir", "/dev/null/run"), "--run-dir"),
        (("--adaptation.num-steps", "-3"), "num_steps"),
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
