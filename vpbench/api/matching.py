"""Bipartite soft matching: which tokens merge into which (ToMe, arXiv 2210.09461)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vpbench.api.contexts import kept, precise
from vpbench.api.tokens import Tokens, starts_of


@dataclass(frozen=True)
class Match:
    """Tokens of each clip split by position: even ones (A) look for their most similar odd one (B).

    `best [B, ceil(n/2)]` is the similarity found. Ranked by it (`order [B, ceil(n/2)]`), the first r of A are `source
    [B, r]`, merged into their `partner [B, r]` of B; the others stay as `unmerged [B, ceil(n/2)-r]`. Indices count
    within A and B.
    """

    best: Tensor
    order: Tensor
    partner: Tensor

    @property
    def source(self) -> Tensor:
        """Even tokens that are merged, the most similar first."""
        return self.order[:, : self.partner.shape[1]]

    @property
    def unmerged(self) -> Tensor:
        """Even tokens that stay, as they come to lie."""
        return self.order[:, self.partner.shape[1] :]

    def merge(self, tokens: Tokens, weight: Tensor | None = None, protected: int = 0) -> Tokens:
        """Merge sources into partners; new order: unmerged, then all of B.

        The first `protected` tokens of each clip took no part in the matching and stay in front. weight `[S]`: what
        each token brings, see `Tokens.merge`.
        """
        (batch, rest), length = self.unmerged.shape, tokens.lengths[0]
        places = _places(length, protected, rest, tokens.index.device)
        even = self.order * 2
        if protected:
            even += protected
        target = torch.cat([self.partner + (protected + rest), places.first.expand(batch, -1)], dim=1)
        into = places.into.expand(batch, -1).scatter(1, even, target)
        into += starts_of(batch, length - self.partner.shape[1], into.device)
        stay = self._stay(places, even)
        return tokens.merge(into.flatten(), tokens.rows_of(stay), (stay.shape[1],) * batch, weight)

    def drop(self, tokens: Tokens) -> Tokens:
        """Drop the sources instead of merging them; the same order."""
        places = _places(tokens.lengths[0], 0, self.unmerged.shape[1], tokens.index.device)
        stay = self._stay(places, self.order * 2)
        return tokens.take(tokens.rows_of(stay), (stay.shape[1],) * stay.shape[0])

    def _stay(self, places: "_Places", even: Tensor) -> Tensor:
        """Positions of the tokens that are merged into no other, in the new order."""
        front, odd = (each.expand(len(even), -1) for each in (places.front, places.odd))
        return torch.cat([front, even[:, self.partner.shape[1] :], odd], dim=1)


class _Places(NamedTuple):
    """What is the same in all merges of so many tokens, int64.

    `front`: positions of the protected tokens, and `odd` of those that others are merged into; `into`: the new position
    of all these; `first`: the new positions of even tokens that stay.
    """

    front: Tensor
    odd: Tensor
    into: Tensor
    first: Tensor


@kept
def _places(length: int, protected: int, rest: int, device: torch.device) -> _Places:
    position = torch.arange(length, device=device)
    front, odd = position[:protected], position[protected + 1 :: 2]
    into = torch.cat([front, protected + rest + position[: length - protected] // 2])
    return _Places(front, odd, into, protected + torch.arange(rest, device=device))


def bipartite(metric: Tensor, r: int, spared: int = 0, in_order: bool = False) -> Match:
    """Match the tokens of `metric` `[B, n, D]` (unit length) and pick the `r` most similar pairs, r <= n // 2.

    Ties: the lower position first. `spared`, `in_order`: see `ranked`.
    """
    return ranked(metric[:, 0::2] @ metric[:, 1::2].transpose(-2, -1), r, spared, in_order)


def ranked(similarity: Tensor, r: int, spared: int = 0, in_order: bool = False) -> Match:
    """Pick the `r` best pairs from `similarity` `[B, ceil(n/2), floor(n/2)]` of even with odd tokens.

    With `spared` 1 the first token, a class token, is merged into no other, and what is left of the even ones stays in
    its order, so that it stays first; r <= (n - 1) // 2 then. With `in_order` it does so without a class token too.
    """
    best, partner = similarity.max(dim=-1)
    if spared:
        best = torch.cat([best.new_full((len(best), 1), -torch.inf), best[:, 1:]], dim=1)
    order = best.argsort(dim=-1, descending=True, stable=True)
    source = order[:, :r]
    if spared or in_order:
        order = torch.cat([source, order[:, r:].sort(dim=1).values], dim=1)
    return Match(best, order, partner.gather(1, source))


def matching_macs(tokens: int, width: int) -> int:
    """Multiply-accumulates of `bipartite` for one clip."""
    return (tokens + 1) // 2 * (tokens // 2) * width


def unit(x: Tensor) -> Tensor:
    """Divide vectors `[..., D]` by their L2 norm; in float32 at least, since cosines of neighbours are nearly equal."""
    x = precise(x)
    return x / x.norm(dim=-1, keepdim=True)
