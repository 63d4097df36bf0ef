"""How much clips move, from their pixels alone: what analyses sort videos by."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vpbench.api import Clip, Grid, temporal_difference

#: a tubelet that differs by no more than this from the one before stands still, in normalised pixels: RLT's threshold
STILL = 0.1


@dataclass(frozen=True)
class Motion:
    """A clip's `motion`: the mean absolute difference of tubelets to those before, in normalised pixels; and `still`.

    `still`: how many slots a place stands still on average before it differs by more than `STILL`, by the rule of RLT
    (arXiv 2411.05222): the clip's tokens over those that RLT keeps. A clip of one slot has no motion, and lasts 1.
    """

    motion: float
    still: float


def of(clips: Sequence[Clip], grid: Grid) -> dict[str, Motion]:
    """Return the motion of clips by id; of networks whose tokens do not tile the frames, none."""
    return {clip.clip_id: _motion(clip, grid) for clip in clips if _tiles(clip, grid)}


def _tiles(clip: Clip, grid: Grid) -> bool:
    sides = zip(clip.pixels.shape, (grid.slots, grid.rows, grid.cols), strict=False)
    return all(pixels % tokens == 0 for pixels, tokens in sides)


def _motion(clip: Clip, grid: Grid) -> Motion:
    # floats from 0 to 255 as well: what moves does not depend on how a network is fed
    pixels = torch.from_numpy(clip.pixels)[None].round().to(torch.uint8)
    with torch.inference_mode():
        change = temporal_difference(pixels, grid, "tubelet")
        begins = grid.per_slot + int((temporal_difference(pixels, grid, "ends") > STILL).sum())
    return Motion(float(change.mean()) if grid.slots > 1 else 0.0, grid.tokens / begins)
