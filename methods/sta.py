"""Semantic-aware Temporal Accumulation: drop tokens that repeat the previous frames and matter little."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vpbench.api import Backbone, Clip, Method, Pruner, Tokens, Trace, UsageError, kept, precise, starts_of, unit


@dataclass(frozen=True)
class Sta(Method):
    """Remove `r` tokens from every group at each of three depths (8, 4, 2 groups for 8 slots)."""

    r: int = 16

    reference = (
        "Ding et al., Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation, ICCV 2023; code BSD-2"
    )
    set_by_keep = ("r",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse depths and grids without three stages, and an r that would empty a group."""
        limit = 4 * backbone.grid.per_slot / 7
        if backbone.depth < 3 or backbone.grid.slots % 4:
            return f"sta needs 3 blocks and slots divisible by 4, not {backbone.depth} and {backbone.grid.slots}"
        if not 0 <= self.r < limit:
            return (
                f"sta needs 0 <= r < 4/7 of the {backbone.grid.per_slot} tokens of a slot ({limit:.1f}), not {self.r}"
            )
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's depth and grid."""
        return _Pruner(backbone, self.r)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Set r so that the share `keep` is left after the last stage: `keep = 1 - 1.75 r / N`, N tokens per slot."""
        sized = replace(self, r=round(4 * backbone.grid.per_slot * (1 - keep) / 7))
        if reason := sized.supports(backbone):
            raise UsageError(f"sta cannot reach keep {keep:g}: {reason}")
        return sized


class _Pruner(Pruner):
    def __init__(self, backbone: Backbone, r: int) -> None:
        slots, depth = backbone.grid.slots, backbone.depth
        self.r = r
        self.key_width = backbone.key_width
        # block -> (number of groups, whether groups are visited from the last to the first)
        self.stages = {0: (slots, False), depth // 3: (slots // 2, True), 2 * depth // 3: (slots // 4, False)}

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        if self.r and layer in self.stages:
            # the affinity is between keys of the block's input, the importance that of its output
            self.keys = unit(trace.mean_keys())
        return tokens

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        if self.r == 0 or layer not in self.stages:
            return tokens
        groups, backward = self.stages[layer]
        batch = len(tokens.lengths)
        features = tokens.x.view(batch, groups, -1, tokens.x.shape[1])
        keys = self.keys.view(batch, groups, features.shape[2], -1)
        chosen = choose(keys, importance(features), self.r, backward)
        starts = starts_of(groups, features.shape[2], features.device)
        tokens = tokens.keep((chosen.kept + starts).flatten(1))
        if self.record is not None:
            self._explain(f"stage{list(self.stages).index(layer) + 1}", chosen, tokens)
        return tokens

    def macs(self, attention: tuple[int, ...]) -> int:
        """Products of consecutive group pairs, one batched product per stage, and of the first group with itself."""
        return self._products(attention, lambda groups, size: (groups - 1) * size * size * self.key_width)

    def published_macs(self, attention: tuple[int, ...]) -> int:
        """Count as the published sequential code works: from the third group on with the kept columns only."""
        return self._products(
            attention,
            lambda groups, size: size * size * self.key_width + (groups - 2) * size * (size - self.r) * self.key_width,
        )

    def _products(self, attention: tuple[int, ...], pairs: Callable[[int, int], int]) -> int:
        total = 0
        for layer, (groups, _) in self.stages.items() if self.r else ():
            size = attention[layer] // groups
            first = (size + 1) // 2 * (size // 2) * self.key_width
            # clips of four slots end in a single group, which has no predecessor to be compared with
            total += first + (pairs(groups, size) + (groups - 2) * size * (size - self.r) if groups > 1 else 0)
        return total

    def _explain(self, stage: str, chosen: "Choice", tokens: Tokens) -> None:
        self.note(f"{stage}.kept", tokens.index.view(len(tokens.lengths), -1))
        self.note(f"{stage}.kept_local", chosen.kept)
        self.note(f"{stage}.importance", chosen.importance)
        self.note(f"{stage}.redundancy", chosen.redundancy)
        self.note(f"{stage}.score", chosen.redundancy * (1 - chosen.importance))
        self.note(f"{stage}.first_sim", chosen.first_similarity)


@dataclass(frozen=True)
class Choice:
    """What one stage decided, groups in temporal order.

    `kept` `[B, G, M-r]`: positions inside each group, in output order; `importance` `[B, G, M]`; `accumulated` `[B, M]`
    of each group but the one that is visited first, in the order of visits: their redundancy up to a factor;
    `first_similarity` `[B, ceil(M/2)]`: best cosine of the first one's even tokens with odd ones.
    """

    kept: Tensor
    importance: Tensor
    accumulated: Sequence[Tensor]
    backward: bool
    first_similarity: Tensor

    @property
    def redundancy(self) -> Tensor:
        """Return `[B, G, M]`: what each token takes of the mass, one in all, that was kept in the group before.

        NaN in the group that is visited first; in the second, each token of the one before brings one.
        """
        blank = torch.full_like(self.importance[:, 0], torch.nan)
        later = [found / found.sum(dim=1, keepdim=True) for found in self.accumulated[1:]]
        found = [blank, *self.accumulated[:1], *later]
        return torch.stack(found[::-1] if self.backward else found, dim=1)


def importance(features: Tensor) -> Tensor:
    """L1 norm of each token of `features` `[B, G, M, C]`, scaled to [0, 1] inside its group; 0 where all are equal."""
    norm = torch.linalg.vector_norm(precise(features), ord=1, dim=-1)
    low, high = torch.aminmax(norm, dim=-1, keepdim=True)
    return torch.nan_to_num((norm - low) / (high - low), nan=0.0)


def choose(keys: Tensor, weight: Tensor, r: int, backward: bool) -> Choice:
    """Choose the tokens that stay in each group, all but `r`.

    keys: `[B, G, M, D]`, unit length; weight: importance `[B, G, M]`. The column softmax of each pair of groups does
    not depend on which columns survive, so all pairs are one batched product and only the accumulation is sequential.
    There tokens that are gone bring no mass; to divide by all that is brought would change no order.
    """
    groups, keep = keys.shape[1], keys.shape[2] - r
    later, earlier = (keys[:, :-1], keys[:, 1:]) if backward else (keys[:, 1:], keys[:, :-1])
    affinity = (later @ earlier.transpose(-2, -1)).softmax(dim=-2)
    first, *others = range(groups)[::-1] if backward else range(groups)
    stay, similarity = first_group(keys[:, first], keep)
    chosen, accumulated, trivial = [stay], list[Tensor](), 1 - weight
    mass = torch.ones_like(weight[:, 0])
    for group in others:
        found = (affinity[:, group if backward else group - 1] @ mass[..., None]).squeeze(-1)
        order = (found * trivial[:, group]).argsort(dim=-1, stable=True)
        accumulated.append(found)
        chosen.append(order[:, :keep])
        if group != others[-1]:
            mass = found.scatter(1, order[:, keep:], 0)
    in_time = torch.stack(chosen[::-1] if backward else chosen, dim=1)
    return Choice(in_time, weight, accumulated, backward, similarity)


def first_group(keys: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Return what a group without predecessor keeps, `[B, keep]`: odd positions, then the least matched even ones.

    Also returns the best cosine of each even position, `[B, ceil(M/2)]`. keys: `[B, M, D]`, unit length.
    """
    similarity = (keys[:, 0::2] @ keys[:, 1::2].transpose(-2, -1)).amax(dim=-1)
    even = 2 * similarity.argsort(dim=-1, stable=True)
    odd = _odd(keys.shape[1], keys.device).expand(len(keys), -1)
    return torch.cat([odd, even], dim=1)[:, :keep], similarity


@kept
def _odd(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count, 2, device=device)
