"""Images with labels at random access, and what may be asked of any of them.

A source has a length, and `source[index]` is `(image, label)`: uint8 RGB `(height,
width, 3)` and a class number, or `NO_LABEL`. Folders, npz files, parquet sets and tfds
have a file of their own beside this one. Arrays alone may hold images that are
preprocessed already; `is_preprocessed` tells.
"""

import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from adarank_jax import errors
from adarank_jax.data import class_order, images

NO_LABEL = -1
MOST_READ = 2_000
"""Files or images that a fingerprint reads at most."""


@runtime_checkable
class ImageSource(Protocol):
    """What a pipeline reads from."""

    def __len__(self) -> int:
        """Returns the number of images."""
        ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns an image, `(height, width, 3)` uint8, and its label or `NO_LABEL`."""
        ...


class Arrays:
    """Images that are in memory already.

    Args:
        pixels: `(images, height, width)` or `(images, height, width, 1 | 3 | 4)`,
            uint8, uint16 or bool; or, preprocessed, `(images, height, width, 3)` of
            floating point, which is given out as it is, in float32.
        labels: `(images,)` class numbers; None if there are none.
        name: of the source in messages.

    Raises:
        InputError: the arrays have other dtypes, shapes or lengths, a preprocessed
            image is not finite, or a label is below 0.

    Examples:
        >>> import numpy as np
        >>> image, label = Arrays(np.zeros((5, 8, 8), np.uint8))[4]
        >>> image.shape, label
        ((8, 8, 3), -1)
    """

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray | None = None,
        name: str = "the images",
    ):
        """Checks shapes and dtypes."""
        is_floating = np.issubdtype(pixels.dtype, np.floating)
        self.is_preprocessed = is_floating and pixels.shape[3:] == (3,)
        if self.is_preprocessed:
            with np.errstate(over="ignore"):
                pixels = pixels.astype(np.float32, copy=False)
            _check_finite(pixels, name)
        elif pixels.dtype not in (np.uint8, np.uint16, np.bool_):
            raise errors.InputError(
                "E333",
                f"`images` are {pixels.dtype} of shape {pixels.shape}",
                where=name,
                expected="uint8 or uint16",
                remedy="scale them to 0..255 first. Only what is preprocessed, "
                "(images, height, width, 3), may be floating point",
            )
        if pixels.ndim not in (3, 4) or (
            pixels.ndim == 4 and pixels.shape[-1] not in (1, 3, 4)
        ):
            raise errors.InputError(
                "E333",
                f"`images` have shape {pixels.shape}",
                where=name,
                expected="(images, height, width) or (images, height, width, 1 | 3 | "
                "4)",
            )
        if not pixels.size:
            raise errors.InputError(
                "E320", f"no image: `images` has shape {pixels.shape}", name
            )
        self._pixels, self._name = pixels, name
        self.labels = check_labels(labels, len(pixels), name)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._pixels)

    def content(self) -> Iterator[bytes]:
        """Yields the bytes of the arrays."""
        for array in (self._pixels, self.labels):
            yield repr((array.shape, str(array.dtype))).encode()
            yield np.ascontiguousarray(array).data.cast("B")

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns an image and its label."""
        if self.is_preprocessed:
            return self._pixels[index], int(self.labels[index])
        image = images.decode(self._pixels[index], f"image {index} of {self._name}")
        return image, int(self.labels[index])


def _check_finite(pixels, name):
    """Refuses preprocessed images that would spoil every number after them."""
    bad = np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2, 3)))
    if len(bad):
        raise errors.InputError(
            "E220",
            f"{len(bad)} of {len(pixels)} preprocessed `images` are not finite in "
            f"float32, the first is number {bad[0]}",
            where=name,
            remedy="preprocess them again",
        )


