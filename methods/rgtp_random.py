"""Control of RGTP on detectors: as many tokens in the same frames, drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.api import Backbone, FramePruner, Pruner, UsageError, clip_generator
from vpbench.backbones.vitdet_config import ViTDetConfig
from vpbench.methods.rgtp import Rgtp


@dataclass(frozen=True)
class RgtpRandom(Rgtp):
    """The counts and dense frames of `rgtp`; which tokens, is drawn for each frame from (seed, video, frame number)."""

    seed: int = 0

    reference = "control"
    controls = ()

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse all that is no detector."""
        return "rgtp_random is the control on detectors; on clips it is random"

    def attach(self, backbone: Backbone) -> Pruner:
        """Raise UsageError, as `supports` says."""
        raise UsageError(self.supports(backbone) or "")

    def attach_frames(self, config: ViTDetConfig) -> FramePruner:
        """Return the pruner; it looks at no attention and at no box."""
        return _Pruner(config.tokens, self._split.count(config.tokens), self.reset, self.seed)


class _Pruner(FramePruner):
    def __init__(self, tokens: int, count: int, reset: int, seed: int) -> None:
        self.tokens, self.count, self.period, self.seed = tokens, count, reset, seed
        self.starts: Sequence[tuple[str, int]] = ()
        self.number = -1

    def restart(self, starts: Sequence[tuple[str, int]] = ()) -> None:
        self.starts, self.number = starts, -1

    def narrow(self, batch: int) -> None:
        self.starts = self.starts[:batch]

    def frame(self, embedded: Tensor) -> Tensor | None:
        self.number += 1
        if self.number == 0 or (self.period and self.number % self.period == 0):
            return None
        return torch.stack([self._draw(*start) for start in self.starts]).to(embedded.device)

    def _draw(self, video: str, first: int) -> Tensor:
        draw = clip_generator(self.seed, f"{video}/{first + self.number}")
        return torch.randperm(self.tokens, generator=draw)[: self.count].sort().values
