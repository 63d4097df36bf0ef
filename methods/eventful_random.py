"""Control of Eventful Transformers: as many tokens computed anew at every gate, drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from vpbench.api import Backbone, BlockParts, ClipBatch, FrameBackbone, Pruner, Ran, Selection, clip_generator, moved
from vpbench.methods.eventful import Eventful
from vpbench.methods.eventful.pruner import FrameGates, GatedPruner, Setting, StepGates


@dataclass(frozen=True)
class EventfulRandom(Eventful):
    """The counts of `eventful`; which tokens, is drawn for each frame or step from (seed, clip or video, number)."""

    seed: int = 0

    reference = "control"
    controls: ClassVar[tuple[str, ...]] = ()

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse what `eventful` refuses, and counts that follow the content."""
        if self.policy == "threshold":
            return "how many changes are above a threshold is up to the video; give policy=top and k"
        return super().supports(backbone)

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner; it looks at no token before it draws."""
        if self.dense:
            return Pruner()
        if isinstance(backbone, FrameBackbone):
            return _Frames(self.setting, backbone, self.seed)
        return _Steps(self.setting, backbone, self.seed)


class _Drawn(GatedPruner):
    """Draws at every gate, one after the other, from a generator for each item and frame."""

    draws: Sequence[Generator] = ()

    def _choose(self, layer: int, gate: int, change: Tensor) -> Selection:
        tokens, k = change.shape[1], min(self.setting.k, change.shape[1])
        own = [torch.randperm(tokens, device="cpu", generator=draw)[:k].sort().values for draw in self.draws]
        return Selection.of_each(moved(torch.stack(own), change.device))


class _Frames(_Drawn, FrameGates):
    def __init__(self, setting: Setting, backbone: FrameBackbone, seed: int) -> None:
        super().__init__(setting, backbone)
        self.seed = seed
        self.starts: Sequence[tuple[str, int]] = ()
        self.number = -1

    def restart(self, starts: Sequence[tuple[str, int]] = ()) -> None:
        super().restart(starts)
        self.starts, self.number = starts, -1

    def narrow(self, batch: int) -> None:
        super().narrow(batch)
        self.starts = self.starts[:batch]

    def frame(self, embedded: Tensor) -> Tensor | None:
        self.number += 1
        self.draws = [clip_generator(self.seed, f"{video}/{first + self.number}") for video, first in self.starts]
        return None


class _Steps(_Drawn, StepGates):
    def __init__(self, setting: Setting, backbone: Backbone, seed: int) -> None:
        super().__init__(setting, backbone)
        self.seed = seed
        self.ids: Sequence[str] = ()

    def video(self, batch: ClipBatch) -> Selection | None:
        self.ids = batch.ids
        return None

    def run_block(self, layer: int, x: Tensor, parts: BlockParts) -> Ran:
        if layer == 0:
            self.draws = [clip_generator(self.seed, f"{clip}/{self.step}") for clip in self.ids]
        return super().run_block(layer, x, parts)
