"""Times our step as the number of tasks grows.

``python -m benchmarks.scaling --shapes vit-b-32 --layers 2``, with random weights.
Every task brings a batch and directions of its own, so the cost of a task should stay
the same.
"""

import argparse
import statistics
from collections.abc import Sequence

from benchmarks import cli, ours, shapes, step, timing

NUM_TASKS = (2, 4, 8, 16)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line; exits with a message if it is wrong."""
    parser = cli.parser("benchmarks.scaling", __doc__)
    parser.add_argument("--shapes", choices=step.DEFAULTS, default="vit-b-32")
    parser.add_argument("--layers", type=cli.count, default=2, help="depth, of 12")
    parser.add_argument("--tasks", type=cli.count, nargs="+", default=NUM_TASKS)
    parser.add_argument("--batch", type=cli.count, help="examples a task; the paper's")
    parser.add_argument("--tokens", type=cli.count, default=128, help="of every text")
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
    return cli.result("benchmarks.scaling", options) | {
        "seconds": seconds,
        "seconds_a_task": each,
        "spread": max(each.values()) / min(each.values()) - 1,
    }


def cells(result: dict) -> tuple[str, ...]:
    """Formats what a row tells."""
    each = [f"{seconds:.3f} s" for seconds in result["seconds_a_task"].values()]
    return (*each, f"{100 * result['spread']:.0f} %")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    cli.run(parse(arguments), measure, cells)


if __name__ == "__main__":
    main()
