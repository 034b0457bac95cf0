"""What the embedded base model is pretrained on: none of the suite's tasks.

About a thousand classes of four kinds: characters of scripts that no task uses,
fractals (iterated function systems, as in Kataoka et al., "Pre-training without
Natural Images", 2020), coloured noise textures, random blobs, and places in
photographs that no task uses. Each class is a pure function of its number.
"""

import functools

import numpy as np

from adarank_jax.data.embedded import canvas, glyphs, photographs


def num_classes() -> int:
    """Returns the number of pretraining classes, of all kinds."""
    return sum(count for _, count in _kinds())


def render(numbers: range, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Renders some of the endless pretraining images, which cycle through the classes.

    Args:
        numbers: of the images; image `i` is a pure function of `(seed, i)`.
        seed: of the whole set.

    Returns:
        Images `(size, 32, 32, 3)` uint8 and labels `(size,)` int32.
    """
    kinds = [(draw, k) for draw, count in _kinds() for k in range(count)]
    images = np.empty((len(numbers), canvas.SIZE, canvas.SIZE, 3), np.uint8)
    labels = (np.asarray(numbers) % len(kinds)).astype(np.int32)
    for image, label, i in zip(images, labels, numbers, strict=True):
        rng = np.random.default_rng([seed, i])
        draw, number = kinds[label]
        image[:] = canvas.finish(draw(rng, number), rng, rng.uniform(0.0, 0.04))
    return images, labels


@functools.cache
def _kinds():
    """Lists the kinds of classes: how to draw one, and how many there are."""
    return (
        (_glyph, len(_characters())),
        (_fractal, 250),
        (_texture, 150),
        (_blob, 150),
        (_place, len(_PHOTOGRAPHS) * _PLACES),
    )


def _glyph(rng, number):
    face, character = _characters()[number]
    mask = glyphs.glyph_mask(rng, face, character, 0.4, (0.5, 1.0))
    ink, _ = canvas.contrasting_colours(rng)
    return canvas.blend(_ground(rng, ink), canvas.gradient(rng, ink, 0.15), mask)


@functools.cache
def _characters():
    """Lists the characters: unused scripts, without look-alikes of the tasks'."""
    sans = glyphs.faces("DejaVuSans")[0]
    taken = np.stack([_outline(sans, c) for c in _TASK_CHARACTERS])
    characters = []
    for point in (p for low, high in _SCRIPTS for p in range(low, high)):
        if glyphs.is_drawn(sans, chr(point)):
            own = _outline(sans, chr(point))
            turns = np.stack([np.rot90(own, k) for k in range(4)])
            shared = np.minimum(taken[:, None], turns).sum((-2, -1))
            either = np.maximum(taken[:, None], turns).sum((-2, -1))
            if (shared / either).max() < _LARGEST_OVERLAP:
                characters.append((sans, chr(point)))
    return characters


def _outline(face, character):
    """Returns a character's picture, blurred to 24 x 24, to compare shapes with."""
    return np.asarray(glyphs.picture(face, character).reduce(4), np.float32) / 255.0


def _fractal(rng, number):
    maps, weights = _iterated_functions(number)
    maps = maps + rng.normal(0.0, 0.015, maps.shape)
    steps, walkers = 48, 200
    choices = rng.choice(len(maps), size=(steps, walkers), p=weights)
    points, trail = np.zeros((walkers, 2)), []
    for t in range(steps):
        m = maps[choices[t]]
        points = np.einsum("wij,wj->wi", m[:, :, :2], points) + m[:, :, 2]
        if t >= 8:
            trail.append(points)
    cloud = np.concatenate(trail)
    low, high = np.percentile(cloud, 2, axis=0), np.percentile(cloud, 98, axis=0)
    unit = (cloud - (low + high) / 2) / max(*(high - low), 1e-6)
    angle, size = rng.uniform(-0.5, 0.5), rng.uniform(0.6, 1.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pixels = unit @ turn.T * size * canvas.SIZE + canvas.SIZE / 2
    pixels += rng.uniform(-3, 3, 2)
    edges = np.arange(canvas.SIZE + 1)
    hits, _, _ = np.histogram2d(pixels[:, 0], pixels[:, 1], bins=(edges, edges))
    mask = np.minimum(hits / 3.0, 1.0).astype(np.float32)
    ink, _ = canvas.contrasting_colours(rng)
    return canvas.blend(_ground(rng, ink), canvas.gradient(rng, ink, 0.3), mask)


@functools.cache
def _iterated_functions(number):
    """Draws a contractive system of affine maps for one fractal class."""
    rng = np.random.default_rng([101, number])
    maps = []
    for _ in range(int(rng.integers(2, 5))):
        left, right = rng.uniform(0, 2 * np.pi, 2)
        s = np.diag(rng.uniform(0.25, 0.85, 2) * rng.choice([-1, 1], 2))
        rotations = [
            np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
            for a in (left, right)
        ]
        linear = rotations[0] @ s @ rotations[1]
        maps.append(np.concatenate([linear, rng.uniform(-1, 1, (2, 1))], axis=1))
    areas = np.array([abs(np.linalg.det(m[:, :2])) + 0.05 for m in maps])
    return np.array(maps), areas / areas.sum()


def _texture(rng, number):
    """Draws noise with the class's spectrum, mapped to the class's pair of colours."""
    own = np.random.default_rng([102, number])
    bands = [
        (own.uniform(0.03, 0.4), own.uniform(0, np.pi), own.uniform(0.02, 0.1))
        for _ in range(3)
    ]
    sharpness, threshold = own.uniform(1.0, 8.0), own.uniform(-0.5, 0.5)
    first, second = own.random((2, 3)), own.random((2, 3))
    turn = rng.uniform(-0.2, 0.2)
    fy, fx = np.meshgrid(
        np.fft.fftfreq(canvas.SIZE), np.fft.rfftfreq(canvas.SIZE), indexing="ij"
    )
    envelope = np.zeros_like(fy)
    for frequency, angle, width in bands:
        y, x = frequency * np.sin(angle + turn), frequency * np.cos(angle + turn)
        for sign in (-1, 1):
            distance = (fy - sign * y) ** 2 + (fx - sign * x) ** 2
            envelope += np.exp(-distance / (2 * width**2))
    noise = np.fft.rfft2(rng.normal(size=(canvas.SIZE, canvas.SIZE)))
    field = np.fft.irfft2(noise * envelope, s=(canvas.SIZE, canvas.SIZE))
    field = field / (field.std() + 1e-9)
    mask = 1 / (1 + np.exp(-sharpness * (field - threshold)))
    shade = rng.normal(0.0, 0.08, (2, 3))
    colours = np.clip(np.stack([first[0], second[0]]) + shade, 0, 1).astype(np.float32)
    return canvas.blend(
        canvas.fill(colours[0]), canvas.fill(colours[1]), mask.astype(np.float32)
    )


def _blob(rng, number):
    """Draws the class's closed curve, given by its Fourier descriptors."""
    own = np.random.default_rng([103, number])
    orders = np.arange(2, 9)
    amplitude = own.normal(size=7) / orders**0.9 * 0.75
    phase = own.uniform(0, 2 * np.pi, 7)
    hollow = own.random() < 0.4
    angle, size = rng.uniform(-0.6, 0.6), rng.uniform(0.3, 0.6)
    centre = rng.uniform(-0.35, 0.35, 2)
    squeeze = np.exp(rng.uniform(-0.2, 0.2))
    x, y = (canvas.X - centre[0]) * squeeze, (canvas.Y - centre[1]) / squeeze
    theta = np.arctan2(y, x) + angle
    waves = np.cos(orders * theta[..., None] + phase) @ amplitude
    edge = size * np.maximum(0.25, 1.0 + waves)
    distance = edge - np.hypot(x, y)
    mask = 1 / (1 + np.exp(-np.clip(distance * 40, -30, 30)))
    if hollow:
        mask *= 1 / (1 + np.exp(np.clip((distance - 0.14) * 40, -30, 30)))
    ink, _ = canvas.contrasting_colours(rng)
    ground = _ground(rng, ink)
    above = canvas.gradient(rng, ink, 0.2)
    return canvas.blend(ground, above, mask.astype(np.float32))


def _place(rng, number):
    """Cuts a jittered square around one place in a photograph."""
    photo, place = divmod(number, _PLACES)
    image = photographs.photograph(_PHOTOGRAPHS[photo])
    own = np.random.default_rng([104, number])
    side = int(0.3 * min(image.shape[:2]))
    room = np.array(image.shape[:2]) - int(1.35 * side)
    corner = (own.random(2) * room).astype(int)
    window = image[corner[0] : corner[0] + int(1.35 * side)]
    window = window[:, corner[1] : corner[1] + int(1.35 * side)]
    crop = photographs.crop(rng, window, (int(0.75 * side), side))
    tint = 1.0 + rng.normal(0.0, 0.1, 3)
    return (crop - 0.5) * rng.uniform(0.6, 1.3) * tint + 0.5 + rng.uniform(-0.15, 0.15)


def _ground(rng, ink):
    """Draws a background that differs from the ink in brightness."""
    value = (0.6, 1.0) if ink.max() < 0.5 else (0.0, 0.4)
    paper = canvas.colour(rng, value)
    choice = rng.random()
    if choice < 0.3:
        return canvas.gradient(rng, paper, 0.2)
    if choice < 0.7:
        field = canvas.clouds(rng, rng.uniform(0.5, 2.5))[..., None] - 0.5
        return paper + rng.uniform(0.1, 0.6) * field
    photo = _PHOTOGRAPHS[int(rng.integers(len(_PHOTOGRAPHS)))]
    crop = photographs.crop(rng, photographs.photograph(photo), (60, 200))
    return paper + 0.4 * (crop - crop.mean())


_SCRIPTS = (
    (0x0531, 0x0557),  # Armenian capitals
    (0x0561, 0x0587),  # Armenian small letters
    (0x0621, 0x064A),  # Arabic
    (0x07C0, 0x07EB),  # N'Ko
    (0x0E81, 0x0EC5),  # Lao
    (0x10D0, 0x10F1),  # Georgian
    (0x1401, 0x1676),  # Canadian syllabics
    (0x2D30, 0x2D66),  # Tifinagh
)
_TASK_CHARACTERS = (
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZαβγδεζηθικλμνξοπρστυφχψω"
    "∑∏∫√∞≈≠≤≥±×÷∂∇∈∀∃∅∩∪⊂⊃∧∨↑→♥★"
)
_LARGEST_OVERLAP = 0.6
_PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "china.jpg",
    "flower.jpg",
    "grace_hopper.jpg",
)
_PLACES = 12
