"""Keep the tubelets that change most: a fixed token budget per clip, otherwise RLT's idea."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F

from vpbench.api import Backbone, Clip, ClipBatch, Method, Pruner, Selection, temporal_difference


@dataclass(frozen=True)
class Tdiff(Method):
    """Keep slot 0 and, of the rest, the highest temporal differences: `round(N * keep)` tokens in every clip."""

    keep: float = 0.5
    pair: str = "ends"

    reference = "control: RLT's criterion (arXiv 2411.05222) without RLT's adaptive count"
    set_by_keep = ("keep",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse budgets below one slot: the first slot has no predecessor to differ from, so it is always kept."""
        if self.pair not in ("ends", "tubelet"):
            return f"pair is 'ends' or 'tubelet', not {self.pair!r}"
        if not 1 / backbone.grid.slots <= self.keep <= 1:
            return f"slot 0 of {backbone.grid.slots} is always kept; keep must be at least {1 / backbone.grid.slots:g}"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's token grid."""
        return _Pruner(backbone, round(backbone.grid.tokens * self.keep), self.pair)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the share `keep` of the tubelets."""
        return replace(self, keep=keep)


@dataclass
class _Pruner(Pruner):
    backbone: Backbone
    count: int
    pair: str

    def __post_init__(self) -> None:
        self.waits = int(self.backbone.flow == "steps")

    def video(self, batch: ClipBatch) -> Selection:
        scores = temporal_difference(batch.pixels, self.backbone.grid, self.pair).flatten(1)  # type: ignore[arg-type]
        self.note("scores", scores)
        return Selection.top(F.pad(scores, (self.backbone.grid.per_slot, 0), value=torch.inf), self.count)
