"""Control of RGTP on detectors: as many tokens in the same frames, drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vpbench.api import Backbone, Flow, Pruner, clip_generator, moved
from vpbench.methods.rgtp import Rgtp


@dataclass(frozen=True)
class RgtpRandom(Rgtp):
    """The counts and dense frames of `rgtp`; which tokens, is drawn for each frame from (seed, video, frame number)."""

    seed: int = 0

    reference = "control"
    flows: ClassVar[frozenset[Flow]] = frozenset({"frames"})
    controls = ()

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse all that is no detector, and what `rgtp` refuses there."""
        if backbone.flow != "frames":
            return "rgtp_random is the control on detectors; on clips it is random"
        return super().supports(backbone)

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner; it looks at no attention and at no box."""
        tokens = backbone.grid.tokens
        return _Pruner(tokens, self._split.count(tokens), self.reset, self.seed)


class _Pruner(Pruner):
    waits = 1  # for the windows that kept tokens are in

    def __init__(self, tokens: int, kept: int, reset: int, seed: int) -> None:
        self.tokens, self.kept, self.period, self.seed = tokens, kept, reset, seed
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
        return moved(torch.stack([self._draw(*start) for start in self.starts]), embedded.device)

    def _draw(self, video: str, first: int) -> Tensor:
        draw = clip_generator(self.seed, f"{video}/{first + self.number}")
        return torch.randperm(self.tokens, device="cpu", generator=draw)[: self.kept].sort().values
