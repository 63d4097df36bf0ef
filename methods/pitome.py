"""PiToMe: protect isolated tokens, merge those that have many near twins."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench.api import Backbone, Clip, Method, Pruner, Tokens, Trace, UsageError, ranked, starts_of, unit

_ROWS = 128


@dataclass(frozen=True)
class Pitome(Method):
    """Keep the share `ratio` of the current tokens in every block.

    A token's energy is high where it has many similar ones: mean of `ELU(cosine - margin)` over all tokens, with
    `margin` falling linearly to 0 over the depth. In the first half of the network the tokens of highest energy are
    paired and merged and all others are protected; in the second half all tokens, sorted by energy, are matched.
    `proportional` adds log(size) to the attention logits; `weighted_pooling` weighs the final mean by size.
    """

    ratio: float = 0.9
    margin: float = 0.75
    proportional: bool = False
    weighted_pooling: bool = True

    reference = "Tran et al., PiToMe, NeurIPS 2024, arXiv 2405.16148; code not used"
    set_by_keep = ("ratio",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse ratios below a half: a block can merge at most every second token."""
        if not 0.5 <= self.ratio <= 1:
            return f"a block keeps at least half of its tokens and at most all, not {self.ratio:g}"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's depth."""
        return _Pruner(self, backbone)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the L-th root of `keep` in each of L blocks, so that the share `keep` is left after the last one."""
        sized = replace(self, ratio=keep ** (1 / backbone.depth))
        if reason := sized.supports(backbone):
            raise UsageError(f"pitome cannot reach keep {keep:g}: {reason}")
        return sized


class _Pruner(Pruner):
    def __init__(self, method: Pitome, backbone: Backbone) -> None:
        self.method = method
        self.depth, self.key_width = backbone.depth, backbone.key_width
        self.merges = True
        self.size_bias = method.proportional
        self.size_pooling = method.weighted_pooling

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        batch, length = len(tokens.lengths), tokens.lengths[0]
        r = self._count(length)
        if r == 0:
            return tokens
        keys = unit(trace.mean_keys().view(batch, length, -1))
        similarity = keys @ keys.transpose(-2, -1)
        margin = self.method.margin * (1 - layer / self.depth)
        # row by row on a CPU: beside the similarities no second matrix of their size exists
        some = _ROWS if similarity.device.type == "cpu" else length
        parts = [F.elu(rows - margin).mean(dim=-1) for rows in similarity.split(some, dim=1)]
        energy = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        self.note(f"block{layer}.energy", energy)
        order = energy.argsort(dim=1, descending=True, stable=True)
        return merge_some(tokens, similarity, order, 2 * r if layer < self.depth // 2 else length, r)

    def macs(self, attention: tuple[int, ...]) -> int:
        """Similarities of all tokens with all, in every block that merges."""
        return sum(n * n * self.key_width for n in attention if self._count(n))

    def _count(self, length: int) -> int:
        return min(math.floor(length - length * self.method.ratio), length // 2)


def merge_some(tokens: Tokens, similarity: Tensor, order: Tensor, mergeable: int, r: int) -> Tokens:
    """Merge `r` of the first `mergeable` tokens by energy (`order` `[B, n]`) into others of them; protect the rest.

    similarity: `[B, n, n]`. Even ranks look for their best odd rank. New order: protected, unmerged, odd ranks.
    """
    even, odd = order[:, 0:mergeable:2], order[:, 1:mergeable:2]
    clip = starts_of(len(even), 1, even.device)
    match = ranked(similarity[clip[..., None], even[:, :, None], odd[:, None, :]], r)
    return match.merge(tokens.keep(order), protected=order.shape[1] - mergeable)
