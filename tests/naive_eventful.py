"""Eventful Transformers written down plainly: one video, one token set after the other, whole maps, nothing clever.

Follows the definition's numbered steps on the weights of our networks, and shares no code with the method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench.backbones.vitdet.network import ViTDet
from vpbench.backbones.vivit.network import ViViT


@dataclass
class Rule:
    """What is selected of changes `e [N, C]`: the k largest, or all above a threshold."""

    k: int = 0
    threshold: float | None = None

    def __call__(self, e: Tensor) -> list[int]:
        sizes = [float(row.norm()) for row in e]
        if self.threshold is not None:
            return [i for i, size in enumerate(sizes) if size > self.threshold]
        return sorted(sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))[: self.k])


@dataclass
class Variant:
    """Which form of the method: the level of global blocks, pooled keys, where the gates stand, what they compare."""

    level: str = "full"
    pooled: bool = False
    before_norm: bool = False
    previous: bool = False


@dataclass
class Memory:
    """p1, B1, p2, B2, p3, B3 and P of one block."""

    reference: dict[str, Tensor] = field(default_factory=dict)
    buffer: dict[str, Tensor] = field(default_factory=dict)
    weights: Tensor | None = None


class Naive:
    """One video segment, or one view: `frame` takes its tokens with positions, one time after the other."""

    def __init__(self, model: Any, rule: Rule, variant: Variant) -> None:
        self.model, self.rule, self.variant = model, rule, variant
        self.blocks = list(model.net.blocks if isinstance(model, ViTDet) else model.blocks)
        self.memories = [Memory() for _ in self.blocks]
        #: by block and gate, what was selected in the last frame; None for all
        self.selected: list[dict[str, list[int] | None]] = []
        #: keys that were computed anew in the last frame, by block
        self.keys: list[int] = []

    def frame(self, x: Tensor) -> Tensor:
        self.selected, self.keys = [{} for _ in self.blocks], []
        for number, block in enumerate(self.blocks):
            x = self._block(number, block, x)
        return x

    def _gated(self, number: int, name: str, c: Tensor, part: Callable[[Tensor], Tensor]) -> tuple[Tensor, list[int]]:
        memory = self.memories[number]
        if name not in memory.reference:
            chosen, kept = list(range(len(c))), None
            memory.reference[name], memory.buffer[name] = c.clone(), part(c).clone()
        else:
            chosen = kept = self.rule(c - memory.reference[name])
            for i in chosen:
                memory.reference[name][i] = c[i]
                memory.buffer[name][i] = part(c[i : i + 1])[0]
            if self.variant.previous:
                memory.reference[name] = c.clone()
        self.selected[number][name] = kept
        return memory.buffer[name], chosen

    def _normed(
        self, number: int, name: str, x: Tensor, norm: Any, part: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, list[int]]:
        if self.variant.before_norm:
            return self._gated(number, name, x, lambda rows: part(norm(rows)))
        return self._gated(number, name, norm(x), part)

    def _block(self, number: int, block: Any, x: Tensor) -> Tensor:
        qkv, chosen = self._normed(number, "qkv", x, block.norm1, block.attn.qkv)
        a = self._attention(number, block, qkv, chosen)
        projected, _ = self._gated(number, "projection", a, block.attn.proj)
        x = x + projected
        made, _ = self._normed(number, "mlp", x, block.norm2, block.mlp)
        return x + made

    def _attention(self, number: int, block: Any, qkv: Tensor, chosen: list[int]) -> Tensor:
        heads = self.model.heads
        q, k, v = (each.unflatten(1, (heads, -1)).transpose(0, 1) for each in qkv.chunk(3, dim=1))  # [h, N, d]
        windowed = isinstance(self.model, ViTDet) and number in self.model.config.windowed
        if windowed:
            self.keys.append(0)
            return self._windows(block, qkv)
        side = self.model.config.grid if isinstance(self.model, ViTDet) else 0
        tables = _tables(block, side) if side else None
        keys = chosen
        if self.variant.pooled:
            k, v = (_cells(each, side) for each in (k, v))
            assert tables is not None
            tables = tuple((table[:, 0::2] + table[:, 1::2]) / 2 for table in tables)  # type: ignore[assignment]
            keys = sorted({i // side // 2 * (side // 2) + i % side // 2 for i in chosen})
        self.keys.append(len(keys))
        w = _map(q, k, tables, side, side // 2 if self.variant.pooled else side)
        memory = self.memories[number]
        if self.variant.level == "full":
            if memory.weights is None:
                memory.weights = w.clone()
            for j in keys:
                memory.weights[:, :, j] = w[:, :, j]
            w = memory.weights
        return (w @ v).transpose(0, 1).flatten(1)

    def _windows(self, block: Any, qkv: Tensor) -> Tensor:
        config = self.model.config
        side, size, heads = config.grid, config.window, config.heads
        tables = _tables(block, size)
        out = torch.zeros(side * side, config.dim, dtype=qkv.dtype)
        count = -(-side // size)
        for top in range(count):
            for left in range(count):
                rows, tokens = [], []
                for y in range(top * size, (top + 1) * size):
                    for x in range(left * size, (left + 1) * size):
                        inside = y < side and x < side
                        tokens.append(y * side + x if inside else -1)
                        rows.append(qkv[y * side + x] if inside else block.attn.qkv.bias)
                q, k, v = (each.unflatten(1, (heads, -1)).transpose(0, 1) for each in torch.stack(rows).chunk(3, dim=1))
                made = (_map(q, k, tables, size, size) @ v).transpose(0, 1).flatten(1)
                for place, token in enumerate(tokens):
                    if token >= 0:
                        out[token] = made[place]
        return out


def _map(q: Tensor, k: Tensor, tables: Any, side: int, key_side: int) -> Tensor:
    """Softmax of q k / sqrt(d) + q R_y + q R_x, `[h, N, keys]`."""
    logits = q @ k.transpose(1, 2) / q.shape[2] ** 0.5
    if tables is not None:
        for i in range(q.shape[1]):
            down, along = tables[0][i // side], tables[1][i % side]  # [keys of an axis, d]
            bias = (q[:, i] @ down.T)[:, :, None] + (q[:, i] @ along.T)[:, None, :]
            logits[:, i] += bias.flatten(1)
    return logits.softmax(-1)


def _cells(x: Tensor, side: int) -> Tensor:
    grid = x.unflatten(1, (side, side))
    return (grid[:, 0::2, 0::2] + grid[:, 0::2, 1::2] + grid[:, 1::2, 0::2] + grid[:, 1::2, 1::2]).flatten(1, 2) / 4


def _tables(block: Any, side: int) -> tuple[Tensor, Tensor]:
    found = []
    for table in (block.attn.rel_pos_h, block.attn.rel_pos_w):
        length = (len(table) + 1) // 2
        entries = torch.stack([torch.stack([table[q - k + length - 1] for k in range(length)]) for q in range(length)])
        if length != side:
            image = entries.permute(2, 0, 1)[None].float()  # as the network resizes, whatever its type
            picture = F.interpolate(image, (side, side), mode="bicubic", align_corners=False)
            entries = picture[0].permute(1, 2, 0).to(table.dtype)
        found.append(entries)
    return found[0], found[1]


def detector(model: ViTDet, embedded: Tensor, rule: Rule, variant: Variant) -> tuple[Tensor, list[Naive]]:
    """Return the outputs `[T, N, D]` of one segment's frames, from patches `[T, N, D]`, and the state (one for all)."""
    naive = Naive(model, rule, variant)
    return torch.stack([naive.frame(z + model.net.positions()) for z in embedded]), [naive]


def classes(model: ViViT, embedded: Tensor, rule: Rule, variant: Variant) -> Tensor:
    """Return the class outputs `[steps, D]` of one view, from its patches `[steps, N, D]`."""
    naive, found = Naive(model, rule, variant), []
    for z in embedded:
        x = naive.frame(torch.cat([model.cls_token[0], z]) + model.pos_embed[0])
        found.append(model.norm(x[0]))
    return torch.stack(found)
