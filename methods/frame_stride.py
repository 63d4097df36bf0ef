"""Look at fewer moments: every n-th frame, or every n-th slot, of the clip."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from vpbench.api import Backbone, Clip, ClipBatch, Flow, Grid, Method, Pruner, Selection, UsageError


@dataclass(frozen=True)
class FrameStride(Method):
    """Take every `stride`-th frame (2.5 is allowed: frames 0, 2, 5, 7, ...), in whole slots.

    With `unit` `frame` the tubelets are cut anew from the frames taken, and the positional table is interpolated to the
    shorter clip; with `slot` every `stride`-th tubelet stays as it is, with the position it has.
    """

    stride: float = 2.0
    unit: str = "frame"

    reference = "control"
    set_by_keep = ("stride",)
    flows: ClassVar[frozenset[Flow]] = frozenset({"stream", "steps", "grid"})

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse strides that leave no slot, or repeat frames."""
        if self.unit not in ("frame", "slot"):
            return f"unit is 'frame' or 'slot', not {self.unit!r}"
        if not 1 <= self.stride <= backbone.grid.slots:
            return f"stride {self.stride:g} is outside 1 to {backbone.grid.slots}, the slots of a clip"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's slots."""
        slots = round(backbone.grid.slots / self.stride)
        return _Frames(backbone.grid, slots) if self.unit == "frame" else _Slots(backbone.grid, slots)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the nearest whole number of slots to the share `keep`; raises UsageError where that is none."""
        slots = round(backbone.grid.slots * keep)
        if slots == 0:
            raise UsageError(f"keep {keep:g} leaves none of {backbone.grid.slots} slots")
        return replace(self, stride=backbone.grid.slots / slots)


def spread(count: int, length: int, device: torch.device) -> Tensor:
    """Return `count` of the numbers 0 to length-1, evenly spread, the first one included."""
    return torch.arange(count, device=device) * length // count


@dataclass
class _Frames(Pruner):
    grid: Grid
    slots: int

    def resample(self, batch: ClipBatch) -> ClipBatch:
        frames = batch.pixels.shape[1]
        taken = spread(self.slots * frames // self.grid.slots, frames, batch.pixels.device)
        return replace(batch, pixels=batch.pixels.index_select(1, taken))


@dataclass
class _Slots(Pruner):
    grid: Grid
    slots: int

    def video(self, batch: ClipBatch) -> Selection:
        index = torch.arange(self.grid.tokens, device=batch.pixels.device).view(self.grid.slots, -1)
        kept = index[spread(self.slots, self.grid.slots, index.device)].flatten()
        return Selection.of_each(kept.expand(len(batch.ids), -1))
