"""Attention rollout of one output row, evaluated from the last block to the first without multiplying whole maps.

A block mixes its input tokens by `a = (A + I) / 2` with every row divided by its sum, where A is the attention fused
over heads. Rollout is the product of these maps, last block leftmost (Abnar & Zuidema, arXiv 2005.00928); RGTP (ICIP
2025) reads a single row of it, and a row through a product is a vector through its factors.
"""

from collections.abc import Iterable

from torch import Tensor


def through(row: Tensor, fused: Tensor) -> Tensor:
    """Take `row` `[B, N]` back through one block of fused attention `[B, N, N]`: `row . a`, as `[B, N]`."""
    fused = fused.to(row.dtype)  # maps may be in half precision, in which a dozen blocks would blur the row
    weight = row / (fused.sum(dim=-1) + 1)
    return (weight[:, None] @ fused)[:, 0] + weight


def rollout(row: Tensor, maps: Iterable[Tensor]) -> Tensor:
    """Return `row . a_last ... a_first` `[B, N]`; `maps` are fused attention `[B, N, N]`, the last block first."""
    for fused in maps:
        row = through(row, fused)
    return row


def normalised(scores: Tensor) -> Tensor:
    """Divide each row of `scores` `[B, N]` by its sum: a heat map."""
    return scores / scores.sum(dim=-1, keepdim=True)
