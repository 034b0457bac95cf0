"""What each process of `test_hosts` runs: checks, and an adaptation they share."""

import argparse
import io
import os
import pathlib
import pickle
import signal
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from adarank_jax.adaptation import (
    hosts,
    parallel,
    per_device,
    saved_states,
    signals,
)
from adarank_jax.adaptation.loop import AdaptationConfig, adapt
from adarank_jax.adaptation.objectives import entropy
from adarank_jax.adaptation.run_folder import RunFolder
from tests.adaptation import problems

CONFIG = AdaptationConfig(
    num_steps=20, batch_size=16, learning_rate=0.02, checkpoint_every=5
)


SCENARIOS = ("joined", "interrupted", "killed", "stopped", "whole")


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


def noted_at(last, note):
    """Returns batches of which one does something else first."""

    def batch(step):
        if step == last:
            note()
        return share(step)

    return batch


def interrupt():
    raise KeyboardInterrupt


def check_hosts():
    """Checks what needs several processes."""
    number = jax.process_index()
    owners = [device.process_index for device in hosts.devices()]
    assert owners == [0, 0, 0, 0, 1, 1, 1, 1]
    found = hosts.from_lead({"a": np.arange(3) + 10 * number, "b": np.float32(number)})
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert found["b"] == 0
    hosts.check_same("nothing", b"same")
    with pytest.raises(ValueError, match="Process 0 and process 1 differ in this"):
        hosts.check_same("this", bytes([number]))
    hosts.check_none(0, "problems")
    if number == 0:
        with pytest.raises(ValueError, match="^E631 process 1 found problems"):
            hosts.check_none(0, "problems")
    else:
        hosts.check_none(2, "problems")
    with pytest.raises(ValueError, match="must not be pmap with 2 processes"):
        per_device.choose("pmap")
    assert per_device.choose("auto") == "shard_map"


def check_arrays():
    """Checks arrays that lie on the devices of both processes."""
    devices, number = hosts.devices(), jax.process_index()
    factor = parallel.replicate(np.float32(10), devices)
    examples = np.arange(24, dtype=np.float32).reshape(1, 24)
    mine = np.split(examples, 2, axis=1)[number]
    batch = parallel.shard_batch(mine, devices)
    assert batch.shape == (8, 1, 3)

    def scaled_sum(factor, part):
        return jax.lax.psum(factor * part.sum(), per_device.AXIS)

    specs = (per_device.COPIED, per_device.SPLIT)
    summed = per_device.compiled(
        scaled_sum, specs, per_device.COPIED, devices, "shard_map"
    )
    assert np.asarray(summed(factor, batch)) == 10 * examples.sum()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--coordinator")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--process-id", type=int)
    given = parser.parse_args()
    try:
        hosts.start(given.coordinator, given.num_processes, given.process_id)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        hosts.leave(3)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    number = jax.process_index()
    if given.scenario == "joined":
        check_hosts()
        check_arrays()
        return
    run_dir = given.folder / f"run-{number}"
    folder = RunFolder(run_dir, {}, restart=False) if number == 0 else None
    if given.scenario == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            run(folder, noted_at(12, interrupt))
    if given.scenario == "stopped":
        terminate = lambda: number and os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(signals.Stopped):
            run(folder, noted_at(3, terminate))
        states = run_dir / "checkpoints" / "run"
        assert saved_states.steps(states) == ([] if number else [5, 10])
    if given.scenario == "killed" and number == 1:
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
        run(folder, noted_at(12, kill))
    variables, merged = run(folder, share)
    assert not run_dir.exists() or number == 0
    found = jax.tree.map(np.asarray, (tuple(variables), merged))
    (given.folder / f"found-{number}.pickle").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main()
