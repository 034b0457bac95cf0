"""Crops of the photographs that ship inside scikit-image, scikit-learn, matplotlib."""

import functools
import pathlib

import numpy as np
from PIL import Image

from adarank_jax import errors
from adarank_jax.data.embedded import canvas


@functools.cache
def photograph(name: str) -> np.ndarray:
    """Reads one photograph as RGB uint8.

    Args:
        name: file name, e.g. ``gravel.png``.

    Raises:
        MissingError: no installed package ships a picture of this name.
    """
    import matplotlib
    import skimage
    import sklearn

    folders = [
        pathlib.Path(skimage.__file__).parent / "data",
        pathlib.Path(sklearn.__file__).parent / "datasets" / "images",
        pathlib.Path(matplotlib.get_data_path()) / "sample_data",
    ]
    for folder in folders:
        if (folder / name).is_file():
            with Image.open(folder / name) as image:
                return np.asarray(image.convert("RGB"))
    raise errors.MissingError(
        "E101",
        f"`{name}` is in none of {[str(folder) for folder in folders]}",
        remedy="install the extra `suite` at the versions of setup.py",
    )


def region(name: str, low: float, high: float) -> np.ndarray:
    """Returns the vertical band [low, high) of a photograph's width."""
    image = photograph(name)
    width = image.shape[1]
    return image[:, round(low * width) : round(high * width)]


def crop(
    rng: np.random.Generator, image: np.ndarray, side: tuple[int, int]
) -> np.ndarray:
    """Cuts a random square and scales it to the canvas, flipped at random.

    Args:
        rng: where the randomness comes from.
        image: RGB uint8, larger than the square.
        side: range of the square's side in pixels, both ends included.

    Returns:
        The crop, float32 in [0, 1].
    """
    length = min(int(rng.integers(side[0], side[1] + 1)), *image.shape[:2])
    top = int(rng.integers(0, image.shape[0] - length + 1))
    left = int(rng.integers(0, image.shape[1] - length + 1))
    square = image[top : top + length, left : left + length]
    if rng.random() < 0.5:
        square = square[:, ::-1]
    small = Image.fromarray(np.ascontiguousarray(square)).resize(
        (canvas.SIZE, canvas.SIZE), Image.Resampling.BILINEAR, reducing_gap=2.0
    )
    return np.asarray(small, np.float32) / 255.0
