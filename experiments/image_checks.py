"""What is odd about the images of a task."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from adarank_jax.data.class_order import listed
from adarank_jax.data.folders import Report
from experiments import task_checks


def oddities(report: Report, place: pathlib.Path) -> Iterator[str]:
    """Says what the scan of a folder found and what stops nothing.

    Args:
        report: of the scan.
        place: of the folder.

    Yields:
        Warnings.
    """
    total = report.images + len(report.bad)
    for count, what in (
        (report.transparent, "are transparent; they are put on white"),
        (report.animated, "have several frames or pages; the first is taken"),
        (report.tiny, "have a side below 8 pixels"),
    ):
        if count:
            yield f"{count} of {total} images in `{place}` {what}."
    if report.bad:
        yield (
            f"{len(report.bad)} of {total} images in `{place}` cannot be used and are "
            f"left out, for example {report.bad[0]}"
        )
    if count := report.ignored.get("no regular file"):
        yield f"{count} entries of `{place}` are no regular files and are left out."


def shortages(
    count: int, batch_size: int, labels: np.ndarray | None, names: Sequence[str]
) -> Iterator[str]:
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
            yield (
                f"{len(empty)} of {len(names)} classes have no image: {listed(empty)}."
            )
