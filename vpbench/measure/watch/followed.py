"""Tokens that remember where they came from, and tensors of which is known where their entries went."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vpbench.api import Tokens


@dataclass(frozen=True)
class Followed(Tokens):
    """Tokens that are followed: `row [N]` is the packed row of the token that stands for each of N first ones, or -1.

    Whatever a method does by the operations of `Tokens` carries `row` along.
    """

    row: Tensor = field(kw_only=True)

    def take(self, rows: Tensor, lengths: tuple[int, ...]) -> Tokens:
        """Keep packed rows; those that stay out stand for nothing."""
        now = self._nowhere()
        now[rows] = torch.arange(len(rows), device=now.device)
        return self._as(super().take(rows, lengths), now)

    def keep(self, local: Tensor) -> Tokens:
        """Keep positions inside clips, as `take` does."""
        return self.take(self.rows_of(local), (local.shape[1],) * len(local))

    def merge(
        self, into: Tensor, heads: Tensor | Callable[[], Tensor], lengths: tuple[int, ...], weight: Tensor | None = None
    ) -> Tokens:
        """Merge tokens; one that brings no weight is gone."""
        now = self._nowhere()
        now[:-1] = into if weight is None else into.masked_fill(weight == 0, -1)
        return self._as(super().merge(into, heads, lengths, weight), now)

    def found_again(self, tokens: Tokens, ours: Tensor, theirs: Tensor) -> "Followed":
        """Return `tokens`, made by other means than the operations, as followed: known by their places.

        ours, theirs: place on the grid of the rows of self and of `tokens`, -1 for class tokens.
        """
        now = self._nowhere()
        same = (ours[:, None] == theirs) & (ours[:, None] >= 0)
        there = same.any(dim=1)
        now[:-1][there] = same[there].int().argmax(dim=1)
        return self._as(tokens, now)

    def _nowhere(self) -> Tensor:
        """Return a map of rows that all lead nowhere; -1, the last one, always does."""
        return self.row.new_full((len(self.index) + 1,), -1)

    def _as(self, tokens: Tokens, now: Tensor) -> "Followed":
        return Followed(tokens.x, tokens.index, tokens.lengths, tokens.size, row=now[self.row])


def follow(tokens: Tokens, row: Tensor) -> Followed:
    """Begin to follow tokens; row: see `Followed`."""
    return Followed(tokens.x, tokens.index, tokens.lengths, tokens.size, row=row)


#: operations that move entries about and change none
_MOVES = frozenset([
    *(getattr(torch.Tensor, name) for name in ("__getitem__", "view", "expand", "contiguous")),
    *(
        getattr(where, name) for where in (torch.Tensor, torch) for name in (
            "gather", "index_select", "take_along_dim", "reshape", "flatten", "unflatten", "permute", "transpose",
            "narrow", "flip", "squeeze", "unsqueeze",
        )
    ),
])  # fmt: skip


class Moves(TorchFunctionMode):
    """While it is entered, repeats on `ids` every move of the entries of `x`, and of what came of it; same shapes.

    What is computed from entries instead of moved is not followed any further.
    """

    def __init__(self, x: Tensor, ids: Tensor) -> None:
        super().__init__()
        # tensors are kept with their ids, or Python would give their addresses away
        self._known = {id(x): (x, ids)}
        #: ids of what was moved last into a shape of as many axes as x has
        self.latest = ids

    def of(self, x: Tensor) -> Tensor | None:
        """Return where each entry of a tensor came from, or None if that is not known."""
        found = self._known.get(id(x))
        return None if found is None else found[1]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _MOVES and id(args[0]) in self._known:
            ids = func(self._known[id(args[0])][1], *args[1:], **(kwargs or {}))
            self._known[id(result)] = result, ids
            if ids.ndim == self.latest.ndim:
                self.latest = ids
        return result
