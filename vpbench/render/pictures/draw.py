"""Draw what became of a clip's tokens onto its frames. Knows neither torch nor methods."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vpbench.rows.fates import DROPPED, PIXELS, Fate

Pixels = NDArray[np.uint8]
#: what dropped tokens are mixed with, and how much of them is left, where they are dimmed
_PALE, _LEFT = 235.0, 0.2
#: the golden ratio's turn of the colour circle: colours of any run of ids differ
_TURN = 0.6180339887


@dataclass(frozen=True)
class Style:
    """How tokens that are no longer there are drawn.

    `dropped`: `dim`, or solid `white`. `merged`: a token that stands for several has their `mean` colour, with a rim
    in a colour of its own, or is filled with that colour of its own (`palette`).
    """

    dropped: Literal["dim", "white"] = "dim"
    merged: Literal["mean", "palette"] = "mean"


PLAIN = Style()


def sheet(
    frames: Pixels,
    fate: Fate,
    *,
    style: Style = PLAIN,
    stage: int = -1,
    columns: int = 8,
    scale: int = 1,
    original: bool = True,
) -> Pixels:
    """Return a picture `[h, w, 3]`: the first frame of each slot, and below it what is left of it after a stage.

    frames `[T, H, W, 3]`: T is a multiple of the slots (one frame each is enough), H and W of rows and columns. More
    than `columns` slots go on below; `scale` enlarges frames, not rims; without `original` there are tokens alone.
    Raises ValueError for frames that the tokens do not tile.
    """
    large = magnified(frames, scale)
    rows = [firsts(tokens(large, fate, stage=stage, style=style), fate)]
    if original:
        rows.insert(0, firsts(large, fate))
    return tiled(rows, columns)


def firsts(frames: Pixels, fate: Fate) -> Pixels:
    """Return the first frame of each slot, `[slots, H, W, 3]`."""
    return frames[:: len(frames) // fate.grid[0]]


def tokens(frames: Pixels, fate: Fate, *, stage: int = -1, style: Style = PLAIN) -> Pixels:
    """Return the frames `[T, H, W, 3]` with their tokens as they are after a stage; kept ones are left as they are.

    Frames that a method made smaller are as coarse as that, and those that it left out are drawn as dropped.
    Raises ValueError for frames that the tokens do not tile.
    """
    token, sizes, shared = fate.stages[stage].token, fate.sizes(stage), np.ones(fate.tokens, np.int32)
    cells, unseen = _cells(frames, fate.grid), np.zeros(fate.tokens, bool)
    if fate.stages[0].name == PIXELS:
        # tokens that share smaller or fewer frames were not merged: the network never saw more
        cells, shared = _cells(_coarse(frames, fate), fate.grid), fate.sizes(0)
        unseen = _left_out(fate).repeat(fate.grid[1] * fate.grid[2])
    dropped, merged = (token == DROPPED) | unseen, (sizes > shared) & ~unseen
    if dropped.any():
        gone = cells[dropped]
        cells[dropped] = 255 if style.dropped == "white" else _LEFT * gone + (1 - _LEFT) * _PALE
    if merged.any():
        colours = _means(cells, token, sizes) if style.merged == "mean" else palette(fate.tokens)
        cells[merged] = colours[token[merged]][:, None, None, None]
    drawn = _joined(cells, fate.grid)
    if merged.any() and style.merged == "mean":
        _rim(drawn, np.where(merged, token, DROPPED).reshape(fate.grid), palette(fate.tokens))
    return drawn


def _left_out(fate: Fate) -> NDArray[np.bool_]:
    """Say of which slots a method took no frame, `[slots]`: tokens of others stand for all of theirs."""
    per_slot = fate.grid[1] * fate.grid[2]
    owner = fate.stages[0].token.reshape(fate.grid[0], per_slot) // per_slot
    return (owner != np.arange(fate.grid[0])[:, None]).all(axis=1)


def _coarse(frames: Pixels, fate: Fate) -> Pixels:
    """Return frames as fine as a method sees them: with the pixels of fewer rows and columns of tokens."""
    from PIL import Image

    slots, rows, columns = fate.grid
    height, width = frames.shape[1:3]
    found = []
    for slot, own in enumerate(np.split(frames, slots)):
        token = fate.stages[0].token.reshape(slots, -1)[slot]
        down, across = len(np.unique(token // columns)), len(np.unique(token % columns))
        small = (max(1, width * across // columns), max(1, height * down // rows))
        for frame in own:
            image = Image.fromarray(frame)
            if small != (width, height):
                image = image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.NEAREST)
            found.append(np.asarray(image))
    return np.stack(found)


def palette(count: int) -> Pixels:
    """Return a colour for each of `count` ids, `[count, 3]`: neighbours differ, and an id always has the same."""
    looks = ((0.85, 0.9), (0.55, 1.0), (0.9, 0.65))
    colours = [colorsys.hsv_to_rgb(number * _TURN % 1, *looks[number % len(looks)]) for number in range(count)]
    return (255 * np.array(colours).reshape(-1, 3)).astype(np.uint8)


def magnified(frames: Pixels, scale: int) -> Pixels:
    """Enlarge frames `[T, H, W, 3]` by a whole factor: pixels are repeated."""
    return frames.repeat(scale, 1).repeat(scale, 2)


def tiled(rows: Sequence[Pixels], columns: int, gap: int = 6) -> Pixels:
    """Put rows `[n, H, W, 3]` under each other, `columns` pictures wide; what is longer goes on in a band below.

    The last band is filled up with white. `gap`: white pixels between bands, where there are several.
    """
    count, height, width, _ = rows[0].shape
    across = min(columns, count)
    bands = []
    for start in range(0, count, across):
        for row in rows:
            part = row[start : start + across]
            blank = np.full((across - len(part), height, width, 3), 255, np.uint8)
            bands.append(np.concatenate([*part, *blank], axis=1))
        if start + across < count:
            bands.append(np.full((gap, bands[-1].shape[1], 3), 255, np.uint8))
    return np.concatenate(bands)


def _cells(frames: Pixels, grid: tuple[int, int, int]) -> Pixels:
    """Cut frames into the tokens' pixels, `[N, frames, height, width, 3]`: a copy."""
    slots, rows, columns = grid
    count, height, width, _ = frames.shape
    if count % slots or height % rows or width % columns or not count:
        raise ValueError(f"{count} frames of {width}x{height} pixels are not tiled by {slots}x{rows}x{columns} tokens")
    cut = frames.reshape(slots, count // slots, rows, height // rows, columns, width // columns, 3)
    return np.ascontiguousarray(cut.transpose(0, 2, 4, 1, 3, 5, 6)).reshape(-1, *cut.shape[1::2][:3], 3)


def _joined(cells: Pixels, grid: tuple[int, int, int]) -> Pixels:
    """Undo `_cells`."""
    slots, rows, columns = grid
    _, frames, height, width, _ = cells.shape
    cut = cells.reshape(slots, rows, columns, frames, height, width, 3).transpose(0, 3, 1, 4, 2, 5, 6)
    return np.ascontiguousarray(cut).reshape(slots * frames, rows * height, columns * width, 3)


def _means(cells: Pixels, token: NDArray[np.int32], sizes: NDArray[np.int32]) -> Pixels:
    """Return the mean colour of all pixels that each id stands for, `[N, 3]`; black where it stands for none."""
    colour = cells.mean(axis=(1, 2, 3))
    there = token != DROPPED
    total = np.zeros_like(colour)
    np.add.at(total, token[there], colour[there])
    shared = np.maximum(np.bincount(token[there], minlength=len(token)), 1)
    return (total / shared[:, None]).round().astype(np.uint8)


def _rim(drawn: Pixels, groups: NDArray[np.int32], colours: Pixels) -> None:
    """Draw the outermost pixels of each connected area of a group `[slots, rows, columns]` in the group's colour."""
    count, height, width, _ = drawn.shape
    slots, rows, columns = groups.shape
    label = groups.repeat(count // slots, 0).repeat(height // rows, 1).repeat(width // columns, 2)
    around = np.pad(label, ((0, 0), (1, 1), (1, 1)), constant_values=DROPPED - 1)
    sides = (around[:, :-2, 1:-1], around[:, 2:, 1:-1], around[:, 1:-1, :-2], around[:, 1:-1, 2:])
    edge = np.logical_or.reduce([side != label for side in sides]) & (label != DROPPED)
    drawn[edge] = colours[label[edge]]
