"""Bipartite soft matching: which tokens merge into which (ToMe, arXiv 2210.09461)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.api.contexts import precise
from vpbench.api.tokens import Tokens


@dataclass(frozen=True)
class Match:
    """Tokens of each clip split by position: even ones (A) look for their most similar odd one (B).

    `best [B, ceil(n/2)]` is the similarity found. Ranked by it, the first r of A are `source [B, r]`, merged into
    their `partner [B, r]` of B; the others stay as `unmerged [B, ceil(n/2)-r]`. Indices count within A and B.
    """

    best: Tensor
    source: Tensor
    partner: Tensor
    unmerged: Tensor

    def merge(self, tokens: Tokens, weight: Tensor | None = None, protected: int = 0) -> Tokens:
        """Merge sources into partners; new order: unmerged, then all of B.

        The first `protected` tokens of each clip took no part in the matching and stay in front. weight `[S]`: what
        each token brings, see `Tokens.merge`.
        """
        batch, rest = self.unmerged.shape
        stay = self._stay(tokens, protected)
        into = torch.empty_like(tokens.index).view(batch, -1)
        into.scatter_(1, stay, torch.arange(stay.shape[1], device=into.device).expand(batch, -1))
        into.scatter_(1, protected + 2 * self.source, protected + rest + self.partner)
        into += torch.arange(batch, device=into.device)[:, None] * stay.shape[1]
        return tokens.merge(into.flatten(), tokens.rows_of(stay), (stay.shape[1],) * batch, weight)

    def drop(self, tokens: Tokens) -> Tokens:
        """Drop the sources instead of merging them; the same order."""
        stay = self._stay(tokens, 0)
        return tokens.take(tokens.rows_of(stay), (stay.shape[1],) * stay.shape[0])

    def _stay(self, tokens: Tokens, protected: int) -> Tensor:
        """Positions of the tokens that are merged into no other, in the new order."""
        batch, device = len(tokens.lengths), tokens.index.device
        first = torch.arange(protected, device=device).expand(batch, -1)
        odd = torch.arange(protected + 1, tokens.lengths[0], 2, device=device).expand(batch, -1)
        return torch.cat([first, protected + 2 * self.unmerged, odd], dim=1)


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
    source, unmerged = order[:, :r], order[:, r:]
    unmerged = unmerged.sort(dim=1).values if spared or in_order else unmerged
    return Match(best, source, partner.gather(1, source), unmerged)


def matching_macs(tokens: int, width: int) -> int:
    """Multiply-accumulates of `bipartite` for one clip."""
    return (tokens + 1) // 2 * (tokens // 2) * width


def unit(x: Tensor) -> Tensor:
    """Divide vectors `[..., D]` by their L2 norm; in float32 at least, since cosines of neighbours are nearly equal."""
    x = precise(x)
    return x / x.norm(dim=-1, keepdim=True)
