"""Times our step as the number of tasks grows.

``python -m benchmarks.scaling --shapes vit-b-32 --layers 2``, with random weights.
Every task brings a batch and directions of its own, so the cost of a task should stay
the same.
"""

import argparse
import json
import pathlib
import statistics
import sys
from collections.abc import Sequence

from benchmarks import ours, shapes, step, timing

NUM_TASKS = (2, 4, 8, 16)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with a message if it is wrong."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.scaling", description=__doc__
    )
    parser.add_argument("--shapes", choices=step.DEFAULTS, default="vit-b-32")
    parser.add_argument("--layers", type=step.count, default=2, help="depth, of 12")
    parser.add_argument("--tasks", type=step.count, nargs="+", default=NUM_TASKS)
    parser.add_argument("--batch", type=step.count, help="examples a task; the paper's")
    parser.add_argument("--tokens", type=step.count, default=128, help="of every text")
    parser.add_argument("--repeats", type=step.count, default=5, help="timed steps")
    parser.add_argument("--out", type=pathlib.Path, help="file for the JSON")
    options = parser.parse_args(arguments)
    options.batch = options.batch or step.DEFAULTS[options.shapes][1]
    return options


def measure(options: argparse.Namespace) -> dict:
    """Times the steps of all numbers of tasks in turn.

    Args:
        options: as `parse` returns.

    Returns:
        What was measured, on what, and by which command; `seconds_a_task` by number of
        tasks, and `spread`, by how much the largest is above the smallest.
    """
    runs = {}
    for tasks in options.tasks:
        case = shapes.make_case(
            options.shapes, options.layers, tasks, options.batch, options.tokens
        )
        runs[str(tasks)] = ours.make_run(case, step.DEFAULTS[options.shapes][2])
        runs[str(tasks)]()
    seconds = timing.alternate(runs, options.repeats)
    each = {n: statistics.median(found) / int(n) for n, found in seconds.items()}
    names = ("shapes", "layers", "batch", "tokens", "repeats")
    words = [f"--{name} {getattr(options, name)}" for name in names]
    tasks = " ".join(str(n) for n in options.tasks)
    return {
        "command": " ".join(["python -m benchmarks.scaling --tasks", tasks, *words]),
        "commit": timing.commit(),
        "machine": timing.machine(),
        "seconds": seconds,
        "seconds_a_task": each,
        "spread": max(each.values()) / min(each.values()) - 1,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    options = parse(arguments)
    result = measure(options)
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    each = " | ".join(f"{s:.3f} s" for s in result["seconds_a_task"].values())
    spread = f"{100 * result['spread']:.0f} %"
    row = [f"`{result['command']}`", each, spread, result["commit"], result["machine"]]
    sys.stdout.write(f"{text}\n| {' | '.join(row)} |\n")


if __name__ == "__main__":
    main()
