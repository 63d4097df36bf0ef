"""Where the tokens of a dense clip lie on the grid of the pixels that a method leaves of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.api import ClipBatch, Grid
from vpbench.errors import UsageError
from vpbench.measure.watch.followed import Moves


@dataclass(frozen=True)
class Home:
    """The grid that is left, the place there of each of the dense clip's N tokens (`place [N]`, -1: none), and the
    first of the dense tokens at each place of the grid (`first`).
    """

    grid: Grid
    place: Tensor
    first: Tensor

    def named(self, place: Tensor) -> Tensor:
        """Name the tokens at some places by the first dense token of each; -1 stays -1."""
        return torch.where(place >= 0, self.first[place.clamp(min=0)], -1)


def resampled(asked: Callable[[ClipBatch], ClipBatch], batch: ClipBatch, dense: Grid) -> tuple[ClipBatch, Home]:
    """Ask a method for its pixels, and find what they were made of; raises UsageError where that cannot be told.

    Fewer frames are those that were picked; a dense token goes with the first of its frames that was. Smaller frames
    show the whole picture: a dense token goes with the one in whose area its middle lies.
    """
    pixels = batch.pixels
    frame = torch.arange(pixels.shape[1], device=pixels.device)
    with Moves(pixels, frame[None, :, None, None, None].expand_as(pixels).contiguous()) as moves:
        result = asked(batch)
    found = moves.of(result.pixels)
    (count, height, width), sides = result.pixels.shape[1:4], pixels.shape[2:4]
    if found is not None and (height, width) == tuple(sides):
        frame = found[0, :, 0, 0, 0]
    elif found is not None or count != pixels.shape[1]:
        raise UsageError("it makes frames of its own, of which nobody knows where they lie in the clip")
    length = pixels.shape[1] // dense.slots
    grid = Grid(count // length, height * dense.rows // sides[0], width * dense.cols // sides[1])
    return result, _home(dense, grid, frame, length)


def _home(dense: Grid, grid: Grid, frame: Tensor, length: int) -> Home:
    """Place the dense tokens; frame: the number of each frame that is left, `length` of them make a slot."""
    numbers = torch.arange(len(frame), device=frame.device)
    slot = frame.new_full((dense.slots,), -1)
    # backwards, so that the first frame of each slot is written last
    slot[(frame // length).flip(0)] = (numbers // length).flip(0)
    row, col = (
        (2 * torch.arange(old, device=frame.device) + 1) * new // (2 * old)
        for old, new in ((dense.rows, grid.rows), (dense.cols, grid.cols))
    )
    place = (slot[:, None, None] * grid.rows + row[:, None]) * grid.cols + col
    place = torch.where(slot[:, None, None] >= 0, place, -1).flatten()
    first = place.new_full((grid.tokens,), -1)
    there = torch.arange(len(place), device=place.device)[place >= 0].flip(0)
    first[place[there]] = there
    return Home(grid, place, first)
