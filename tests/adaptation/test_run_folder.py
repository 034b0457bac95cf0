import json
import os

import pytest

from adarank_jax.adaptation.run_folder import RunFolder

CONFIG = {"seed": 0, "preset": "cart"}


def test_run_folder_opens_again_with_the_same_config(tmp_path):
    RunFolder(tmp_path / "run", CONFIG, restart=False).write_json("results.json", [1])
    again = RunFolder(tmp_path / "run", CONFIG, restart=False)
    assert again.read_json("results.json", None) == [1]


def test_difference_is_short_where_a_whole_branch_is_missing(tmp_path):
    one = {"merge": {"seed": 0, "experts": {f"a{i}": {"x": i} for i in range(99)}}}
    two = {"merge": {"seed": 0, "experts": {"b": {"x": 0}}, "qkv": None}}
    RunFolder(tmp_path, one, restart=False)
    with pytest.raises(ValueError) as caught:
        RunFolder(tmp_path, two, restart=False)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 12 + 1
    assert lines[1:3] == [
        "  merge.experts.b: only now",
        "  merge.experts.a0: only there",
    ]
    assert lines[0].index("--run-dir") < lines[0].index("--restart")


def test_run_folder_refuses_another_config_and_names_the_difference(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False)
    with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
        RunFolder(tmp_path, CONFIG | {"seed": 1}, restart=False)


def test_run_folder_starts_over_when_told(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False).write_json("results.json", [1])
    again = RunFolder(tmp_path, CONFIG | {"seed": 1}, restart=True)
    assert again.read_json("results.json", None) is None


@pytest.mark.parametrize("restart", [False, True])
def test_run_folder_refuses_a_folder_that_is_not_of_a_run(tmp_path, restart):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="not the folder of a run"):
        RunFolder(tmp_path, CONFIG, restart)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("restart", [False, True])
def test_run_folder_leaves_a_project_with_its_own_config_alone(tmp_path, restart):
    (tmp_path / "config.yaml").write_text("lr: 1\n")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "precious.ckpt").write_text("weeks")
    with pytest.raises(ValueError, match="not of a run of adarank_jax"):
        RunFolder(tmp_path, CONFIG, restart)
    assert (tmp_path / "checkpoints" / "precious.ckpt").read_text() == "weeks"


def test_run_folder_keeps_foreign_files_when_it_starts_over(tmp_path):
    RunFolder(tmp_path, CONFIG, restart=False)
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path, CONFIG, restart=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_run_folder_names_a_path_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="--run-dir"):
        RunFolder(tmp_path / "file" / "run", CONFIG, restart=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_run_folder_names_a_path_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="--run-dir"):
        RunFolder(tmp_path, CONFIG, restart=False)


def test_cut_metrics_drops_later_rows_of_this_run_only(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, restart=False)
    for name in ("a", "b"):
        for step in range(4):
            folder.append_metrics({"run": name, "step": step})
    folder.cut_metrics("a", 2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["step"] for row in rows if row["run"] == "a"] == [0, 1]
    assert [row["step"] for row in rows if row["run"] == "b"] == [0, 1, 2, 3]
