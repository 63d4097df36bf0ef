"""The packed token stream: the tokens of all clips of a batch one after another, never padded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Token grid of one clip: slots in time, rows, columns; position of a token: `(t*rows + r)*cols + c`."""

    slots: int
    rows: int
    cols: int

    @property
    def per_slot(self) -> int:
        """Tokens of one temporal slot."""
        return self.rows * self.cols

    @property
    def tokens(self) -> int:
        """Tokens of a dense clip."""
        return self.slots * self.per_slot


@dataclass(frozen=True)
class Selection:
    """Which grid positions each clip of a batch keeps, packed clip after clip.

    `index` is int64 `[S]`, ascending inside each clip; `lengths` are host integers that sum to S, so nothing
    that follows has to ask the device how many tokens there are.
    """

    index: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def from_mask(cls, mask: Tensor) -> Selection:
        """Keep the positions where `mask` (bool `[B, N]`) is true."""
        lengths = tuple(mask.sum(dim=1).tolist())
        return cls(mask.nonzero()[:, 1], lengths)

    @classmethod
    def top(cls, scores: Tensor, count: int) -> Selection:
        """Keep the `count` highest of `scores` (`[B, N]`) in each clip; equal scores: the lower position first."""
        order = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
        return cls(order.sort(dim=1).values.flatten(), (count,) * scores.shape[0])

    @classmethod
    def everything(cls, batch: int, tokens: int, device: torch.device) -> Selection:
        """Keep all `tokens` positions of all `batch` clips."""
        return cls(torch.arange(tokens, device=device).repeat(batch), (tokens,) * batch)


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch: `x [S, D]`, the grid position `index [S]` of each, and the tokens per clip `lengths`.

    `size [S]` says how many original tokens each one stands for, where a method merges; None means one each.
    """

    x: Tensor
    index: Tensor
    lengths: tuple[int, ...]
    size: Tensor | None = None

    @property
    def uniform(self) -> bool:
        """Whether all clips have the same number of tokens, so that `[S, D]` is a `[B, N, D]` in disguise."""
        return len(set(self.lengths)) == 1

    def with_x(self, x: Tensor) -> Tokens:
        """Return the same tokens with other features `[S, D]`."""
        return replace(self, x=x)

    def take(self, rows: Tensor, lengths: tuple[int, ...]) -> Tokens:
        """Keep the packed rows `rows` (int64, in the new order), `lengths[b]` of them from clip b."""
        size = None if self.size is None else self.size[rows]
        return Tokens(self.x[rows], self.index[rows], lengths, size)

    def mean(self) -> Tensor:
        """Return `[B, D]`, the mean over each clip's tokens, weighted by `size` where tokens were merged."""
        if self.size is not None:
            weighted = (self.x * self.size[:, None], self.size)
            return torch.stack([x.sum(0) / s.sum() for x, s in zip(*(self.split(t) for t in weighted), strict=True)])
        if self.uniform:
            return self.x.view(len(self.lengths), -1, self.x.shape[1]).mean(dim=1)
        return torch.stack([x.mean(dim=0) for x in self.split(self.x)])

    def split(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Cut a packed `[S, ...]` tensor into one view per clip."""
        return packed.split(self.lengths)
