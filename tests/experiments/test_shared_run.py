"""The command in two processes of four devices, against one process of eight."""

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from adarank_jax import tree
from adarank_jax.checkpoints import files
from experiments import run_glue, run_vit
from tests import language_family, processes

IMAGES = (
    "tasks=[mnist,shapes]",
    "adaptation={num_steps: 20, batch_size: 8, checkpoint_every: 8}",
    "compare=[]",
    "method.objective=expert_labels",
)


def check_same_run(found, expected):
    """Compares what two run folders hold."""
    for name in ("results.json", "metrics.jsonl", "export/README.md"):
        assert (found / name).is_file()
    rows = [
        json.loads((run / "results.json").read_text())["rows"]
        for run in (found, expected)
    ]
    assert len(rows[0]) == len(rows[1])
    for ours, theirs in zip(*rows, strict=True):
        assert ours["method"] == theirs["method"]
        assert ours["per_task"] == pytest.approx(theirs["per_task"], abs=0.01)
    (place,) = found.glob("adapted/*/variables.safetensors")
    trained = [
        tree.flatten(files.read(run / place.relative_to(found)))
        for run in (found, expected)
    ]
    for path, leaf in trained[0].items():
        np.testing.assert_allclose(leaf, trained[1][path], atol=2e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    run_vit.main(run_vit.Options(what=IMAGES, run_dir=folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [True, False])
def test_command_in_two_processes_is_the_command_in_one(tmp_path, alone, is_shared):
    words = ("-m", "experiments.run_vit", *IMAGES, "--run-dir")
    for _ in range(2):  # the second start finds every row
        if is_shared:
            started = processes.start((*words, str(tmp_path / "two")))
        else:  # each machine has a disk of its own
            started = processes.start(
                ("-m", "tests.experiments.own_disk", str(tmp_path), *IMAGES)
            )
        codes, printed = processes.finish(started)
        assert codes == [0, 0], "\n".join(printed)
        assert "adarank" in printed[0] and "adarank" not in printed[1]
    found = tmp_path / ("two" if is_shared else "disk-0")
    check_same_run(found, alone)
    assert not (tmp_path / "disk-1").exists()
    lines = (found / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(20))


@pytest.mark.slow
def test_texts_in_two_processes_are_those_in_one(tmp_path):
    values = language_family.write(tmp_path, "roberta")
    values["adaptation"] |= {"batch_size": 16, "num_steps": 20}
    merge = tmp_path / "my_merge.yaml"
    merge.write_text(yaml.safe_dump(values, sort_keys=False))
    run_glue.main(run_glue.Options(what=(str(merge),), run_dir=tmp_path / "one"))
    words = ("-m", "experiments.run_glue", str(merge), "--run-dir")
    codes, printed = processes.finish(processes.start((*words, str(tmp_path / "two"))))
    assert codes == [0, 0], "\n".join(printed)
    check_same_run(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_every_process_stops_when_commands_or_options_do_not_fit(tmp_path):
    words = ("-m", "tests.experiments.own_disk", str(tmp_path), *IMAGES)
    codes, printed = processes.finish(processes.start((*words, "--other-seeds")))
    assert codes == [3, 3], "\n".join(printed)
    for each in printed:
        assert "Process 0 and process 1 differ in configuration" in each
    options = (*IMAGES, "adaptation.parallel=pmap", "--run-dir", str(tmp_path / "run"))
    started = processes.start(("-m", "experiments.run_vit", *options))
    codes, printed = processes.finish(started)
    assert codes == [2, 2], "\n".join(printed)
    for each in printed:
        assert "must not be pmap with 2 processes" in each
    assert not (tmp_path / "run").exists()


def test_help_explains_how_machines_share_a_run():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run_vit", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for option in ("--distributed", "--coordinator", "--num-processes", "--process-id"):
        assert option in done.stdout
