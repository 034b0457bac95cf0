"""What is odd about the images of a task, and how its classes are numbered."""

import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from adarank_jax.data.folders import Report


def numbers(found: Sequence[str], names: Sequence[str], place: str) -> list[int]:
    """Numbers the folders of classes as a head numbers its classes.

    Args:
        found: names of the folders; letters and digits count, or numbers from 0.
        names: of the classes, in the order of the head's rows.
        place: of the folders, for messages.

    Returns:
        The number of each folder, then those of classes that have no folder.

    Raises:
        ValueError: a folder is none of the classes; the message lists both sides.

    Examples:
        >>> numbers(("annual_crop", "sea lake"), ("Sea Lake", "Annual Crop"), "there")
        [1, 0]
        >>> numbers(("0", "10", "2"), [*"abcdefghijk"], "there")[:3]
        [0, 10, 2]
    """
    left, right = [*map(_plain, found)], [*map(_plain, names)]
    if (
        {*left} <= {*right}
        and len({*left}) == len(left)
        and len({*right}) == len(right)
    ):
        numbered = [right.index(each) for each in left]
    elif {*found} <= {str(i) for i in range(len(names))}:
        numbered = [int(each) for each in found]
    else:
        there = [each for each, plain in zip(found, left, strict=True)
                 if plain not in right]  # fmt: skip
        here = [each for each, plain in zip(names, right, strict=True)
                if plain not in left]  # fmt: skip
        raise ValueError(
            f"`{place}` has {len(found)} folders of classes and the head {len(names)} "
            f"classes; only there: {listed(there)}; only in the head: {listed(here)}; "
            "name the folders as the classes, or number them from 0."
        )
    return numbered + [i for i in range(len(names)) if i not in numbered]


def _plain(name):
    """Keeps the letters and digits of a name."""
    return re.sub(r"[\W_]+", "", name.casefold())


def listed(names: Sequence[str]) -> str:
    """Lists the first of some names.

    Args:
        names: any.

    Examples:
        >>> listed(["a", "b"])
        "'a', 'b'"
    """
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(map(repr, names[:8])) or "none") + more


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
    if count < batch_size:
        yield (
            f"{count} images are fewer than a batch of {batch_size}, so a step sees "
            "some of them twice."
        )
    if labels is not None:
        present = {*labels.tolist()}
        empty = [name for i, name in enumerate(names) if i not in present]
        if empty:
            yield (
                f"{len(empty)} of {len(names)} classes have no image: {listed(empty)}."
            )
