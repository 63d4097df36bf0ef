"""Where the things of a synthetic clip are: exact boxes of all that is drawn, actors and distractors alike.

A single frame does not tell the two apart, and what a thing does takes many frames to see: its class is its shape.
Boxes are (x1, y1, x2, y2) in pixels of the 64-pixel frame; pixel i lies between i and i + 1.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpbench.datasets.synthmotion.encode import FIRST_SEED, cache_folder
from vpbench.datasets.synthmotion.scene import CLASSES, SHAPES, SIZE, STRIDE, Floats, Sprite, arrange, coverage

#: a thing is annotated in the frames that show at least this share of it: of its area, as far as it is inside the
#: frame, not behind others, and opaque
SEEN = 1 / 3
#: no clip shows more things: two actors, two distractors
MOST = 4


@dataclass(frozen=True)
class Objects:
    """The n things of a clip in the order they are drawn: `labels [n]` in `SHAPES`, `boxes [T, n, 4]`, `seen [T, n]`.

    `boxes` end at the frame's edges, but not where other things cover them; `seen` is the share that shows.
    """

    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]
    seen: NDArray[np.float32]


def objects(seed: int, label: int, step: int = 1) -> Objects:
    """Return the things in every `step`-th frame of the clip of class `label` that belongs to `seed`."""
    shown = arrange(seed, label)
    sprites = [*shown.distractors, *shown.actors]
    seen = np.stack(_shares([_every(sprite, step) for sprite in sprites]), axis=1)
    boxes = np.stack([_boxes(_every(sprite, step)) for sprite in sprites], axis=1)
    return Objects(np.array([SHAPES.index(s.shape) for s in sprites]), boxes.clip(0, SIZE), seen)


def _every(sprite: Sprite, step: int) -> Sprite:
    paths = {name: getattr(sprite, name)[::step] for name in ("x", "y", "angle", "scale", "opacity")}
    return replace(sprite, **paths)


def _boxes(sprite: Sprite) -> NDArray[np.float32]:
    """Return the extent `[T, 4]` of the sprite's outline."""
    size, cos, sin = sprite.radius * sprite.scale, np.cos(sprite.angle), np.sin(sprite.angle)
    u, v = outline(sprite.shape).T
    x = sprite.x[:, None] + size[:, None] * (cos[:, None] * u - sin[:, None] * v)
    y = sprite.y[:, None] + size[:, None] * (sin[:, None] * u + cos[:, None] * v)
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1).astype(np.float32)


def _shares(sprites: list[Sprite]) -> list[NDArray[np.float32]]:
    """Return the share of each sprite that shows, `[T]`, from coverage by it and by those drawn later."""
    clear: Floats | float = 1.0
    found = []
    for sprite in reversed(sprites):
        covered = coverage(sprite)
        u, v = outline(sprite.shape).T
        area = abs(np.dot(u, np.roll(v, -1)) - np.dot(v, np.roll(u, -1))) / 2
        shows = (covered * clear).sum(axis=(1, 2)) / (area * (sprite.radius * sprite.scale) ** 2)
        found.append(shows.astype(np.float32))
        clear = clear * (1 - covered)
    return found[::-1]


@lru_cache
def outline(shape: str) -> Floats:
    """Return points `[n, 2]` (u, v) round the edge of a shape, in radii: where the scene's signed distance is 0."""
    turn = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    if shape in ("disc", "ellipse"):
        return np.stack([np.cos(turn), np.sin(turn) * (0.55 if shape == "ellipse" else 1)], axis=1)
    if shape == "star":
        return (0.72 + 0.28 * np.cos(5 * turn))[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if shape == "box":
        return 0.85 * np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    if shape == "triangle":
        corner = (0.55 + 0.5 * 0.6) / 0.87
        return np.array([(corner, 0.6), (-corner, 0.6), (0, -1.1)])
    arm = 0.38
    quarter = np.array([(1, -arm), (1, arm), (arm, arm)])
    return np.concatenate([quarter @ np.array([(c, s), (-s, c)]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))])


def training_objects(split: str, count: int, workers: int) -> tuple[Path, Path]:
    """Write the objects of generated clips (`encode.training_arrays`) in the cache folder unless they are there.

    Returns the files of boxes, float32 `[n, 16, MOST, 4]`, and labels, int64 `[n, 16, MOST]`, -1 where there is none.
    """
    boxes, labels = (cache_folder() / f"{split}-{count}-{part}.npy" for part in ("boxes", "shapes"))
    if not (boxes.exists() and labels.exists()):
        cache_folder().mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(workers) as pool:
            made = list(pool.map(_training_clip, ((split, number) for number in range(count)), chunksize=16))
        for path, column in zip((boxes, labels), zip(*made, strict=True), strict=True):
            temporary = path.with_suffix(".tmp.npy")
            np.save(temporary, np.stack(column))
            temporary.replace(path)
    return boxes, labels


def _training_clip(job: tuple[str, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    split, number = job
    found = objects(FIRST_SEED[split] + number, number % len(CLASSES), STRIDE)
    frames, things = found.seen.shape
    boxes, labels = np.zeros((frames, MOST, 4), np.float32), np.full((frames, MOST), -1, np.int64)
    boxes[:, :things] = found.boxes
    labels[:, :things] = np.where(found.seen >= SEEN, found.labels, -1)
    return boxes, labels
