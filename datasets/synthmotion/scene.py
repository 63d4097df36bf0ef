"""Draw clips whose class is what the actors do; appearance, place, size and background say nothing about it.

Lengths are pixels of the 64-pixel frame, angles radians, times frames. A clip depends on (seed, label) alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

SIZE = 64
FRAMES = 32
STRIDE = 2
TUBELET = 2
PATCH = 8
_STREAM = 20240917  # keeps these random streams apart from any other use of the same seeds

MOVES = tuple(f"move_{d}" for d in ("e", "ne", "n", "nw", "w", "sw", "s", "se"))
CLASSES: tuple[str, ...] = (
    *MOVES, "spin", "grow", "shrink", "hop", "sway", "appear", "vanish", "collide", "pass", "orbit"
)  # fmt: skip
PAIRS = ("collide", "pass", "orbit")
SHAPES = ("disc", "box", "triangle", "cross", "star", "ellipse")

#: the dense training target per token: actor coverage; coverage times velocity x, y (px per frame, halved), rotation
#: rate (x3), log-scale rate (x10) and opacity rate (x3); coverage by distractors
TARGETS = 7
_GAIN = (0.5, 0.5, 3.0, 10.0, 3.0)


@dataclass
class Sprite:
    """One drawn thing. Arrays are `[FRAMES]`; `x`, `y` is its centre, `scale` multiplies `radius`."""

    shape: str
    radius: float
    x: Floats
    y: Floats
    angle: Floats
    scale: Floats
    opacity: Floats
    colours: Floats
    texture: int
    phase: float


@dataclass(frozen=True)
class Scene:
    """A rendered clip: `frames` uint8 `[32, 64, 64, 3]`, `targets` float16 `[8, 8, 8, 7]` (slot, row, column)."""

    label: int
    frames: NDArray[np.uint8]
    targets: NDArray[np.float16]


@dataclass(frozen=True)
class Arrangement:
    """What a clip shows before it is drawn: `background` `[T, 64, 64, 3]` in 0..1, and actors over distractors.

    `rng` is where the clip's random stream has come to.
    """

    background: Floats
    distractors: list[Sprite]
    actors: list[Sprite]
    rng: np.random.Generator


def arrange(seed: int, label: int) -> Arrangement:
    """Decide what the clip of class `label` that belongs to `seed` shows."""
    rng = np.random.default_rng([_STREAM, seed, label])
    offsets = _camera(rng)
    background = _background(rng, offsets)
    mean = background.mean(axis=(0, 1, 2))
    actors = _actors(rng, CLASSES[label], mean)
    distractors = [_distractor(rng, mean, offsets) for _ in range(rng.integers(0, 3))]
    return Arrangement(background, distractors, actors, rng)


def render(seed: int, label: int) -> Scene:
    """Draw the clip of class `label` that belongs to `seed`."""
    shown = arrange(seed, label)
    picture = shown.background.copy()
    masks = []
    for sprite in (*shown.distractors, *shown.actors):
        alpha, colour = _draw(sprite)
        picture += alpha[..., None] * (colour - picture)
        masks.append(alpha)
    frames = _sensor(shown.rng, picture)
    count = len(shown.distractors)
    return Scene(label, frames, _targets(shown.actors, masks[count:], masks[:count]))


# --- what the actors do -----------------------------------------------------------------------------------------------


def _event(rng: np.random.Generator) -> Floats:
    """Progress 0 -> 1 inside a window of 35-65 % of the clip at a random place, constant outside it."""
    length = rng.uniform(0.35, 0.65) * FRAMES
    start = rng.uniform(0, FRAMES - 1 - length)
    return np.clip((np.arange(FRAMES) - start) / length, 0, 1).astype(np.float32)


def _actors(rng: np.random.Generator, name: str, background: Floats) -> list[Sprite]:
    if name in PAIRS:
        return _pair(rng, name, background)
    event = _event(rng)
    shape = SHAPES[rng.integers(1 if name == "spin" else 0, len(SHAPES))]
    radius = rng.uniform(4.5, 8.5)
    scale: Floats = np.ones(FRAMES, np.float32)
    angle, opacity = np.full(FRAMES, rng.uniform(0, 2 * np.pi), np.float32), np.ones(FRAMES, np.float32)
    dx: Floats = np.zeros(FRAMES, np.float32)
    dy: Floats = np.zeros(FRAMES, np.float32)
    if name in MOVES:
        way, length = MOVES.index(name) * np.pi / 4 + rng.uniform(-0.2, 0.2), rng.uniform(14, 28)
        dx, dy = event * length * np.cos(way), -event * length * np.sin(way)
    elif name == "spin":
        angle = angle + event * rng.uniform(1.6, 4.2) * rng.choice((-1, 1))
    elif name in ("grow", "shrink"):
        radius, factor = rng.uniform(3.5, 6), rng.uniform(1.7, 2.6)
        scale = factor ** (event if name == "grow" else 1 - event)
    elif name in ("hop", "sway"):
        swing = rng.uniform(4, 9) * np.sin(2 * np.pi * rng.choice((1, 1.5, 2)) * event) * rng.choice((-1, 1))
        dx, dy = (swing, dy) if name == "sway" else (dx, swing)
    else:
        opacity = _fade(rng) if name == "appear" else 1 - _fade(rng)
    margin = radius * scale.max() + 1
    x, y = _place(rng, dx, margin), _place(rng, dy, margin)
    return [_sprite(rng, shape, radius, x, y, background, angle, scale, opacity)]


def _fade(rng: np.random.Generator) -> Floats:
    length, centre = rng.uniform(0.02, 0.3) * FRAMES, rng.uniform(0.25, 0.75) * FRAMES
    return np.clip((np.arange(FRAMES) - centre) / length + 0.5, 0, 1).astype(np.float32)


def _place(rng: np.random.Generator, path: Floats, margin: float) -> Floats:
    """Shift a path so that it stays `margin` inside the frame."""
    low, high = margin - path.min(), SIZE - margin - path.max()
    start = rng.uniform(low, high) if low < high else (low + high) / 2
    return (path + start).astype(np.float32)


def _pair(rng: np.random.Generator, name: str, background: Floats) -> list[Sprite]:
    event, radii = _event(rng), rng.uniform(4, 6.5, size=2)
    way, touch = rng.uniform(0, 2 * np.pi), float(radii.sum())
    if name == "orbit":
        turn = way + event * rng.uniform(2.6, 5.2) * rng.choice((-1, 1))
        distance = touch + rng.uniform(2, 6)
        first = np.zeros((2, FRAMES))
        second = distance * np.stack([np.cos(turn), np.sin(turn)])
    else:
        along, across = np.array([np.cos(way), np.sin(way)]), np.array([-np.sin(way), np.cos(way)])
        far = touch + rng.uniform(10, 18)
        if name == "collide":
            gap, lateral = touch + (far - touch) * np.abs(1 - 2 * event), 0.0
        else:
            gap, lateral = far * (1 - 2 * event), rng.uniform(-2, 2)
        second = along[:, None] * gap / 2 + across[:, None] * lateral / 2
        first = -second
    both, margin = np.concatenate([first, second], axis=1), float(radii.max()) + 1
    shift = [_place(rng, both[axis].astype(np.float32), margin)[0] - both[axis][0] for axis in (0, 1)]
    made = []
    for path, radius in zip((first, second), radii, strict=True):
        shape, still = SHAPES[rng.integers(len(SHAPES))], np.ones(FRAMES, np.float32)
        angle = np.full(FRAMES, rng.uniform(0, 2 * np.pi), np.float32)
        x, y = ((path[axis] + shift[axis]).astype(np.float32) for axis in (0, 1))
        made.append(_sprite(rng, shape, radius, x, y, background, angle, still, still))
    return made


def _distractor(rng: np.random.Generator, background: Floats, offsets: Floats) -> Sprite:
    """Draw something that looks like an actor but belongs to the background, with which it moves."""
    ones = np.ones(FRAMES, np.float32)
    x, y = (rng.uniform(8, SIZE - 8) - (offsets[:, axis] - offsets[0, axis]) for axis in (0, 1))
    angle = np.full(FRAMES, rng.uniform(0, 2 * np.pi), np.float32)
    return _sprite(rng, SHAPES[rng.integers(len(SHAPES))], rng.uniform(4, 7.5), x, y, background, angle, ones, ones)


def _sprite(
    rng: np.random.Generator, shape: str, radius: float, x: Floats, y: Floats, background: Floats,
    angle: Floats, scale: Floats, opacity: Floats,
) -> Sprite:  # fmt: skip
    colours = rng.uniform(0, 1, (2, 3)).astype(np.float32)
    for _ in range(8):
        if np.abs(colours[0] - background).max() > 0.35:
            break
        colours = rng.uniform(0, 1, (2, 3)).astype(np.float32)
    texture, phase = int(rng.integers(4)), float(rng.uniform(0, 1))
    return Sprite(shape, radius, x, y, angle, scale, opacity, colours, texture, phase)


# --- drawing ----------------------------------------------------------------------------------------------------------

_ROWS, _COLS = (np.mgrid[0:SIZE, 0:SIZE] + 0.5).astype(np.float32)


def coverage(sprite: Sprite) -> Floats:
    """Return how much of each pixel a sprite covers, `[T, 64, 64]`: antialiased edges, times opacity."""
    return _coverage(sprite, *_own_frame(sprite))


def _draw(sprite: Sprite) -> tuple[Floats, Floats]:
    """Return coverage `[T, 64, 64]` and colour `[T, 64, 64, 3]`."""
    u, v = _own_frame(sprite)
    mix = _texture(sprite, u, v)[..., None]
    colour = sprite.colours[0] + mix * (sprite.colours[1] - sprite.colours[0])
    return _coverage(sprite, u, v), colour.astype(np.float32)


def _own_frame(sprite: Sprite) -> tuple[Floats, Floats]:
    """Return where each pixel is, `[T, 64, 64]` twice, from the sprite's centre along its axes, in its radii."""
    size = (sprite.radius * sprite.scale)[:, None, None]
    dx, dy = _COLS - sprite.x[:, None, None], _ROWS - sprite.y[:, None, None]
    cos, sin = np.cos(sprite.angle)[:, None, None], np.sin(sprite.angle)[:, None, None]
    return (cos * dx + sin * dy) / size, (cos * dy - sin * dx) / size


