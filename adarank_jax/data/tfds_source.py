"""Prepared TensorFlow Datasets at random access, without TensorFlow."""

import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from adarank_jax import errors
from adarank_jax.data import images
from adarank_jax.data.sources import check_labels


class TfdsImages:
    """One split of a prepared data set.

    The files are decoded here and not by tfds, whose result depends on whether OpenCV
    is installed.

    Args:
        builder: name, with its configuration: ``emnist/digits``.
        split: for example "test".
        data_dir: of all prepared data sets; `~/tensorflow_datasets` by default.

    Attributes:
        classes: names of the classes.

    Raises:
        MissingError: the data set is not prepared.
        InputError: there is no such builder, it is prepared without random access, or
            it has no such split.
    """

    def __init__(
        self,
        builder: str,
        split: str = "test",
        data_dir: str | os.PathLike | None = None,
    ):
        """Opens the files; no image is read."""
        made = make_builder(builder, data_dir)
        self._name = f"`{builder}` ({split})"
        undecoded = {"image": _skip_decoding()}
        self._source = open_split(
            made, builder, split, data_dir, undecoded, needs_tensorflow=True
        )
        self.classes = class_names(made)
        self._identity = f"{made.info.full_name} {split}"

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns an image and its label."""
        example = self._source[index]
        image = images.decode(example["image"], f"image {index} of {self._name}")
        return image, int(self._check([example["label"]])[0])

    def content(self) -> Iterator[bytes]:
        """Yields builder, version and split."""
        yield self._identity.encode()

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Labels of all images, `(images,)` int32; no image is decoded."""
        return self._check(
            [self._source[index]["label"] for index in range(len(self._source))]
        )

    def _check(self, labels):
        """Checks the range of some labels."""
        count = len(labels)
        return check_labels(np.array(labels), count, self._name, len(self.classes))


def class_names(made: Any) -> tuple[str, ...]:
    """Returns the names of a builder's classes, in the order of its labels."""
    return tuple(made.info.features["label"].names)


def make_builder(
    builder: str, data_dir: str | os.PathLike | None = None, **options
) -> Any:
    """Finds a builder without asking the network.

    Args:
        builder: name, with its configuration.
        data_dir: of all prepared data sets.
        **options: of `tfds.builder`.

    Returns:
        The builder.

    Raises:
        InputError: there is no such builder.
    """
    os.environ.setdefault("NO_GCE_CHECK", "true")  # tfds would ask a metadata server
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    folder = None if data_dir is None else str(pathlib.Path(data_dir).expanduser())
    find = functools.partial(
        tfds.builder, builder, data_dir=folder, try_gcs=False, **options
    )
    try:
        return find()
    except registered.DatasetNotFoundError:
        # Without TensorFlow the search ends early, so that texts are not found.
        import tensorflow_datasets.text  # noqa: F401
    try:
        return find()
    except registered.DatasetNotFoundError as error:
        raise errors.InputError(
            "E314",
            f"tfds has no builder {builder!r}",
            remedy="see `python -m experiments.prepare --list`",
        ) from error


def _skip_decoding():
    """Returns what tells tfds to give the bytes of a file."""
    import tensorflow_datasets as tfds

    return tfds.decode.SkipDecoding()


def open_split(
    made: Any,
    builder: str,
    split: str,
    data_dir: str | os.PathLike | None = None,
    decoders: Any = None,
    *,
    needs_tensorflow: bool,
) -> Any:
    """Opens a split for random access.

    Args:
        made: the builder.
        builder: its name, with its configuration.
        split: for example "test".
        data_dir: of all prepared data sets.
        decoders: as tfds takes them.
        needs_tensorflow: whether it has to be prepared with TensorFlow, which encodes
            images; texts are written as they are.

    Returns:
        A sequence of dicts.

    Raises:
        MissingError: the data set is not prepared.
        InputError: it is prepared without random access, or has no such split.
    """
    where = _root(made) if data_dir is None else data_dir
    command = f"`python -m experiments.prepare --dataset {builder} --data-dir {where}"
    command += "` (needs TensorFlow, once)" if needs_tensorflow else " --source tfds`"
    try:
        return made.as_data_source(split=split, decoders=decoders)
    except NotImplementedError as error:
        if pathlib.Path(made.data_dir).is_dir():
            raise errors.InputError(
                "E168",
                "it is prepared as tfrecord, which has no random access",
                where=f"tfds set {builder!r} in `{made.data_dir}`",
                remedy=f"prepare it as array_record in another folder with {command}",
            ) from error
        raise _unprepared(made, builder, command) from error
    except (AssertionError, FileNotFoundError) as error:
        raise _unprepared(made, builder, command) from error
    except (KeyError, ValueError) as error:
        raise errors.InputError(
            "E163",
            f"it has splits {sorted(made.info.splits)}",
            where=f"tfds set {builder!r}",
            expected=repr(split),
        ) from error


def _root(made):
    """Returns the folder of all data sets, above name, configuration and version."""
    depth = len(made.info.full_name.split("/"))
    return pathlib.Path(made.data_dir).parents[depth - 1]


def _unprepared(made, builder, command):
    """Says how to prepare a data set."""
    return errors.MissingError(
        "E168",
        f"it is not prepared in `{made.data_dir}`",
        where=f"tfds set {builder!r}",
        remedy=f"prepare it with {command}",
    )
