"""Run-Length Tokenization: drop tubelets that hardly differ from the one before at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F

from vpbench.api import Backbone, Clip, ClipBatch, Method, Pruner, Selection, UsageError, temporal_difference


@dataclass(frozen=True)
class Rlt(Method):
    """Keep slot 0 and every tubelet that differs by more than `threshold` (normalised pixel units); counts vary."""

    threshold: float = 0.1

    reference = "Choudhury et al., Don't Look Twice, NeurIPS 2024, arXiv 2411.05222; code MIT"

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's token grid."""
        return _Pruner(backbone, self.threshold)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Set the threshold to the quantile of the calibration clips' scores that leaves the share `keep` on average.

        The first slot is always kept, so of the others `(keep*slots - 1)/(slots - 1)` may stay.
        """
        slots = backbone.grid.slots
        if keep < 1 / slots:
            raise UsageError(f"rlt always keeps the first of {slots} slots; keep must be at least {1 / slots:g}")
        if keep == 1.0:
            return replace(self, threshold=-1.0)
        pixels = torch.stack([torch.from_numpy(clip.pixels) for clip in calibration])
        scores = temporal_difference(pixels, backbone.grid, "ends").flatten()
        stay = (keep * slots - 1) / (slots - 1)
        return replace(self, threshold=float(torch.quantile(scores.double(), 1 - stay)))


@dataclass(frozen=True)
class _Pruner(Pruner):
    backbone: Backbone
    threshold: float

    def video(self, batch: ClipBatch) -> Selection:
        changed = temporal_difference(batch.pixels, self.backbone.grid, "ends") > self.threshold
        return Selection.from_mask(F.pad(changed.flatten(1), (self.backbone.grid.per_slot, 0), value=True))