def _coverage(sprite: Sprite, u: Floats, v: Floats) -> Floats:
    size = (sprite.radius * sprite.scale)[:, None, None]
    alpha = np.clip(0.5 - _distance(sprite.shape, u, v) * size, 0, 1) * sprite.opacity[:, None, None]
    return np.asarray(alpha.astype(np.float32))


def _distance(shape: str, u: Floats, v: Floats) -> Floats:
    """Signed distance to the edge, in radii, negative inside."""
    if shape == "disc":
        return np.hypot(u, v) - 1
    if shape == "box":
        return np.maximum(np.abs(u), np.abs(v)) - 0.85
    if shape == "ellipse":
        return (np.hypot(u, v / 0.55) - 1) * 0.55
    if shape == "triangle":
        return np.maximum(v - 0.6, np.abs(u) * 0.87 - v * 0.5 - 0.55)
    if shape == "cross":
        return np.minimum(np.maximum(np.abs(u) - 1, np.abs(v) - 0.38), np.maximum(np.abs(v) - 1, np.abs(u) - 0.38))
    turn = np.arctan2(v, u)
    return np.hypot(u, v) - (0.72 + 0.28 * np.cos(5 * turn))


def _texture(sprite: Sprite, u: Floats, v: Floats) -> Floats:
    """Mixing weight of the second colour: stripes, checker, gradient or rings."""
    if sprite.texture == 0:
        return (np.sin(5 * u + 6.28 * sprite.phase) > 0.2).astype(np.float32)
    if sprite.texture == 1:
        return (np.sin(4 * u) * np.sin(4 * v) > 0).astype(np.float32)
    if sprite.texture == 2:
        return np.clip(0.5 + 0.6 * u, 0, 1)
    return (np.sin(7 * np.hypot(u, v) + 6.28 * sprite.phase) > 0.3).astype(np.float32)


