"""Control of STTS: as many slices, and windows of the same size, drawn at random."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.api import Backbone, ClipBatch, GridBackbone, Pruner, clip_generator, moved
from vpbench.methods.stts import Selector, Stts, Window, on_grid


@dataclass(frozen=True)
class SttsRandom(Stts):
    """The amounts of `stts`; which slices, and which of its anchors, is drawn for each clip from (seed, clip id)."""

    seed: int = 0

    reference = "control"
    training_free = True
    controls = ()

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner; it needs no scorers."""
        return _Pruner(self, on_grid(backbone))


class _Pruner(Selector):
    def __init__(self, method: SttsRandom, backbone: GridBackbone) -> None:
        super().__init__(method, backbone)
        self.seed = method.seed
        self.ids: tuple[str, ...] = ()

    def resample(self, batch: ClipBatch) -> ClipBatch:
        self.ids = batch.ids
        return batch

    def _draws(self, name: str) -> list[torch.Generator]:
        return [clip_generator(self.seed, f"{name}/{clip}") for clip in self.ids]

    def pick_slices(self, name: str, x: Tensor, keep: int) -> Tensor:
        drawn = [
            torch.randperm(x.shape[1], device="cpu", generator=draw)[:keep].sort().values for draw in self._draws(name)
        ]
        return moved(torch.stack(drawn), x.device)

    def pick_anchors(self, name: str, x: Tensor, window: Window) -> Tensor:
        drawn = [torch.randint(window.count, (x.shape[1],), device="cpu", generator=draw) for draw in self._draws(name)]
        return moved(torch.cat(drawn), x.device)
