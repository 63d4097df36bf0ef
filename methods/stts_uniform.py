"""Control of STTS: as many slices, evenly spread, and windows of the same size in the middle."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.api import Backbone, Pruner
from vpbench.methods.stts import Selector, Stts, Window, on_grid


@dataclass(frozen=True)
class SttsUniform(Stts):
    """The amounts of `stts`; slice `floor(i T / k)` for the i-th of k, and the middle one of the anchors."""

    reference = "control"
    training_free = True
    controls = ()

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner; it needs no scorers."""
        return _Pruner(self, on_grid(backbone))


class _Pruner(Selector):
    def pick_slices(self, name: str, x: Tensor, keep: int) -> Tensor:
        return (torch.arange(keep, device=x.device) * x.shape[1] // keep).expand(x.shape[0], -1)

    def pick_anchors(self, name: str, x: Tensor, window: Window) -> Tensor:
        return torch.full((x.shape[0] * x.shape[1],), window.count // 2, device=x.device)
