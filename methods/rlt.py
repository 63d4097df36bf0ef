"""Run-Length Tokenization: drop tubelets that hardly differ from the one before at the same place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench.api import Backbone, Clip, ClipBatch, Method, Pruner, Selection, UsageError, temporal_difference


@dataclass(frozen=True)
class Rlt(Method):
    """Keep slot 0 and every tubelet that differs by more than `threshold` (normalised pixel units); counts vary."""

    threshold: float = 0.1

    reference = "Choudhury et al., Don't Look Twice, NeurIPS 2024, arXiv 2411.05222; code MIT"
    set_by_keep = ("threshold",)
    adaptive = True

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


class _Pruner(Pruner):
    gives_run_lengths = True
    waits = 1

    def __init__(self, backbone: Backbone, threshold: float) -> None:
        self.grid = backbone.grid
        self.threshold = threshold
        self.wants_lengths = backbone.reads_run_lengths

    def video(self, batch: ClipBatch) -> Selection:
        scores = temporal_difference(batch.pixels, self.grid, "ends")
        keep = F.pad((scores > self.threshold).flatten(1), (self.grid.per_slot, 0), value=True)
        selection = Selection.from_mask(keep, self.grid.slots)
        self.note("scores", scores)
        if self.wants_lengths or self.record is not None:
            lengths = run_lengths(keep.view(-1, self.grid.slots, self.grid.per_slot)).flatten(1)
            lengths = lengths[selection.clip, selection.index]
            selection = replace(selection, run_lengths=lengths)
            self.note("run_lengths", lengths)
        return selection


def run_lengths(keep: Tensor) -> Tensor:
    """Return `[B, slots, places]`: for tubelets kept by `keep` (bool, same shape), slots until the next one there."""
    slots = keep.shape[1]
    slot = torch.arange(slots, device=keep.device)[None, :, None]
    kept_at = torch.where(keep, slot, slots)
    # the smallest kept slot after this one: a running minimum from the back, shifted by one
    after = F.pad(kept_at[:, 1:], (0, 0, 0, 1), value=slots).flip(1).cummin(dim=1).values.flip(1)
    return after - slot
