"""How much a class depends on each token: the norm of its logit's gradient (as STA's figures show it)."""

import torch
from torch import Tensor

from vpbench.api import ClipBatch
from vpbench.backbones.videomae.network import VideoMAE


def gradient_norms(model: VideoMAE, batch: ClipBatch, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return `[B, N]`, the norm over channels of a logit's gradient by each token that enters block 0, dense.

    target `[B]`: the classes whose logits are meant; by default those that the model predicts. Also returns them.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        tokens = model.embed(batch.pixels)
        leaf = tokens.x.detach().clone().requires_grad_()
        tokens = tokens.with_x(leaf)
        for block in model.blocks:
            tokens = block(tokens)
        logits = model.classify(tokens)
        meant = logits.argmax(dim=-1) if target is None else target
        (gradient,) = torch.autograd.grad(logits.gather(1, meant[:, None]).sum(), [leaf])
    return gradient.norm(dim=-1).view(len(batch.ids), -1), meant
