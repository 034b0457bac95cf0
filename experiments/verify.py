"""Checks that a run or an export is as it was written.

    python -m experiments.verify runs/embedded runs/mine/export

Every file and state is compared with the digest that was written with it. Nothing is
changed. The exit code is 6 if anything is damaged.
"""

import dataclasses
import pathlib
import sys

import tyro

from adarank_jax import errors
from adarank_jax.adaptation import verify
from experiments import cli, results
from experiments.messages import printable


@dataclasses.dataclass(frozen=True)
class Options:
    """Compares every file of runs and exports with the digests in them."""

    folders: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Of runs, or of exports."""


def main(options: Options) -> None:
    """Checks folders and says what was found.

    Args:
        options: of the command.

    Raises:
        Problems: something is damaged.
    """
    if not options.folders:
        raise errors.UsageError(
            "E018", "no folder given", remedy="name a run, or an export"
        )
    console = results.table_console()
    damage = []
    for folder in options.folders:
        count = 0
        try:
            for checked in verify.verify(folder):
                count += 1
                if checked.damage is not None:
                    damage.append(checked.damage)
        except errors.AdaRankError as error:
            damage.append(error.message)
            continue
        console.print(
            printable(f"{folder}: {count} files and states compared"),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if damage:
        raise errors.Problems(damage, errors.DamageError.exit_code)


if __name__ == "__main__":
    cli.run(main, Options, sys.argv[1:])
