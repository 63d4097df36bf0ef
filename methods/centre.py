"""Keep the tubelets nearest to the centre of the frame, whatever the clip shows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from vpbench.api import Backbone, Clip, ClipBatch, Grid, Method, Pruner, Selection, plain


@dataclass(frozen=True)
class Centre(Method):
    """Exactly `round(N * keep)` tubelets by distance (l2) from the centre, earlier slots first among equals."""

    keep: float = 0.5

    reference = "control"
    set_by_keep = ("keep",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse a ratio that rounds to no token."""
        if not 0 < self.keep <= 1 or round(backbone.grid.tokens * self.keep) == 0:
            return f"keep {self.keep:g} leaves none, or more than all, of {backbone.grid.tokens} tokens"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's token grid."""
        return _Pruner(backbone.grid, round(backbone.grid.tokens * self.keep))

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the share `keep` of the tubelets."""
        return replace(self, keep=keep)


@dataclass
class _Pruner(Pruner):
    grid: Grid
    count: int

    def __post_init__(self) -> None:
        with plain():
            row = torch.arange(self.grid.rows)[:, None] - (self.grid.rows - 1) / 2
            col = torch.arange(self.grid.cols)[None, :] - (self.grid.cols - 1) / 2
            near = -(row**2 + col**2).flatten().repeat(self.grid.slots)
            #: the same positions in every clip
            self.places = Selection.top(near[None], self.count).index

    def video(self, batch: ClipBatch) -> Selection:
        return Selection.of_clips([self.places] * len(batch.ids), batch.pixels.device, self.grid)
