"""What is odd about the images of a task."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from adarank_jax import errors
from adarank_jax.data.class_order import listed
from adarank_jax.data.folders import Report
from experiments import task_checks


def oddities(report: Report, place: pathlib.Path) -> Iterator[errors.Message]:
    """Says what the scan of a folder found and what stops nothing.

    Args:
        report: of the scan.
        place: of the folder.

    Yields:
        Warnings.
    """
    total = report.images + len(report.bad)
    where = f"`{place}`"
    for code, count, what in (
        ("W323", report.transparent, "are transparent and are put on white"),
        ("W325", report.animated, "have several frames or pages; the first is taken"),
        ("W327", report.tiny, "have a side below 8 pixels"),
    ):
        if count:
            yield errors.Message(code, f"{count} of {total} images {what}", where)
    if report.bad:
        yield errors.Message(
            "W322",
            f"{len(report.bad)} of {total} images cannot be used and are left out, for "
            f"example {report.bad[0]}",
            where=where,
        )
    if count := report.ignored.get("no regular file"):
        found = f"{count} entries are no regular files and are left out"
        yield errors.Message("W328", found, where)


def shortages(
    count: int, batch_size: int, labels: np.ndarray | None, names: Sequence[str]
) -> Iterator[errors.Message]:
    """Says what a task has too little of.

    Args:
        count: of images.
        batch_size: images a step.
        labels: of the images; None if there are none.
        names: of the classes; empty if they are not known.

    Yields:
        Warnings.
    """
    yield from task_checks.shortage(count, batch_size, "images")
    if labels is not None:
        present = {*labels.tolist()}
        empty = [name for i, name in enumerate(names) if i not in present]
        if empty:
            found = f"{len(empty)} of {len(names)} classes have no image"
            yield errors.Message("W305", f"{found}: {listed(empty)}")
