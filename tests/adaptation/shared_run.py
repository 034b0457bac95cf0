"""What each process of `test_hosts` runs: one adaptation, shared with the others."""

import argparse
import io
import os
import pathlib
import pickle
import signal

import jax
import numpy as np
import pytest
from rich.console import Console

from adarank_jax.adaptation import hosts, per_device
from adarank_jax.adaptation.loop import AdaptationConfig, adapt
from adarank_jax.adaptation.objectives import entropy
from adarank_jax.adaptation.run_folder import RunFolder
from tests.adaptation import problems

CONFIG = AdaptationConfig(
    num_steps=20, batch_size=16, learning_rate=0.02, checkpoint_every=5
)


def run(folder, batch=problems.batch):
    """Adapts on all devices of all processes."""
    problem = problems.problem()
    return adapt(
        problem,
        problems.variables(problem),
        entropy,
        problems.from_step(batch),
        CONFIG,
        folder,
        "run",
        console=Console(file=io.StringIO()),
    )


def share(step):
    """Returns this process's part of a batch."""
    part, count = jax.process_index(), jax.process_count()
    return jax.tree.map(
        lambda leaf: np.split(leaf, count, axis=1)[part], problems.batch(step)
    )


def failing_at(last, fail):
    """Returns batches of which one fails."""

    def batch(step):
        if step == last:
            fail()
        return share(step)

    return batch


def interrupt():
    raise KeyboardInterrupt


def check_hosts():
    """Checks what needs several processes."""
    number = jax.process_index()
    assert jax.process_count() == 2 and len(hosts.devices()) == 8
    found = hosts.from_lead({"a": np.arange(3) + 10 * number, "b": np.float32(number)})
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert found["b"] == 0
    hosts.check_same("nothing", b"same")
    with pytest.raises(ValueError, match="Process 0 and process 1 differ in this"):
        hosts.check_same("this", bytes([number]))
    hosts.check_none(0, "problems")
    if number == 0:
        with pytest.raises(ValueError, match="^process 1 found problems"):
            hosts.check_none(0, "problems")
    else:
        hosts.check_none(2, "problems")
    with pytest.raises(ValueError, match="must not be pmap with 2 processes"):
        per_device.choose("pmap")
    assert per_device.choose("auto") == "shard_map"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=("interrupted", "killed", "whole"))
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--coordinator")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--process-id", type=int)
    given = parser.parse_args()
    hosts.start(given.coordinator, given.num_processes, given.process_id)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    number = jax.process_index()
    run_dir = given.folder / f"run-{number}"
    folder = RunFolder(run_dir, {}, restart=False) if number == 0 else None
    if given.scenario == "interrupted":
        check_hosts()
        with pytest.raises(KeyboardInterrupt):
            run(folder, failing_at(12, interrupt))
    if given.scenario == "killed" and number == 1:
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
        run(folder, failing_at(12, kill))
    variables, merged = run(folder, share)
    assert not run_dir.exists() or number == 0
    found = jax.tree.map(np.asarray, (tuple(variables), merged))
    (given.folder / f"found-{number}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main()