def _camera(rng: np.random.Generator) -> Floats:
    """Return the view's offset `[T, 2]` (x, y) on the canvas: half fixed, 30 % hand-held jitter, 20 % slow pan."""
    kind, t = rng.uniform(), np.arange(FRAMES)
    offset = np.full((FRAMES, 2), SIZE / 2) + rng.uniform(-10, 10, 2)
    if kind < 0.5:
        return offset.astype(np.float32)
    if kind < 0.8:
        for axis in (0, 1):
            for _ in range(3):
                offset[:, axis] += rng.uniform(0.2, 0.5) * np.sin(rng.uniform(0.3, 1.6) * t + rng.uniform(0, 6.28))
        return offset.astype(np.float32)
    way, length = rng.uniform(0, 2 * np.pi), rng.uniform(3, 9)
    pan = np.linspace(0, length, FRAMES)[:, None] * np.array([np.cos(way), np.sin(way)])
    return (offset + pan).astype(np.float32)


def _background(rng: np.random.Generator, offsets: Floats) -> Floats:
    """Return `[T, 64, 64, 3]`: coloured 1/f noise with soft bands, seen through the camera, perhaps with a ripple."""
    side = 2 * SIZE
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    fall = np.maximum(np.hypot(fy, fx), 1 / side) ** -rng.uniform(0.9, 1.6)
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((3, side, side))) * fall, s=(side, side))
    noise = noise / noise.std(axis=(1, 2), keepdims=True) * rng.uniform(0.06, 0.16)
    canvas = noise.transpose(1, 2, 0) + rng.uniform(0.25, 0.75, 3)
    rows, cols = np.mgrid[0:side, 0:side]
    for _ in range(rng.integers(1, 5)):
        way, width = rng.uniform(0, np.pi), rng.uniform(6, 20)
        across = (cols - side / 2) * np.cos(way) + (rows - side / 2) * np.sin(way) - rng.uniform(-50, 50)
        canvas = canvas + np.exp(-((across / width) ** 2))[..., None] * rng.uniform(-0.12, 0.12, 3)
    picture = np.stack([_view(canvas.astype(np.float32), x, y) for x, y in offsets])
    return _ripple(rng, picture) if rng.uniform() < 0.35 else picture


