"""Images with labels at random access, and what may be asked of any of them.

A source has a length, and `source[index]` is `(image, label)`: uint8 RGB `(height,
width, 3)` and a class number, or `NO_LABEL`. Folders, npz files, parquet sets and tfds
have a file of their own beside this one. Arrays alone may hold images that are
preprocessed already; `is_preprocessed` tells.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from adarank_jax.data import images

NO_LABEL = -1


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
        TypeError: the arrays have other dtypes.
        ValueError: the arrays have other shapes or lengths, a preprocessed image is not
            finite, or a label is below 0.

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
            raise TypeError(
                f"`images` of {name} must be uint8 or uint16, got {pixels.dtype} of "
                f"shape {pixels.shape}; scale them to 0..255 first. Only what is "
                "preprocessed, (images, height, width, 3), may be floating point."
            )
        if pixels.ndim not in (3, 4) or (
            pixels.ndim == 4 and pixels.shape[-1] not in (1, 3, 4)
        ):
            raise ValueError(
                f"`images` of {name} must have shape (images, height, width) or "
                f"(images, height, width, 1 | 3 | 4), got {pixels.shape}."
            )
        if not pixels.size:
            raise ValueError(f"{name} has no image: `images` has shape {pixels.shape}.")
        self._pixels, self._name = pixels, name
        self.labels = check_labels(labels, len(pixels), name)

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._pixels)

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
        raise ValueError(
            f"{len(bad)} of {len(pixels)} preprocessed `images` of {name} are not "
            f"finite in float32, the first is number {bad[0]}; preprocess them again."
        )


class Relabelled:
    """A source whose classes are numbered in another order.

    Args:
        source: any.
        numbers: the new number of each class of the source.

    Raises:
        ValueError: two classes would get the same number.

    Examples:
        >>> import numpy as np
        >>> source = Arrays(np.zeros((2, 1, 1), np.uint8), np.array([0, 1]))
        >>> Relabelled(source, (1, 0))[0][1]
        1
    """

    def __init__(self, source: ImageSource, numbers: Sequence[int]):
        """Checks that the mapping is one to one."""
        if sorted(numbers) != list(range(len(numbers))):
            raise ValueError(
                f"`numbers` must hold 0 to {len(numbers) - 1} once each, got "
                f"{list(numbers)}."
            )
        self._source, self._numbers = source, tuple(numbers)

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
        """Names of the classes in the new order; empty if the source does not say."""
        names = getattr(self._source, "classes", ())
        return tuple(names[self._numbers.index(i)] for i in range(len(names)))

    @property
    def labels(self) -> np.ndarray:
        """New labels of all images, `(images,)` int32."""
        return np.array([self.new(int(x)) for x in labels_of(self._source)], np.int32)


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
        TypeError: the labels are no whole numbers.
        ValueError: their number differs from that of the images, or one is no class.
    """
    if labels is None:
        return np.full(count, NO_LABEL, np.int32)
    labels = np.asarray(labels)
    if labels.dtype != np.bool_ and not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"`labels` of {name} must be class numbers, got {labels.dtype}."
        )
    if labels.shape != (count,):
        raise ValueError(
            f"`labels` of {name} must have shape ({count},), one an image, got "
            f"{labels.shape}."
        )
    labels = labels.astype(np.int64)
    low, high = int(labels.min()), int(labels.max())
    if low < NO_LABEL or (num_classes is not None and high >= num_classes):
        expected = "0 and above" if num_classes is None else f"0 to {num_classes - 1}"
        raise ValueError(
            f"`labels` of {name} are from {low} to {high}, expected {expected} (or "
            f"{NO_LABEL} for none); is this the right data set, and does it count its "
            "classes from 0?"
        )
    return labels.astype(np.int32)


def renumbering(found: Sequence[str], expected: Sequence[str], name: str) -> list[int]:
    """Compares two lists of class names that say the same in other words or order.

    Names are compared by their letters and digits; one of several words ("['happy',
    'smiling']") or a longer form ("fear", "fearful") will do where only one class has
    it. If every class has a partner, the order of the source is translated. Otherwise
    those that have one must have one number in both lists, because a head would judge
    by the wrong class; names without a partner are taken for other words.

    Args:
        found: names of the source, in the order of its labels.
        expected: names of the head, in the order of its classes.
        name: of the source in messages.

    Returns:
        The number that each class of the source has in `expected`, for `Relabelled`.

    Raises:
        ValueError: the lists differ in length, or share only some names and disagree
            on the numbers of these.

    Examples:
        >>> renumbering(["sad", "sea_lake"], ["Sea Lake", "sad"], "faces")
        [1, 0]
    """
    if len(found) != len(expected):
        raise ValueError(
            f"{name} has {len(found)} classes, expected {len(expected)}; is this the "
            "right data set and head profile?"
        )
    if [*map(_words, found)] == [*map(_words, expected)]:
        return list(range(len(found)))
    partners = _partners(found, expected)
    if len(partners) == len(found):
        return [partners[i] for i in range(len(found))]
    moved = [
        f"{found[i]!r} is {i} there, {j} here"
        for i, j in sorted(partners.items())
        if i != j
    ]
    if moved:
        raise ValueError(
            f"The classes of {name} are in another order than those of the head: "
            + "; ".join(moved[:5])
            + ". Name them alike, or choose the other profile of prompts; in Python, "
            "`Relabelled` gives them other numbers."
        )
    return list(range(len(found)))


def _partners(found, expected):
    """Maps the classes that only one class of the other list can be."""
    left, right = [*map(_words, found)], [*map(_words, expected)]
    partners = {}
    for alike in (_share, _extend):
        rows = [i for i in range(len(left)) if i not in partners]
        cols = [j for j in range(len(right)) if j not in partners.values()]
        pairs = [(i, j) for i in rows for j in cols if alike(left[i], right[j])]
        for i, j in pairs:
            if sum(i == k or j == m for k, m in pairs) == 1:
                partners[i] = j
    return partners


def _share(one, two):
    """Tells whether two classes have a word in common."""
    return bool(one & two)


def _extend(one, two):
    """Tells whether a word of one class begins one of the other."""
    return any(
        min(len(a), len(b)) >= _SHORTEST and (a.startswith(b) or b.startswith(a))
        for a in one
        for b in two
    )


def _words(name):
    """Returns the letters and digits of a class name, or of each of several."""
    several = re.fullmatch(r"\[(.*)\]", name)
    parts = several[1].split(",") if several else [name]
    return {re.sub(r"[\W_]+", "", part.casefold()) for part in parts}


def shared_images(sources: Mapping[str, ImageSource], sample: int = 64) -> list[str]:
    """Looks for images that two tasks have in common.

    Args:
        sources: of each task.
        sample: images of each source that are compared, evenly spaced.

    Returns:
        A warning for each pair of tasks that share an image; none is the usual case.
    """
    seen = {
        task: {
            hashlib.sha256(b"%d %d" % image.shape[:2] + image.tobytes()).digest()
            for image in (source[i][0] for i in _spread(len(source), sample))
        }
        for task, source in sources.items()
    }
    tasks = list(sources)
    return [
        f"Tasks {one!r} and {two!r} have {len(common)} of the {len(seen[one])} images "
        "looked at in common; a merge gains nothing from the same images twice."
        for i, one in enumerate(tasks)
        for two in tasks[i + 1 :]
        if (common := seen[one] & seen[two])
    ]


def _spread(count, sample):
    """Returns evenly spaced indices."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, sample))})


_SHORTEST = 4  # letters of a word that may begin another
