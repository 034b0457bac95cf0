"""Shows for which share of an adaptation the devices waited, and for what.

They wait for data, and for states to be saved.

``python -m benchmarks.idle RUN_FOLDER`` reads the `metrics.jsonl` of a run. The first
step is left out, because its time is that of compilation; that of a later start, which
went on with the run, cannot be told from others and counts.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from adarank_jax.adaptation import prefetch


def shares(folder: pathlib.Path) -> dict[str, tuple[int, float, float]]:
    """Reads the shares of every adaptation of a run.

    Args:
        folder: of the run.

    Returns:
        Steps that count, and the shares of waiting for data and of saving, by name. The
        last state counts for no step.

    Raises:
        FileNotFoundError: there is no `metrics.jsonl`.
        ValueError: its rows have no times.
    """
    file = folder / "metrics.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; is {folder} the folder of a run?")
    rows_by_run = {}
    # A run that goes on may have written half of its last row.
    for line in file.read_text().rpartition("\n")[0].splitlines():
        row = json.loads(line)
        if not {"run", "seconds", "waited", "saving"} <= row.keys():
            raise ValueError(f"{file} has no times; start its run with --restart.")
        rows_by_run.setdefault(row["run"], []).append(row)
    return {
        name: (len(rows) - 1, prefetch.idle_share(rows[1:]), _saving(rows[1:]))
        for name, rows in rows_by_run.items()
        if len(rows) > 1
    }


def _saving(rows):
    """Returns the share of the time of steps in which states were saved."""
    return sum(row["saving"] for row in rows) / sum(row["seconds"] for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line an adaptation."""
    parser = argparse.ArgumentParser("python -m benchmarks.idle", description=__doc__)
    parser.add_argument("run_folder", type=pathlib.Path)
    folder = parser.parse_args(arguments).run_folder
    try:
        found = shares(folder)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(str(error)) from error
    if not found:
        raise SystemExit(f"No adaptation in {folder} has more than one step yet.")
    for name, (steps, idle, saving) in found.items():
        sys.stdout.write(
            f"{name}: {steps:,} steps, waited {idle:.1%}, saved states {saving:.1%}\n"
        )


if __name__ == "__main__":
    main()
