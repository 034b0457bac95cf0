"""The images of a task: opened, checked, and with labels if there are any."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from adarank_jax import errors
from adarank_jax.checkpoints import formats
from adarank_jax.data import loading, parquet, registry
from adarank_jax.data.class_order import folder_numbers
from adarank_jax.data.folders import ImageFolder
from adarank_jax.data.npz import NpzImages
from adarank_jax.data.sources import (
    NO_LABEL,
    Relabelled,
    labels_of,
    renumbered,
    warnings_of,
)
from experiments import image_checks
from experiments.image_config import Data


def hub_name(data: Data, profile: str) -> str:
    """Names the data set on the Hub that images may have to be fetched from.

    Args:
        data: of the configuration.
        profile: of registered data sets.

    Returns:
        ``org/name``, or an empty text.
    """
    if data.dataset is not None:
        try:
            found = registry.get(data.dataset, profile).hub
        except errors.InputError:
            return ""
        if data.source not in ("auto", "hub"):
            return ""
        return found.repo if isinstance(found, registry.Hub) else ""
    return data.parquet or ""


def open_images(
    data: Data,
    names: Sequence[str] | None,
    profile: str,
    data_dir: pathlib.Path | None,
    offline: bool,
) -> tuple[Any, list[errors.Message]]:
    """Opens the images of a task.

    Args:
        data: of the configuration.
        names: of the classes, in the order of the head's rows; None if not known.
        profile: of registered data sets.
        data_dir: folder of registered data sets.
        offline: take data sets of the Hub from its cache only.

    Returns:
        An image source whose labels are rows of the head, and warnings.

    Raises:
        MissingError: the images are not there.
        InputError: there is no such data set, images cannot be used, or classes are not
            those of the head.
    """
    if data.dataset is not None:
        source = loading.load(
            data.dataset,
            profile,
            data_dir=data_dir,
            kind=data.source,
            classes=names,
            offline=offline,
            on_bad_image=data.on_bad_image,
        )
        return source, warnings_of(source)
    if data.folder is not None:
        return _open_folder(data, names)
    if data.npz is not None:
        formats.check_exists(data.npz.expanduser())
        source = NpzImages(data.npz.expanduser())
    elif pathlib.Path(data.parquet or "").is_dir():
        files = parquet.find_files(data.parquet or "", data.split)
        source = parquet.ParquetImages(files)
    else:
        repo, _, revision = (data.parquet or "").partition("@")
        source = parquet.from_hub(
            repo, data.split, revision=revision or None, offline=offline
        )
    if getattr(source, "classes", ()) and names is not None:
        source = renumbered(source, names, f"`{data.parquet}`")
    return source, warnings_of(source)


def _open_folder(data, names):
    """Opens a folder of images, and numbers its classes as the head does."""
    folder = data.folder.expanduser()
    formats.check_exists(folder)
    source = ImageFolder(folder, on_bad_image=data.on_bad_image)
    warnings = [*image_checks.oddities(source.report, folder)]
    if not source.classes or names is None:
        return source, warnings
    numbers = folder_numbers(source.classes, names, str(folder))
    return Relabelled(source, numbers), warnings


def is_preprocessed(source: Any) -> bool:
    """Tells whether images are floating point already, as only arrays may be.

    Args:
        source: of images.
    """
    return getattr(source, "is_preprocessed", False)


def check_preprocessed(source: Any, side: int) -> None:
    """Checks that images which are taken as they are fit the tower.

    Args:
        source: of images.
        side: of the square images that the tower takes.

    Raises:
        InputError: they have another shape.
    """
    shape = source[0][0].shape
    if shape != (side, side, 3):
        raise errors.InputError(
            "E333",
            "the images are floating point, so they are taken as they are, but each "
            f"has shape {shape} and the image tower takes {(side, side, 3)}",
            remedy="preprocess them for it, or give 8-bit pictures of any size",
        )


def doubts(source: Any) -> Iterator[errors.Message]:
    """Warns of images preprocessed by halves, which nothing else would show.

    Args:
        source: of preprocessed images.

    Yields:
        Warnings.
    """
    some = range(min(len(source), 16))
    if all(source[i][0].min() >= 0.0 for i in some):
        yield errors.Message(
            "W330",
            "the images are floating point, so they are taken as they are, but none of "
            f"the first {len(some)} has a number below 0, as CLIP's normalisation "
            "gives",
            remedy="were they only scaled?",
        )


def find_labels(data: Data, source: Any, rows: int) -> np.ndarray | None:
    """Returns the labels of a task, and checks that the head has their classes.

    Args:
        data: of the configuration, for messages.
        source: of images.
        rows: number of classes of the head; 0 if it is not known.

    Returns:
        `(images,)` class numbers; None if there are no labels.

    Raises:
        InputError: some images have no label, or the head has no such class.
    """
    labels = labels_of(source)
    if (labels == NO_LABEL).all():
        return None
    if (labels == NO_LABEL).any():
        raise errors.InputError(
            "E312",
            f"{int((labels == NO_LABEL).sum())} of {len(labels)} images have no label",
            where=f"`{_place(data)}`",
            remedy="give labels for all images or for none",
        )
    if rows and labels.max() >= rows:
        raise errors.InputError(
            "E305",
            f"it has labels from {labels.min()} to {labels.max()}, but the head has "
            f"{rows} classes",
            where=f"`{_place(data)}`",
            expected=f"0 to {rows - 1}",
            remedy="take head, class names and data from the same task",
        )
    return labels


def _place(data):
    """Names where images come from."""
    return data.dataset or data.folder or data.npz or data.parquet
