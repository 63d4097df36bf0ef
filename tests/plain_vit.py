"""A plain ViT in plain torch, for one clip at a time: what methods' definitions are written out on."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench.backbones.videomae.network import VideoMAE


def embedded(model: Any, pixels: Tensor) -> Tensor:
    """Return the patch embeddings `[N, D]` of one uint8 clip `[T, H, W, 3]`, without positions, by a convolution."""
    volume = model.normalise(pixels).permute(3, 0, 1, 2)[None]
    conv = model.patch_embed.proj
    return F.conv3d(volume, conv.weight, conv.bias, stride=conv.stride)[0].flatten(1).T


def attention(model: Any, layer: int, x: Tensor) -> Tensor:
    """Return what the attention of a block makes of tokens `x` `[n, D]`, without the residual."""
    block = model.blocks[layer]
    bias = block.attn.qkv.bias
    if bias is None:
        bias = torch.cat([block.attn.q_bias, torch.zeros_like(block.attn.q_bias), block.attn.v_bias])
    projected = block.norm1(x) @ block.attn.qkv.weight.T + bias
    q, k, v = projected.view(len(x), 3, model.heads, model.key_width).unbind(1)
    weights = (torch.einsum("ihd,jhd->hij", q, k) * model.key_width**-0.5).softmax(-1)
    found: Tensor = block.attn.proj(torch.einsum("hij,jhd->ihd", weights, v).flatten(1))
    return found


def mlp(model: Any, layer: int, x: Tensor) -> Tensor:
    """Return what the MLP of a block makes of tokens `x` `[n, D]`, without the residual."""
    block = model.blocks[layer]
    hidden = F.gelu(F.linear(block.norm2(x), block.mlp.fc1.weight, block.mlp.fc1.bias))
    return F.linear(hidden, block.mlp.fc2.weight, block.mlp.fc2.bias)


def run_block(model: Any, layer: int, x: Tensor) -> Tensor:
    """Return a block's output `[n, D]`."""
    between = x + attention(model, layer, x)
    return between + mlp(model, layer, between)


def logits(model: VideoMAE, x: Tensor) -> Tensor:
    """Return the logits `[classes]` of the tokens that are left."""
    return model.head(model.fc_norm(x.mean(0)))
