"""Token gates with references and buffers: only tokens that moved away from what was last used are computed anew."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.api import Selection, precise

#: a change of so many roundings of a token counts as none: they would break the ties of still areas at random
ROUNDINGS = 64


def changes(seen: Tensor, reference: Tensor) -> Tensor:
    """Return how far tokens `[B, N, C]` are from their references, `[B, N]`: the Euclidean norm of the difference."""
    seen = precise(seen)
    change, size = (torch.linalg.vector_norm(each, dim=-1) for each in (seen - precise(reference), seen))
    return torch.where(change > ROUNDINGS * torch.finfo(seen.dtype).eps * size, change, 0)


def rows(selection: Selection, tokens: int) -> Tensor:
    """Return the packed rows `[R]` of a selection among items of so many tokens."""
    return selection.clip * tokens + selection.index


@dataclass
class Pair:
    """A gate and the buffer behind it: what of each token was last used `[B, N, C]`, and what came of it `[B, N, E]`.

    Both are empty until the first frame, which passes whole.
    """

    reference: Tensor | None = None
    buffer: Tensor | None = None

    def narrow(self, batch: int) -> None:
        """Go on with the first `batch` items."""
        if self.reference is not None and self.buffer is not None:
            self.reference, self.buffer = self.reference[:batch], self.buffer[:batch]

    def flush(self, seen: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        """Pass all tokens `seen` `[B, N, C]` to a part of the block; returns what comes of them, `[B, N, E]`."""
        self.reference, self.buffer = seen, part(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        return self.buffer

    def restore(self, at: Tensor, used: Tensor, made: Tensor) -> Tensor:
        """Write down what was used of some tokens `[R, C]` and made of them `[R, E]`; returns all of the buffer."""
        assert self.reference is not None
        assert self.buffer is not None
        self.reference.flatten(0, 1).index_copy_(0, at, used)
        self.buffer.flatten(0, 1).index_copy_(0, at, made)
        return self.buffer
