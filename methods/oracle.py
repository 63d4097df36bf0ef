"""An upper reference that reads the label: keep the tubelets that speak for the right class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vpbench.api import (
    Backbone,
    Clip,
    ClipBatch,
    Method,
    Pruner,
    Selection,
    SingleStream,
    Tokens,
    UsageError,
    on_device,
    precise,
)


@dataclass(frozen=True)
class Oracle(Method):
    """Exactly `round(N * keep)` tubelets by Grad-CAM of the true class at the last block's input of a dense forward.

    Value of token i: `ReLU(sum_c mean_j(dy/dx_jc) x_ic)`. It needs labels and a dense forward with a backward pass, so
    it says what a selection could reach, and its time is no claim.
    """

    keep: float = 0.5

    reference = "control: an upper reference for accuracy only"
    set_by_keep = ("keep",)
    untrainable = "it reads the labels that the loss is of"

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse a ratio that rounds to no token, and backbones whose clips are no single sequence."""
        if not isinstance(backbone, SingleStream):
            return "oracle traces a clip's class to one sequence of tokens; this backbone encodes its steps one by one"
        if not 0 < self.keep <= 1 or round(backbone.grid.tokens * self.keep) == 0:
            return f"keep {self.keep:g} leaves none, or more than all, of {backbone.grid.tokens} tokens"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone."""
        assert isinstance(backbone, SingleStream), "others are not supported"
        return _Pruner(backbone, round(backbone.grid.tokens * self.keep))

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the share `keep` of the tubelets."""
        return replace(self, keep=keep)


class _Pruner(Pruner):
    caveat = "reads the labels"

    def __init__(self, backbone: SingleStream, count: int) -> None:
        self.backbone = backbone
        self.count = count

    def video(self, batch: ClipBatch) -> Selection:
        if batch.labels is None:
            raise UsageError("oracle needs the clips' labels")
        value = self._values(batch, batch.labels)
        self.note("value", value)
        return Selection.top(value, self.count)

    def macs(self, attention: tuple[int, ...]) -> int:
        """A dense forward, and the last block's backward pass towards its input."""
        dense = (self.backbone.grid.tokens,) * self.backbone.depth
        return self.backbone.macs(dense, dense) + self.backbone.backward_macs(dense[-1])

    def _values(self, batch: ClipBatch, labels: tuple[int, ...]) -> Tensor:
        watch, network = _Watch(self.backbone.depth - 2), self.backbone
        with torch.inference_mode(mode=False), torch.enable_grad():
            tensors = dict([*network.named_parameters(), *network.named_buffers()])
            # of a network built in inference mode: no gradient passes them
            fit = {name: each.clone() for name, each in tensors.items() if each.is_inference()}
            given = (replace(batch, pixels=batch.pixels.clone()), watch)
            logits = torch.func.functional_call(network, fit, given).logits
            target = on_device(labels, logits.device)
            torch.autograd.backward(logits.gather(1, target[:, None]).sum(), inputs=[watch.x])
        assert watch.x.grad is not None
        x, slope = (precise(t).view(len(labels), -1, t.shape[1]) for t in (watch.x.detach(), watch.x.grad))
        return torch.relu((slope.mean(dim=1, keepdim=True) * x).sum(dim=-1))


class _Watch(Pruner):
    """Cuts the graph after one block, so that gradients go no further back than they are needed."""

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        if layer != self.layer:
            return tokens
        self.x = tokens.x.detach().requires_grad_()
        return tokens.with_x(self.x)