class Relabelled:
    """A source whose classes are numbered in another order.

    Args:
        source: any.
        numbers: the new number of each class of the source.
        warnings: of the order.

    Attributes:
        warnings: of the source and of the order.

    Raises:
        ValueError: two classes would get the same number.

    Examples:
        >>> import numpy as np
        >>> source = Arrays(np.zeros((2, 1, 1), np.uint8), np.array([0, 1]))
        >>> Relabelled(source, (1, 0))[0][1]
        1
    """

    def __init__(
        self,
        source: ImageSource,
        numbers: Sequence[int],
        warnings: Sequence[errors.Message] = (),
    ):
        """Checks that the mapping is one to one."""
        if sorted(numbers) != list(range(len(numbers))):
            raise ValueError(
                f"`numbers` must hold 0 to {len(numbers) - 1} once each, got "
                f"{list(numbers)}."
            )
        self._source, self._numbers = source, tuple(numbers)
        self.warnings = [*warnings_of(source), *warnings]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Returns an image and its new label."""
        image, label = self._source[index]
        return image, self.new(label)

    def new(self, label: int) -> int:
        """Returns the new number of a class of the source.

        Raises:
            ValueError: there is no such class.
        """
        if label == NO_LABEL:
            return label
        if not 0 <= label < len(self._numbers):
            raise ValueError(
                f"Label {label} is none of the {len(self._numbers)} classes."
            )
        return self._numbers[label]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the new order, "" where the source has none."""
        names = tuple(getattr(self._source, "classes", ()))
        if not names:
            return ()
        names += ("",) * (len(self._numbers) - len(names))
        return tuple(names[self._numbers.index(i)] for i in range(len(names)))

    @property
    def labels(self) -> np.ndarray:
        """New labels of all images, `(images,)` int32."""
        return np.array([self.new(int(x)) for x in labels_of(self._source)], np.int32)

    def prepare(self) -> None:
        """Prepares the source."""
        prepare(self._source)

    def glance(self, count: int) -> list[np.ndarray]:
        """Returns some images of the source."""
        return glance(self._source, count)

    def content(self) -> Iterator[bytes]:
        """Yields what the source is known by, and the new numbers."""
        yield from content(self._source)
        yield repr(self._numbers).encode()


def renumbered(source: Any, names: Sequence[str], name: str) -> Relabelled:
    """Numbers the classes of a source that has its own order as a head does.

    Args:
        source: of images, with `classes`.
        names: of the head's classes, in the order of its rows.
        name: of the source in messages.

    Returns:
        The source; its `warnings` say so if the order is taken on trust.

    Raises:
        InputError: the classes are not those of the head.
    """
    numbers = class_order.renumbering(source.classes, names, name)
    doubts = [*class_order.doubts(source.classes, names, name)]
    return Relabelled(source, numbers, doubts)


def warnings_of(source: Any) -> list[errors.Message]:
    """Returns what a source, of any kind, warns of.

    Args:
        source: any image source.
    """
    return [*getattr(source, "warnings", ())]


def prepare(source: Any) -> None:
    """Does now what the first image would wait for, such as copying a parquet set.

    Args:
        source: any image source.

    Raises:
        InputError: the source is damaged.
        OSError: there is no room for it.
    """
    if hasattr(source, "prepare"):
        source.prepare()


def glance(source: Any, count: int) -> list[np.ndarray]:
    """Returns some images, the same ones each time; nothing is written for it.

    Args:
        source: any image source.
        count: how many at most; evenly spaced where the source can be read at random.
    """
    if hasattr(source, "glance"):
        return source.glance(count)
    return [source[i][0] for i in spread(len(source), count)]


def content(source: Any) -> Iterator[bytes]:
    """Yields what a source is known by: see `fingerprint`.

    Args:
        source: any image source.

    Yields:
        Parts.
    """
    if hasattr(source, "content"):
        yield from source.content()
        return
    for image in glance(source, MOST_READ):
        yield repr((image.shape, str(image.dtype))).encode()
        yield image.tobytes()


