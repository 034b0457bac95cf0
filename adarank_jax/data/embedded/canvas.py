"""Painting small RGB images: masks, colours, backgrounds and the final noise.

Every function draws from the generator that it is given and from nothing else, so an
image is a pure function of its seed. Images are float32 in [0, 1] until `finish`.
"""

import colorsys

import numpy as np
from PIL import Image

SIZE = 32
"""Side of every embedded image, in pixels."""


def finish(image: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Adds Gaussian pixel noise and rounds to 8 bits."""
    image = image + rng.normal(0.0, noise, image.shape)
    return np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8)


def colour(
    rng: np.random.Generator, value: tuple[float, float], saturation: float = 1.0
) -> np.ndarray:
    """Draws an RGB colour with brightness in a range and saturation up to a bound."""
    hue, chroma = rng.random(), rng.random() * saturation
    return np.array(colorsys.hsv_to_rgb(hue, chroma, rng.uniform(*value)), np.float32)


def contrasting_colours(
    rng: np.random.Generator, saturation: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a dark and a bright colour, in random order."""
    dark, bright = colour(rng, (0.0, 0.4)), colour(rng, (0.65, 1.0), 0.6 * saturation)
    return (dark, bright) if rng.random() < 0.5 else (bright, dark)


def fill(rgb: np.ndarray) -> np.ndarray:
    """Returns an image of one colour."""
    return np.broadcast_to(rgb, (SIZE, SIZE, 3)).astype(np.float32)


def gradient(rng: np.random.Generator, first: np.ndarray, spread: float) -> np.ndarray:
    """Returns a linear ramp around a colour, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * X + np.sin(angle) * Y
    step = rng.uniform(-spread, spread, 3).astype(np.float32)
    return np.clip(first + ramp[..., None] * step, 0.0, 1.0)


def clouds(rng: np.random.Generator, slope: float) -> np.ndarray:
    """Returns a grey noise field in [0, 1] whose spectrum falls as 1 / f**slope."""
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE)))
    spectrum *= 1.0 / np.maximum(_FREQUENCY, 1.0 / SIZE) ** slope
    field = np.fft.irfft2(spectrum, s=(SIZE, SIZE))
    low, high = field.min(), field.max()
    return ((field - low) / max(high - low, 1e-9)).astype(np.float32)


def blend(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Paints `above` over `below` where the mask is one."""
    return below + mask[..., None] * (above - below)


def warp(
    mask: Image.Image,
    angle: float,
    scale: float,
    shift: tuple[float, float],
    shear: float = 0.0,
) -> np.ndarray:
    """Maps a square grey picture onto the canvas, rotated, scaled, sheared, shifted.

    Args:
        mask: the picture; its centre is the centre of the transform.
        angle: counter-clockwise, in radians.
        scale: share of the canvas that the picture's side takes.
        shift: of the centre, in canvas pixels.
        shear: horizontal shift per unit of height.

    Returns:
        The picture on the canvas, float32 in [0, 1].
    """
    side, fine = mask.size[0], 2 * SIZE
    cos, sin = np.cos(angle), np.sin(angle)
    forward = np.array([[cos, sin], [-sin, cos]]) @ np.array([[1.0, shear], [0.0, 1.0]])
    inverse = np.linalg.inv(forward * (scale * fine / side))
    centre = np.array([fine / 2 + 2 * shift[0], fine / 2 + 2 * shift[1]])
    offset = np.array([side / 2, side / 2]) - inverse @ centre
    coefficients = (*inverse[0], offset[0], *inverse[1], offset[1])
    fine_mask = mask.transform(
        (fine, fine), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return np.asarray(fine_mask.reduce(2), np.float32) / 255.0


Y, X = np.meshgrid(*[np.linspace(-1, 1, SIZE, dtype=np.float32)] * 2, indexing="ij")
"""Coordinates of every pixel, in [-1, 1]."""

_FREQUENCY = np.hypot(
    *np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")
)
