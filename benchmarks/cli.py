"""What the commands of this folder share: their options, and how a result is shown."""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import timing


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options of every command that times something."""
    made = argparse.ArgumentParser(f"python -m {module}", description=description)
    made.add_argument("--repeats", type=count, default=5, help="timed runs of each")
    made.add_argument("--out", type=pathlib.Path, help="file for the JSON")
    return made


def count(text: str) -> int:
    """Reads a whole number above zero from a command line.

    Raises:
        ArgumentTypeError: it is something else.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text!r}")
    return int(text)


def share(text: str) -> float:
    """Reads a number above 0, and 1 at most, from a command line.

    Raises:
        ArgumentTypeError: it is something else.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text!r}")
    return value


def words(options: argparse.Namespace) -> list[str]:
    """Writes options as they are given on a command line.

    Examples:
        >>> words(argparse.Namespace(tasks=[2, 4], rank_ratio=0.16, out=None))
        ['--tasks', '2', '4', '--rank-ratio', '0.16']
    """
    given = {name: value for name, value in vars(options).items() if name != "out"}
    found = []
    for name, value in given.items():
        values = value if isinstance(value, list | tuple) else [value]
        found += [f"--{name.replace('_', '-')}", *map(str, values)]
    return found


def result(module: str, options: argparse.Namespace) -> dict[str, Any]:
    """Begins a result: the command that repeats it, and what it was measured on."""
    return {
        "command": " ".join([f"python -m {module}", *words(options)]),
        "commit": timing.commit(),
        "machine": timing.machine(),
    }


def table_row(found: dict[str, Any], cells: Sequence[str]) -> str:
    """Formats a measurement as one row of a Markdown table.

    Args:
        found: what `result` began.
        cells: that stand between the command and what it was measured on.
    """
    row = [f"`{found['command']}`", *cells, found["commit"], found["machine"]]
    return f"| {' | '.join(row)} |"


def run(
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    cells: Callable[[dict[str, Any]], Sequence[str]],
    needs: Sequence[str] = (),
) -> None:
    """Measures, prints the result and its row, and writes it to ``--out``.

    Args:
        options: of the command.
        measure: what the command measures.
        cells: of a result, for its row.
        needs: modules of the extra `bench` without which there is no other side.

    Raises:
        SystemExit: one of them is not installed.
    """
    for name in needs:
        try:
            __import__(name)
        except ImportError as error:
            raise SystemExit(
                f"{error.name} is not installed; the other side of this benchmark "
                "needs the extra `bench`: pip install -e '.[bench]'"
            ) from error
    found = measure(options)
    text = json.dumps(found, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    sys.stdout.write(f"{text}\n{table_row(found, cells(found))}\n")
