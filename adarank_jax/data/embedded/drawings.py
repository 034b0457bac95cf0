"""Drawn pictures: gratings, dials, patterns and shapes."""

import functools

import numpy as np
from PIL import Image, ImageDraw

from adarank_jax.data.embedded import canvas

SHAPES = (
    "disc",
    "square",
    "triangle",
    "pentagon",
    "star",
    "cross",
    "ring",
    "crescent",
    "arrow",
    "heart",
)
PATTERNS = (
    "stripes",
    "checks",
    "dots",
    "rings",
    "rays",
    "zigzag",
    "bricks",
    "grid",
    "waves",
    "scales",
)

_PICTURE = 96


@functools.cache
def shape_picture(name: str) -> Image.Image:
    """Draws one shape, white on black, filling most of the square."""
    image = Image.new("L", (_PICTURE, _PICTURE))
    draw = ImageDraw.Draw(image)
    box = (12, 12, 84, 84)
    if name == "disc":
        draw.ellipse(box, fill=255)
    elif name == "ring":
        draw.ellipse(box, fill=255)
        draw.ellipse((30, 30, 66, 66), fill=0)
    elif name == "crescent":
        draw.ellipse(box, fill=255)
        draw.ellipse((32, 6, 96, 70), fill=0)
    elif name == "heart":
        draw.ellipse((12, 16, 50, 54), fill=255)
        draw.ellipse((46, 16, 84, 54), fill=255)
        draw.polygon([(15, 44), (81, 44), (48, 84)], fill=255)
    else:
        draw.polygon(_OUTLINES[name], fill=255)
    return image


def grating(rng: np.random.Generator, angle: float) -> np.ndarray:
    """Draws a sine grating at an angle (radians) under a soft window, in noise."""
    wave = 2 * np.pi * rng.uniform(2.0, 5.0)
    phase = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * canvas.X + np.sin(angle) * canvas.Y
    signal = np.sin(0.5 * wave * along + phase) * rng.uniform(0.5, 1.0)
    centre = rng.uniform(-0.35, 0.35, 2)
    distance = (canvas.X - centre[0]) ** 2 + (canvas.Y - centre[1]) ** 2
    signal = signal * np.exp(-distance / rng.uniform(0.4, 0.9))
    noise = canvas.clouds(rng, rng.uniform(0.3, 1.0)) - 0.5
    grey = 0.5 + 0.35 * signal + 0.5 * noise
    first, second = canvas.contrasting_colours(rng, 0.5)
    return first + grey[..., None].astype(np.float32) * (second - first)


def dial(rng: np.random.Generator, angle: float) -> np.ndarray:
    """Draws a dial with one hand at an angle (radians, clockwise from the top)."""
    ink, paper = canvas.contrasting_colours(rng)
    fine = Image.new("L", (4 * canvas.SIZE, 4 * canvas.SIZE))
    draw = ImageDraw.Draw(fine)
    radius = rng.uniform(9.0, 14.0)
    x, y = rng.uniform(radius + 1, canvas.SIZE - radius - 1, 2)
    box = [4 * v for v in (x - radius, y - radius, x + radius, y + radius)]
    draw.ellipse(box, outline=255, width=int(rng.integers(3, 8)))
    length, width = radius * rng.uniform(0.6, 0.85), int(rng.integers(6, 13))
    tip = (4 * (x + length * np.sin(angle)), 4 * (y - length * np.cos(angle)))
    tail = rng.uniform(0.0, 0.25) * length
    end = (4 * (x - tail * np.sin(angle)), 4 * (y + tail * np.cos(angle)))
    draw.line((end, tip), fill=255, width=width)
    mask = np.asarray(fine.reduce(4), np.float32) / 255.0
    return canvas.blend(canvas.gradient(rng, paper, 0.2), canvas.fill(ink), mask)


