"""Keep a random set of places, the same in every slot: tube masking, drawn from (seed, clip id)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vpbench.api import Backbone, Clip, ClipBatch, Grid, Method, Pruner, Selection, clip_generator


@dataclass(frozen=True)
class RandomTube(Method):
    """Exactly `round(places * keep)` of the places of a slot, through all slots."""

    keep: float = 0.5
    seed: int = 0

    reference = "control"
    set_by_keep = ("keep",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse a ratio that rounds to no place."""
        places = backbone.grid.per_slot
        if not 0 < self.keep <= 1 or round(places * self.keep) == 0:
            return f"keep {self.keep:g} leaves none, or more than all, of the {places} places of a slot"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's token grid."""
        return _Pruner(backbone.grid, round(backbone.grid.per_slot * self.keep), self.seed)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the share `keep` of the places."""
        return replace(self, keep=keep)


@dataclass
class _Pruner(Pruner):
    grid: Grid
    count: int
    seed: int

    def video(self, batch: ClipBatch) -> Selection:
        return Selection.of_clips([self._draw(clip_id) for clip_id in batch.ids], batch.pixels.device, self.grid)

    def _draw(self, clip_id: str) -> Tensor:
        order = torch.randperm(self.grid.per_slot, device="cpu", generator=clip_generator(self.seed, clip_id))
        places = order[: self.count].sort().values
        return (torch.arange(self.grid.slots, device="cpu")[:, None] * self.grid.per_slot + places).flatten()
