"""Bipartite soft matching: which tokens merge into which (ToMe, arXiv 2210.09461)."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from vpbench.api.contexts import kept, precise
from vpbench.api.tokens import Tokens, starts_of


@dataclass(frozen=True)
class Match:
    """Tokens of each clip split by position: even ones (A) look for their most similar odd one (B).

    `best [B, ceil(n/2)]` is the similarity found, with `partners [B, ceil(n/2)]` of B. Ranked by it (`order [B,
    ceil(n/2)]`), the first `r` of A are `source [B, r]`, merged into their `partner [B, r]`; the others stay as
    `unmerged [B, ceil(n/2)-r]`. Indices count within A and B.
    """

    best: Tensor
    partners: Tensor
    order: Tensor
    r: int

    @property
    def source(self) -> Tensor:
        """Even tokens that are merged, the most similar first."""
        return self.order[:, : self.r]

    @property
    def partner(self) -> Tensor:
        """What each source is merged into."""
        return self.partners.gather(1, self.source)

    @property
    def unmerged(self) -> Tensor:
        """Even tokens that stay, as they come to lie."""
        return self.order[:, self.r :]

    def merge(self, tokens: Tokens, weight: Tensor | None = None, protected: int = 0) -> Tokens:
        """Merge sources into partners; new order: unmerged, then all of B.

        The last `protected` tokens of each clip took no part in the matching and come to lie in front. weight `[S]`:
        what each token brings, see `Tokens.merge`.
        """
        (batch, rest), length = self.unmerged.shape, tokens.lengths[0]
        places = _places(batch, length, protected, rest, self.r, tokens.x.device)
        into = places.into.clone()
        even = into[:, : length - protected : 2]
        even += self.partners
        even.scatter_(1, self.unmerged, places.unmerged)
        heads = partial(self._heads, tokens, protected)
        return tokens.merge(into.flatten(), heads, (length - self.r,) * batch, weight)

    def drop(self, tokens: Tokens) -> Tokens:
        """Drop the sources instead of merging them; the same order."""
        return tokens.take(self._heads(tokens, 0), (tokens.lengths[0] - self.r,) * len(self.order))

    def _heads(self, tokens: Tokens, protected: int) -> Tensor:
        """Packed rows of the tokens that are merged into no other, in the new order."""
        length = tokens.lengths[0]
        position = torch.arange(length, device=self.order.device).expand(len(self.order), -1)
        odd = position[:, 1 : length - protected : 2]
        return tokens.rows_of(torch.cat([position[:, length - protected :], 2 * self.unmerged, odd], dim=1))


class _Places(NamedTuple):
    """What is the same in all merges of so many tokens, int64.

    `into` `[B, n]`: new packed rows of all tokens, of even ones that of the first odd one; `unmerged`: those of the
    even ones that stay.
    """

    into: Tensor
    unmerged: Tensor


@kept
def _places(batch: int, length: int, protected: int, rest: int, r: int, device: torch.device) -> _Places:
    position = torch.arange(length - protected, device=device)
    matched = torch.where(position % 2 == 0, 0, position // 2) + protected + rest
    first = starts_of(batch, length - r, device)
    into = torch.cat([matched, torch.arange(protected, device=device)])
    return _Places(first + into, first + protected + torch.arange(rest, device=device))


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
        best[:, 0] = -torch.inf
    order = best.argsort(dim=-1, descending=True, stable=True)
    if spared or in_order:
        order = torch.cat([order[:, :r], order[:, r:].sort(dim=1).values], dim=1)
    return Match(best, partner, order, r)


def matching_macs(tokens: int, width: int) -> int:
    """Multiply-accumulates of `bipartite` for one clip."""
    return (tokens + 1) // 2 * (tokens // 2) * width


def unit(x: Tensor) -> Tensor:
    """Divide vectors `[..., D]` by their L2 norm; in float32 at least, since cosines of neighbours are nearly equal."""
    x = precise(x)
    return x / x.norm(dim=-1, keepdim=True)
