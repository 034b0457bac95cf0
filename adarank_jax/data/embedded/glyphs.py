"""Characters of the fonts that ship inside matplotlib."""

import functools
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adarank_jax.data.embedded import canvas

_PICTURE = 96
_HEIGHT = 72


def faces(*names: str) -> list[pathlib.Path]:
    """Returns the font files with these names, e.g. ``DejaVuSans-Bold``."""
    import matplotlib

    folder = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [folder / f"{name}.ttf" for name in names]


@functools.lru_cache(maxsize=100_000)
def picture(face: pathlib.Path, character: str) -> Image.Image:
    """Renders one character, white on black, centred and scaled to fill the square."""
    font = ImageFont.truetype(str(face), _HEIGHT, layout_engine=ImageFont.Layout.BASIC)
    left, top, right, bottom = map(int, font.getbbox(character))
    image = Image.new("L", (_PICTURE, _PICTURE))
    if right <= left or bottom <= top:
        return image
    glyph = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(glyph).text((-left, -top), character, fill=255, font=font)
    ratio = _HEIGHT / max(glyph.size)
    size = (max(1, round(glyph.width * ratio)), max(1, round(glyph.height * ratio)))
    glyph = glyph.resize(size, Image.Resampling.BICUBIC)
    image.paste(glyph, ((_PICTURE - size[0]) // 2, (_PICTURE - size[1]) // 2))
    return image


def is_drawn(face: pathlib.Path, character: str) -> bool:
    """Tells whether the font has the character (and not just its empty box)."""
    font = ImageFont.truetype(str(face), 24, layout_engine=ImageFont.Layout.BASIC)
    drawn, missing = (_sample(font, text) for text in (character, "\U0010fffd"))
    return bool(drawn.any()) and not np.array_equal(drawn, missing)


def _sample(font, character):
    """Draws a character at its own place in a small square."""
    image = Image.new("L", (48, 48))
    ImageDraw.Draw(image).text((8, 8), character, fill=255, font=font)
    return np.asarray(image)


def glyph_mask(
    rng: np.random.Generator,
    face: pathlib.Path,
    character: str,
    turn: float,
    scale: tuple[float, float],
) -> np.ndarray:
    """Draws a character at a random place, size, slant and small rotation.

    Args:
        rng: where the randomness comes from.
        face: font file.
        character: what to draw.
        turn: largest rotation to either side, in radians.
        scale: range of the size, as a share of the canvas.

    Returns:
        The mask on the canvas, float32 in [0, 1].
    """
    size = rng.uniform(*scale)
    room = max(0.0, (1.0 - 0.8 * size)) * canvas.SIZE / 2
    shift = (rng.uniform(-room, room), rng.uniform(-room, room))
    angle, shear = rng.uniform(-turn, turn), rng.uniform(-0.15, 0.15)
    return canvas.warp(picture(face, character), angle, size, shift, shear)