def _view(canvas: Floats, x: float, y: float) -> Floats:
    """Cut a frame out of the canvas at a fractional place."""
    left, top = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - left, y - top
    part = canvas[top : top + SIZE + 1, left : left + SIZE + 1]
    lines = part[:-1] * (1 - fy) + part[1:] * fy
    return lines[:, :-1] * (1 - fx) + lines[:, 1:] * fx


def _ripple(rng: np.random.Generator, picture: Floats) -> Floats:
    """Add a strip of travelling waves: motion that means nothing."""
    width, length = int(rng.integers(SIZE // 8, SIZE // 4 + 1)), rng.uniform(5, 12)
    at, speed = int(rng.integers(0, SIZE - width + 1)), rng.uniform(0.3, 0.9) * rng.choice((-1, 1))
    t, along = np.arange(FRAMES)[:, None], np.arange(SIZE)[None]
    wave = (np.sin(2 * np.pi * along / length + speed * t) * rng.uniform(0.05, 0.12)).astype(np.float32)
    if rng.uniform() < 0.5:
        picture[:, at : at + width] += wave[:, None, :, None]
    else:
        picture[:, :, at : at + width] += wave[:, :, None, None]
    return picture


def _sensor(rng: np.random.Generator, picture: Floats) -> NDArray[np.uint8]:
    """Apply brightness drift (30 % of clips) and sensor noise, and quantise."""
    if rng.uniform() < 0.3:
        drift = 1 + np.linspace(0, rng.uniform(-0.1, 0.1), FRAMES)
        picture = picture * drift[:, None, None, None].astype(np.float32)
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.02))
    return (np.clip(picture + noise, 0, 1) * 255 + 0.5).astype(np.uint8)


# --- the dense training target ----------------------------------------------------------------------------------------


def _targets(actors: list[Sprite], actor_masks: list[Floats], other_masks: list[Floats]) -> NDArray[np.float16]:
    side = SIZE // PATCH
    slots = FRAMES // STRIDE // TUBELET
    found = np.zeros((slots, side, side, TARGETS), np.float32)
    for sprite, mask in zip(actors, actor_masks, strict=True):
        coverage = _pool(mask)
        rates = (sprite.x, sprite.y, sprite.angle, np.log(sprite.scale), sprite.opacity)
        found[..., 0] += coverage
        for channel, (values, gain) in enumerate(zip(rates, _GAIN, strict=True), start=1):
            # rate over the span of frames that one tubelet covers, reaching into the next tubelet
            ends = np.append(values[:: STRIDE * TUBELET], values[-1])
            found[..., channel] += coverage * (np.diff(ends) / (STRIDE * TUBELET) * gain)[:, None, None]
    for mask in other_masks:
        found[..., -1] += _pool(mask)
    return found.astype(np.float16)


def _pool(mask: Floats) -> Floats:
    """Mean coverage of each tubelet of the frames that the model sees."""
    used = mask[::STRIDE]
    side = SIZE // PATCH
    cut = used.reshape(len(used) // TUBELET, TUBELET, side, PATCH, side, PATCH)
    return np.asarray(cut.mean(axis=(1, 3, 5)))
