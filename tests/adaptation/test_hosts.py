import json
import pickle

import chex
import jax
import numpy as np
import pytest

from adarank_jax.adaptation import hosts
from adarank_jax.adaptation.run_folder import RunFolder
from tests import processes
from tests.adaptation import shared_run

WORKER = ("-m", "tests.adaptation.shared_run")


def found(folder, number):
    return pickle.loads((folder / f"found-{number}.pickle").read_bytes())


def check_shared_run(folder, tmp_path):
    """Compares with one process that has all eight devices."""
    (variables, merged) = shared_run.run(RunFolder(tmp_path / "one", {}, False))
    expected = jax.tree.map(np.asarray, (tuple(variables), merged))
    chex.assert_trees_all_equal(found(folder, 0), found(folder, 1))
    chex.assert_trees_all_close(found(folder, 0), expected, atol=1e-6, rtol=0)
    rows = [
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (folder / "run-0", tmp_path / "one")
    ]
    assert [row["step"] for row in rows[0]] == list(range(20))
    for ours, theirs in zip(*rows, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
    assert not (folder / "run-1").exists()


def test_two_processes_join_and_agree(tmp_path):
    codes, printed = processes.finish(
        processes.start((*WORKER, "joined", str(tmp_path)))
    )
    assert codes == [0, 0], "\n".join(printed)


def test_processes_with_other_numbers_of_devices_stop_at_once(tmp_path):
    started = processes.start((*WORKER, "joined", str(tmp_path)), devices=(1, 3))
    codes, printed = processes.finish(started)
    assert codes == [3, 3], "\n".join(printed)
    for each in printed:
        assert "devices, but process 0 has 1, process 1 has 3; use" in each


@pytest.mark.slow
def test_two_processes_resume_and_equal_one_process(tmp_path):
    started = processes.start((*WORKER, "interrupted", str(tmp_path)))
    codes, printed = processes.finish(started)
    assert codes == [0, 0], "\n".join(printed)
    check_shared_run(tmp_path, tmp_path)


@pytest.mark.slow
def test_stop_of_one_process_saves_and_stops_all_and_the_run_resumes(tmp_path):
    started = processes.start((*WORKER, "stopped", str(tmp_path)))
    codes, printed = processes.finish(started)
    assert codes == [0, 0], "\n".join(printed)
    check_shared_run(tmp_path, tmp_path)


@pytest.mark.slow
def test_process_does_not_outlive_another_for_ever_and_the_run_resumes(tmp_path):
    started = processes.start((*WORKER, "killed", str(tmp_path)))
    codes, printed = processes.finish(started, timeout=200)
    assert codes[1] == -9 and codes[0] != 0, "\n".join(printed)
    assert not (tmp_path / "found-0.pickle").exists()
    codes, printed = processes.finish(
        processes.start((*WORKER, "whole", str(tmp_path)))
    )
    assert codes == [0, 0], "\n".join(printed)
    check_shared_run(tmp_path, tmp_path)


def test_process_alone_leads_itself_and_changes_nothing():
    arrays = {"a": np.arange(3)}
    assert hosts.is_lead()
    assert hosts.from_lead(arrays) is arrays
    assert hosts.devices() == jax.devices()
    hosts.wait()
    hosts.check_same("anything", b"at all")
    hosts.check_none(3, "problems")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("localhost:1234", None, 0), "`num_processes` is missing"),
        ((None, 2, 0), "`coordinator` is missing"),
        (("localhost", 2, 0), "write localhost:1234, say"),
        (("localhost:http", 2, 0), "port .* from 1 to 65535, got 'localhost:http'"),
        (("localhost:70000", 2, 0), "port .* from 1 to 65535, got 'localhost:70000'"),
        (("localhost:1234", 0, 0), "`num_processes` must be at least 1, got 0"),
        (("localhost:1234", 2, 2), "`process_id` must be from 0 to 1 .*, got 2"),
    ],
)
def test_start_refuses_what_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        hosts.start(*given)


def test_start_tells_that_nobody_listens_instead_of_being_ended_by_jax():
    with pytest.raises(ConnectionError, match="nothing listens at the port"):
        hosts.start(processes.free_address(), 2, 1, timeout=0.2)
