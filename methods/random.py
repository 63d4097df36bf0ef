"""Keep a uniformly random subset of tubelets, drawn for each clip from (seed, clip id)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from vpbench.api import Backbone, Clip, ClipBatch, Method, Pruner, Selection, clip_generator


@dataclass(frozen=True)
class Random(Method):
    """Exactly `round(N * keep)` tubelets without replacement, before the patch embedding."""

    keep: float = 0.5
    seed: int = 0

    reference = "control"

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse a ratio that rounds to no token."""
        if not 0 < self.keep <= 1 or round(backbone.grid.tokens * self.keep) == 0:
            return f"keep {self.keep:g} leaves none, or more than all, of {backbone.grid.tokens} tokens"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's token grid."""
        return _Pruner(backbone.grid.tokens, round(backbone.grid.tokens * self.keep), self.seed)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the share `keep` of the tubelets."""
        return replace(self, keep=keep)


@dataclass(frozen=True)
class _Pruner(Pruner):
    tokens: int
    count: int
    seed: int

    def video(self, batch: ClipBatch) -> Selection:
        draws = [torch.randperm(self.tokens, generator=clip_generator(self.seed, i))[: self.count] for i in batch.ids]
        index = torch.stack(draws).sort(dim=1).values.flatten()
        return Selection(index.to(batch.pixels.device), (self.count,) * len(batch.ids))