def pattern(rng: np.random.Generator, name: str) -> np.ndarray:
    """Draws a regular pattern in two colours, turned and scaled at random."""
    angle, cell = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.75)
    shift = rng.uniform(-1, 1, 2)
    x = (np.cos(angle) * canvas.X + np.sin(angle) * canvas.Y + shift[0]) / cell
    y = (-np.sin(angle) * canvas.X + np.cos(angle) * canvas.Y + shift[1]) / cell
    soft = 1 / (1 + np.exp(-np.clip(_PATTERN_FIELDS[name](x, y) * 12.0, -30, 30)))
    first, second = canvas.contrasting_colours(rng)
    return canvas.blend(canvas.gradient(rng, first, 0.2), canvas.fill(second), soft)


def shape(rng: np.random.Generator, name: str) -> np.ndarray:
    """Draws a shape of any size and turn over a cloudy two-colour ground."""
    ink, paper = canvas.contrasting_colours(rng)
    mask_size = rng.uniform(0.45, 0.95)
    room = (1.0 - 0.8 * mask_size) * canvas.SIZE / 2
    shift = (rng.uniform(-room, room), rng.uniform(-room, room))
    mask = canvas.warp(shape_picture(name), rng.uniform(0, 2 * np.pi), mask_size, shift)
    ground = paper + 0.35 * (canvas.clouds(rng, rng.uniform(0.8, 2.0))[..., None] - 0.5)
    return canvas.blend(ground, canvas.gradient(rng, ink, 0.2), mask)


def _regular(sides: int, turn: float = 0.0) -> list[tuple[float, float]]:
    """Returns the corners of a regular polygon."""
    angles = turn - np.pi / 2 + 2 * np.pi * np.arange(sides) / sides
    return [(48 + 38 * np.cos(a), 48 + 38 * np.sin(a)) for a in angles]


def _star() -> list[tuple[float, float]]:
    """Returns the corners of a five-pointed star."""
    angles = -np.pi / 2 + np.pi * np.arange(10) / 5
    radii = [40 if i % 2 == 0 else 16 for i in range(10)]
    return [
        (48 + r * np.cos(a), 48 + r * np.sin(a))
        for a, r in zip(angles, radii, strict=True)
    ]


def _saw(t: np.ndarray) -> np.ndarray:
    """Returns the distance to the nearest integer, in [0, 0.5]."""
    return np.abs(t - np.rint(t))


_OUTLINES = {
    "square": [(16, 16), (80, 16), (80, 80), (16, 80)],
    "triangle": _regular(3),
    "pentagon": _regular(5),
    "star": _star(),
    "cross": [
        *[(36, 12), (60, 12), (60, 36), (84, 36), (84, 60), (60, 60)],
        *[(60, 84), (36, 84), (36, 60), (12, 60), (12, 36), (36, 36)],
    ],
    "arrow": [(48, 8), (80, 46), (60, 46), (60, 88), (36, 88), (36, 46), (16, 46)],
}
_PATTERN_FIELDS = {
    "stripes": lambda x, y: _saw(x) - 0.25,
    "checks": lambda x, y: np.sin(np.pi * x) * np.sin(np.pi * y),
    "dots": lambda x, y: 0.3 - np.hypot(_saw(x), _saw(y)),
    "rings": lambda x, y: _saw(np.hypot(x, y)) - 0.25,
    "rays": lambda x, y: np.sin(8 * np.arctan2(y, x)) * 0.5,
    "zigzag": lambda x, y: _saw(y + _saw(x)) - 0.25,
    "bricks": lambda x, y: (
        0.5
        - np.maximum(
            _saw(y) / 0.5 * 0.6, _saw(x / 2 + 0.5 * (np.rint(y) % 2)) / 0.5 * 0.56
        )
    ),
    "grid": lambda x, y: 0.12 - np.minimum(_saw(x), _saw(y)),
    "waves": lambda x, y: _saw(y + 0.35 * np.sin(2 * np.pi * x / 1.5)) - 0.25,
    "scales": lambda x, y: (
        np.hypot(
            x - np.rint(x + 0.5 * (np.floor(y) % 2)) + 0.5 * (np.floor(y) % 2),
            y - np.floor(y),
        )
        - 0.6
    ),
}
