"""Makes a GLUE task ready to use, for `experiments.prepare`."""

import importlib.util
import os
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from adarank_jax import errors
from adarank_jax.data import glue, parquet, tfds_source


def prepare(
    name: str,
    source: str,
    split: str | None,
    data_dir: str | os.PathLike | None,
    plan: bool,
    say: Callable[[str], None],
) -> None:
    """Fetches or prepares one task; does nothing if it is there.

    Args:
        name: of the task, with or without ``glue/``.
        source: "auto", which is the Hub, "hub" or "tfds".
        split: of the task; None for the one that models are judged on.
        data_dir: of sets that tfds prepares.
        plan: only say what is needed.
        say: shows a line.

    Raises:
        InputError: there is no such task, it cannot be fetched, or what came is not
            what was expected.
        MachineError: a package that prepares it is missing.
    """
    task = glue.get(name)
    split, kind = split or task.split, "hub" if source == "auto" else source
    try:
        made = glue.load(task.name, split, data_dir, kind, offline=True)
    except FileNotFoundError:
        made = None
    if made is None:
        if kind == "hub":
            size = parquet.download_size(glue.REPO, split, task.name)
            say(f"{task.name} needs a download of {size / 1e6:.1f} MB from the Hub.")
        else:
            size = TFDS_SIZES[task.name]
            say(f"{task.name} needs a download of {size / 1e6:.1f} MB by tfds.")
        if plan:
            return
        if kind == "hub":
            parquet.fetch(glue.REPO, split, task.name)
        else:
            _check_packages(task.name)
            tfds_source.make_builder(
                f"glue/{task.name}", data_dir, file_format="array_record"
            ).download_and_prepare()
        made = glue.load(task.name, split, data_dir, kind, offline=True)
    say(f"{task.name} ({split}) is ready, from {kind}: {len(made):,} examples.")


def _check_packages(name):
    """Raises if tfds cannot prepare a task; TensorFlow is not needed for texts."""
    if importlib.util.find_spec("importlib_resources") is None:
        raise errors.MachineError(
            "E420",
            f"tfds needs importlib_resources to prepare {name}, not installed",
            remedy="run `pip install importlib-resources`, or take `--source hub`",
        )


def is_task(name: str) -> bool:
    """Tells whether a data set is a GLUE task, as ``glue/cola`` or ``CoLA``.

    Args:
        name: of the data set.
    """
    return name.startswith("glue/") or glue.is_task(name)


def show(data_dir: str | os.PathLike | None, console: Console) -> dict[str, str]:
    """Shows the tasks and which are ready.

    Args:
        data_dir: of own and prepared data sets.
        console: gets the table.

    Returns:
        What was found of each task.
    """
    table = Table(
        title="The seven GLUE tasks, on the split that models are judged on",
        caption=f"All are on the Hub, {glue.REPO}, and in tfds.",
    )
    for column in ("task", "split", "texts", "metric", "ready"):
        table.add_column(column, justify="right" if column == "texts" else "left")
    ready = {}
    for name in glue.names():
        task = glue.get(name)
        found = [kind for kind in _KINDS if _is_ready(name, kind, data_dir)]
        ready[name] = ", ".join(_KINDS[kind] for kind in found) or "-"
        size = f"{task.sizes[task.split]:,}"
        table.add_row(name, task.split, size, task.metric, ready[name])
    console.print(table)
    return ready


def _is_ready(name, kind, data_dir):
    """Tells whether a task can be opened without the network."""
    try:
        return len(glue.load(name, None, data_dir, kind, offline=True)) > 0
    except (FileNotFoundError, ValueError):
        return False


_KINDS = {"local": "own", "hub": "hub", "tfds": "tfds"}

TFDS_SIZES: Mapping[str, int] = {
    "cola": 376_971,
    "sst2": 7_439_277,
    "mrpc": 1_494_541,
    "qqp": 41_696_084,
    "mnli": 312_783_507,
    "qnli": 10_627_589,
    "rte": 697_150,
}
"""Bytes that tfds downloads of each task, all splits."""
