"""Keep a uniformly random subset of tubelets, drawn for each clip from (seed, clip id)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vpbench.api import Backbone, Clip, ClipBatch, Grid, Method, Pruner, Selection, clip_generator, kept


@dataclass(frozen=True)
class Random(Method):
    """Exactly `round(N * keep)` tubelets without replacement, before the patch embedding.

    On backbones that encode steps one by one, each step keeps as many as the others, give or take one.
    """

    keep: float = 0.5
    seed: int = 0

    reference = "control"
    set_by_keep = ("keep",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse a ratio that rounds to no token."""
        if not 0 < self.keep <= 1 or round(backbone.grid.tokens * self.keep) == 0:
            return f"keep {self.keep:g} leaves none, or more than all, of {backbone.grid.tokens} tokens"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's token grid."""
        count = round(backbone.grid.tokens * self.keep)
        return _Pruner(backbone.grid, backbone.flow == "steps", lambda clip_id: count, self.seed)

    def attach_like(self, backbone: Backbone, counts: Mapping[str, int]) -> Pruner:
        """Return a pruner that keeps `counts[clip_id]` tubelets of each clip."""
        # class tokens, one of each step, are counted but never dropped
        by_step = backbone.flow == "steps"
        fixed = backbone.grid.slots if by_step else 0
        return _Pruner(backbone.grid, by_step, lambda clip_id: counts[clip_id] - fixed, self.seed)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the share `keep` of the tubelets."""
        return replace(self, keep=keep)


@dataclass
class _Pruner(Pruner):
    grid: Grid
    by_step: bool
    count: Callable[[str], int]
    seed: int

    def video(self, batch: ClipBatch) -> Selection:
        kept = [self._draw(clip_id) for clip_id in batch.ids]
        return Selection.of_clips(kept, batch.pixels.device, self.grid)

    def _draw(self, clip_id: str) -> Tensor:
        return _drawn(self.grid, self.by_step, self.count(clip_id), self.seed, clip_id)


@kept  # a control's draws are no work of its own: a clip that is seen again is not drawn again
def _drawn(grid: Grid, by_step: bool, count: int, seed: int, clip_id: str) -> Tensor:
    generator = clip_generator(seed, clip_id)
    if not by_step:
        return torch.randperm(grid.tokens, device="cpu", generator=generator)[:count].sort().values
    each = [(count + step) // grid.slots for step in range(grid.slots)]
    drawn = [torch.randperm(grid.per_slot, device="cpu", generator=generator)[:n].sort().values for n in each]
    return torch.cat([step * grid.per_slot + places for step, places in enumerate(drawn)])
