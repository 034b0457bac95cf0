"""Measures the peak memory of our steps and of the same steps in PyTorch.

``python -m benchmarks.memory --shapes vit-b-32 --layers 2``, with random weights; needs
the extra `bench`. Each side runs in a process of its own. Its peak is the largest
resident memory during the steps, less what the process held before the problem was
drawn: weights, factors and optimiser state count, imported libraries do not. It needs
Linux.
"""

import argparse
import gc
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from benchmarks import cli, step

SIDES = ("ours", "theirs")
NUM_STEPS = 3


def measure_side(side: str, options: argparse.Namespace) -> dict[str, float]:
    """Runs some steps of one side in this process.

    Args:
        side: one of `SIDES`.
        options: as `step.parse` returns.

    Returns:
        Bytes: the peak in the steps, and what stays between them.
    """
    step.check_backend()
    import jax
    import torch  # noqa: F401  so that both sides start from the same libraries
    import transformers  # noqa: F401

    from benchmarks import ours, theirs

    jax.block_until_ready(jax.numpy.ones(8) + 1)
    before = _resident("VmRSS")
    case = step.make_case(options)
    make = {"ours": ours.make_run, "theirs": theirs.make_run}[side]
    run = make(case, step.DEFAULTS[options.shapes][2])
    del case
    run()
    gc.collect()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    for _ in range(NUM_STEPS):
        run()
    return {
        "peak": _resident("VmHWM") - before,
        "between": _resident("VmRSS") - before,
    }


def _resident(name):
    """Reads a number of bytes from the status of this process."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {name}; this benchmark needs Linux.")


def measure(options: argparse.Namespace) -> dict:
    """Measures both sides, each in a process of its own.

    Args:
        options: as `step.parse` returns.

    Returns:
        What was measured, on what, and by which command.
    """
    found = {}
    for side in SIDES:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, side, *cli.words(options)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{side} failed:\n{done.stderr[-2000:]}")
        found[side] = json.loads(done.stdout.splitlines()[-1])
    return cli.result("benchmarks.memory", options) | {
        "bytes": found,
        "ratio": found["ours"]["peak"] / found["theirs"]["peak"],
    }


def cells(result: dict) -> tuple[str, ...]:
    """Formats what a row tells."""
    gib = {side: result["bytes"][side]["peak"] / 2**30 for side in SIDES}
    ratio = f"{result['ratio']:.2f}"
    return f"{gib['theirs']:.2f} GiB", f"{gib['ours']:.2f} GiB", ratio


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    cli.run(step.parse(arguments), measure, cells, ("torch", "transformers"))


_CHILD = """
import json, sys
from benchmarks import memory, step
print(json.dumps(memory.measure_side(sys.argv[1], step.parse(sys.argv[2:]))))
"""

if __name__ == "__main__":
    main()