def fingerprint(source: Any) -> str:
    """Returns a digest that changes when the images of a source do.

    It is cheap: of files more than 2,000 or large it reads a fixed part, evenly spread.
    Names and sizes of all files count, where they lie does not.

    Args:
        source: any image source.

    Returns:
        SHA-256, 64 hexadecimal digits.

    Examples:
        >>> import numpy as np
        >>> one, other = (Arrays(np.full((2, 1, 1), i, np.uint8)) for i in range(2))
        >>> fingerprint(one) == fingerprint(one), fingerprint(one) == fingerprint(other)
        (True, False)
    """
    digest = hashlib.sha256(b"%d images" % len(source))
    for part in content(source):
        digest.update(b"\n%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()


def file_content(path: str | os.PathLike) -> bytes:
    """Hashes a file: the whole of a small one, evenly spread parts of a large one.

    Args:
        path: of the file.

    Returns:
        The size and a digest.
    """
    path, digest = pathlib.Path(path), hashlib.sha256()
    size = path.stat().st_size
    with open(path, "rb") as stream:
        if size <= _LARGE:
            digest.update(stream.read())
        else:
            for start in spread(size - _PART + 1, _LARGE // _PART):
                stream.seek(start)
                digest.update(stream.read(_PART))
    return b"%d " % size + digest.digest()


def labels_of(source: Any) -> np.ndarray:
    """Returns all labels, without decoding an image where the source allows it.

    Args:
        source: any image source.

    Returns:
        `(images,)` int32.
    """
    labels = getattr(source, "labels", None)
    if labels is None:
        labels = [source[index][1] for index in range(len(source))]
    return np.asarray(labels, np.int32)


def check_labels(
    labels: np.ndarray | None,
    count: int,
    name: str,
    num_classes: int | None = None,
) -> np.ndarray:
    """Checks labels, or makes them if there are none.

    Args:
        labels: class numbers, `(images,)`.
        count: of images.
        name: of the source in messages.
        num_classes: of the task, where it is known.

    Returns:
        `(images,)` int32.

    Raises:
        InputError: the labels are no whole numbers, their number differs from that of
            the images, or one is no class.
    """
    if labels is None:
        return np.full(count, NO_LABEL, np.int32)
    labels = np.asarray(labels)
    if labels.dtype != np.bool_ and not np.issubdtype(labels.dtype, np.integer):
        raise errors.InputError(
            "E313", f"`labels` are {labels.dtype}", name, "class numbers"
        )
    if labels.shape != (count,):
        raise errors.InputError(
            "E312",
            f"`labels` have shape {labels.shape}",
            where=name,
            expected=f"shape ({count},), one an image",
        )
    labels = labels.astype(np.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < NO_LABEL or (num_classes is not None and high >= num_classes):
        expected = "0 and above" if num_classes is None else f"0 to {num_classes - 1}"
        raise errors.InputError(
            "E313",
            f"`labels` are from {low} to {high}",
            where=name,
            expected=f"{expected} (or {NO_LABEL} for none)",
            remedy="is this the right data set, and does it count its classes from 0?",
        )
    return labels.astype(np.int32)


def shared_images(
    sources: Mapping[str, ImageSource], sample: int = 64
) -> list[errors.Message]:
    """Looks for images that two tasks have in common.

    Args:
        sources: of each task.
        sample: images of each source that are compared, as `glance` gives them.

    Returns:
        A warning for each pair of tasks that share an image; none is the usual case.
    """
    seen = {
        task: {
            hashlib.sha256(b"%d %d" % image.shape[:2] + image.tobytes()).digest()
            for image in glance(source, sample)
        }
        for task, source in sources.items()
    }
    tasks = list(sources)
    return [
        errors.Message(
            "W329",
            f"{len(common)} of the {len(seen[one])} images looked at are in common",
            where=f"tasks {one!r} and {two!r}",
            remedy="a merge gains nothing from the same images twice",
        )
        for i, one in enumerate(tasks)
        for two in tasks[i + 1 :]
        if (common := seen[one] & seen[two])
    ]


def spread(count: int, sample: int) -> list[int]:
    """Returns evenly spaced indices, the first and the last among them.

    Args:
        count: of things.
        sample: how many to take at most.

    Examples:
        >>> spread(5, 3)
        [0, 2, 4]
    """
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, sample))})


_LARGE = 4 * 2**20  # bytes of a file that is read whole
_PART = 2**16  # bytes that are read of a larger one at each place
