"""Keep the tokens that receive most attention, at three depths; optionally fuse the rest into one token (EViT)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vpbench.api import (
    Backbone,
    Clip,
    Method,
    Pruner,
    Tokens,
    Trace,
    UsageError,
    constant,
    precise,
    received_macs,
    stage_blocks,
)


@dataclass(frozen=True)
class Topk(Method):
    """Keep the share `rho` of the current tokens after the attention of blocks L/4, L/2 and 3L/4.

    The score of a token is the attention it receives, averaged over heads: from the class token of its step on
    backbones that have one, else from all queries (EVAD's score); with `score=shift` how far the attention moves the
    token (Representation Shift, ICCV 2025), which needs no map. `fuse` adds one token, the score-weighted sum of
    those dropped (EViT). `keyframe` is a slot whose tokens are never dropped (EVAD); -1 for none.
    """

    rho: float = 0.7
    fuse: bool = False
    keyframe: int = -1
    score: str = "attention"

    reference = "after Haurum et al. (Top-K, ICCVW 2023), EViT (arXiv 2202.07800), EVAD (arXiv 2304.08451); no training"
    set_by_keep = ("rho",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse backbones without three depths, shares outside (0, 1], and key frames that would not fit."""
        if backbone.depth < 3:
            return f"topk prunes at three depths; the backbone has {backbone.depth} blocks"
        if self.score not in ("attention", "shift"):
            return f"score is 'attention' or 'shift', not {self.score!r}"
        if self.score == "shift" and self.fuse:
            return "fuse weighs what is dropped by its share of the attention, which a shift is not"
        if not 0 < self.rho <= 1:
            return f"rho is the share of tokens that stay, in (0, 1], not {self.rho:g}"
        if not -1 <= self.keyframe < backbone.grid.slots:
            return f"keyframe {self.keyframe} is none of the {backbone.grid.slots} slots (-1: none)"
        if backbone.flow == "steps" and (self.fuse or self.keyframe >= 0):
            return "fuse and keyframe are for clips that are one sequence; this backbone encodes steps one by one"
        if self.keyframe >= 0 and self.rho**3 * backbone.grid.tokens < backbone.grid.per_slot:
            return f"rho {self.rho:g} leaves fewer tokens than the {backbone.grid.per_slot} of the key frame"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's depth."""
        return _Pruner(self, backbone)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the cube root of `keep` at each depth, so that the share `keep` is left after the last one."""
        sized = replace(self, rho=keep ** (1 / 3))
        if reason := sized.supports(backbone):
            raise UsageError(f"topk cannot reach keep {keep:g}: {reason}")
        return sized


class _Pruner(Pruner):
    stepwise = True

    def __init__(self, method: Topk, backbone: Backbone) -> None:
        self.method = method
        self.blocks = stage_blocks(backbone.depth) if method.rho < 1 else ()
        self.merges = method.fuse
        self.per_slot = backbone.grid.per_slot
        self.heads, self.key_width = backbone.heads, backbone.key_width
        self.by_class, self.shifts = backbone.flow == "steps", method.score == "shift"
        self.sequences = backbone.grid.slots if self.by_class else 1
        #: multiply-accumulates of shifts in the last forward, which no product of matrices is
        self.shifted = 0

    def wants_received(self, layer: int) -> bool:
        return layer in self.blocks and not self.by_class and not self.shifts

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        self.shifted = 0 if layer == 0 else self.shifted
        if layer not in self.blocks:
            return tokens
        batch, length = len(tokens.lengths), tokens.lengths[0]
        self.shifted += self.sequences * length * self.heads * self.key_width if self.shifts else 0
        if self.by_class:
            return self._by_class(layer, tokens, trace)
        scores = (trace.shift(tokens.x) if self.shifts else trace.walked()).view(batch, -1)
        if self.record is not None:
            self.note(f"block{layer}.score", scores if self.shifts else scores / length)
        ranked = scores
        if self.method.keyframe >= 0:
            spared = tokens.index.view(batch, -1) // self.per_slot == self.method.keyframe
            ranked = scores.masked_fill(spared, torch.inf)
        count = math.ceil(self.method.rho * length)
        order = ranked.argsort(dim=1, descending=True, stable=True)
        kept = tokens.keep(order[:, :count].sort(dim=1).values)
        fused = self.method.fuse and count < length
        return with_fused(kept, tokens, order[:, count:], scores / length) if fused else kept

    def _by_class(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        """Keep each step's class token, which is its first, and the patches of the highest scores."""
        shifts = self.shifts
        scores = trace.shift(tokens.x).view(len(tokens.lengths), -1) if shifts else trace.class_row()
        self.note(f"block{layer}.score", scores)
        count = 1 + math.ceil(self.method.rho * (tokens.lengths[0] - 1))
        first = constant((math.inf,), scores.device).expand(len(scores), 1)
        return tokens.top(torch.cat([first, scores[:, 1:]], dim=1).flatten(), count)

    def macs(self, attention: tuple[int, ...]) -> int:
        """What gives the scores, a second attention pass, class tokens' rows or shifts, and sums of what is fused."""
        if self.by_class or self.shifts:
            return sum(attention[layer] * self.heads * self.key_width for layer in self.blocks)
        scoring = sum(received_macs(attention[layer], self.heads, self.key_width) for layer in self.blocks)
        dropped = sum(attention[layer] - math.ceil(self.method.rho * attention[layer]) for layer in self.blocks)
        return scoring + (dropped * self.heads * self.key_width if self.method.fuse else 0)

    def uncounted_macs(self) -> int:
        """Shifts: distances are no products of matrices."""
        return self.shifted


def with_fused(kept: Tokens, tokens: Tokens, dropped: Tensor, scores: Tensor) -> Tokens:
    """Append to each clip of `kept` the sum of its dropped `tokens` weighted by their scores.

    `dropped` `[B, K]`: positions in the clip, best first (the new token takes its grid position); scores: `[B, n]`.
    """
    batch = len(tokens.lengths)
    rows = tokens.rows_of(dropped)
    weight, x = scores.gather(1, dropped), precise(tokens.x[rows]).view(batch, dropped.shape[1], -1)
    fused = (weight[:, None, :] @ x).to(tokens.x.dtype)
    x = torch.cat([kept.x.view(batch, -1, fused.shape[2]), fused], dim=1)
    index = torch.cat([kept.index.view(batch, -1), tokens.index[rows].view(batch, -1)[:, :1]], dim=1)
    return Tokens(x.flatten(0, 1), index.flatten(), (x.shape[1],) * batch)
