"""Shrink the frames: the same clip at a lower resolution, with the positional table interpolated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F

from vpbench.api import Backbone, Clip, ClipBatch, Flow, Grid, Method, Pruner


@dataclass(frozen=True)
class Downsample(Method):
    """Resize frames to about `scale` of their sides (bilinear, antialiased), to whole tokens."""

    scale: float = 0.7

    reference = "control"
    set_by_keep = ("scale",)
    flows: ClassVar[frozenset[Flow]] = frozenset({"stream", "steps", "grid"})

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse scales that leave no token, or enlarge."""
        if not 0 < self.scale <= 1 or 0 in _sides(backbone, self.scale):
            return (
                f"scale {self.scale:g} leaves none of, or more than, {backbone.grid.rows}x{backbone.grid.cols} tokens"
            )
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's token grid."""
        return _Pruner(backbone.grid, *_sides(backbone, self.scale))

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Scale both sides by the square root of `keep`; whole tokens make the steps coarse."""
        return replace(self, scale=keep**0.5)


def _sides(backbone: Backbone, scale: float) -> tuple[int, int]:
    """Return rows and columns at a scale: each rounded down or up, whichever comes nearest to the area.

    Backbones that keep a grid take square maps alone, so there both sides are rounded alike.
    """
    grid = backbone.grid
    area = grid.per_slot * scale * scale
    rows, cols = int(grid.rows * scale + 1e-9), int(grid.cols * scale + 1e-9)
    steps = [(0, 0), (1, 1)] if backbone.flow == "grid" else [(0, 0), (0, 1), (1, 1)]
    near = [(rows + i, cols + j) for i, j in steps if rows + i <= grid.rows and cols + j <= grid.cols]
    return min(near, key=lambda sides: abs(sides[0] * sides[1] - area))


#: added before pixels are rounded: many are exact halves, which would fall as a processor's last bit does
_HALF = 2**-10


@dataclass
class _Pruner(Pruner):
    grid: Grid
    rows: int
    cols: int

    def resample(self, batch: ClipBatch) -> ClipBatch:
        height, width = batch.pixels.shape[2:4]
        size = (height // self.grid.rows * self.rows, width // self.grid.cols * self.cols)
        if size == (height, width):
            return batch
        flat = batch.pixels.flatten(0, 1).permute(0, 3, 1, 2).float()
        small = F.interpolate(flat, size=size, mode="bilinear", antialias=True, align_corners=False)
        if batch.pixels.dtype == torch.uint8:
            small = small.add_(_HALF).round_().clamp(0, 255)
        pixels = small.to(batch.pixels.dtype).permute(0, 2, 3, 1).reshape(*batch.pixels.shape[:2], *size, 3)
        return replace(batch, pixels=pixels)
