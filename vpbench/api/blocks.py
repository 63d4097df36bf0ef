"""A transformer block by its parts, for methods that run it themselves: what a backbone shows, and what they return."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class BlockParts(Protocol):
    """A pre-norm block `x + projection(attention(qkv(norm1(x))))`, then `x + mlp(norm2(x))`.

    What works on tokens alone takes any of them as rows `[R, D]`.
    """

    @property
    def norm1(self) -> Callable[[Tensor], Tensor]:
        """The norm before attention."""

    @property
    def norm2(self) -> Callable[[Tensor], Tensor]:
        """The norm before the MLP."""

    @property
    def heads(self) -> int:
        """Attention heads."""

    @property
    def hidden(self) -> int:
        """Width of the layer inside the MLP."""

    @property
    def everywhere(self) -> bool:
        """Whether attention is among all tokens; else it is inside windows."""

    def qkv(self, normed: Tensor) -> Tensor:
        """Return queries, keys and values `[R, 3 D]` of normed tokens."""

    def attention(self, projected: Tensor) -> Tensor:
        """Return what a dense forward's attention makes of all tokens, `[B, N, 3 D]` from `qkv` to `[B, N, D]`."""

    def projection(self, attended: Tensor) -> Tensor:
        """Return what the layer after attention makes of tokens `[R, D]`, without the residual."""

    def feed_forward(self, normed: Tensor) -> Tensor:
        """Return what the MLP makes of normed tokens `[R, D]`, without the residual."""

    def tables(self) -> tuple[Tensor, Tensor] | None:
        """Return the relative positions of rows and columns of a square grid `[side, side, D / heads]`, query by key.

        None where attention has none.
        """

    def attention_macs(self, tokens: int) -> int:
        """Multiply-accumulates of `attention` on one item of so many tokens, relative positions included."""

    def attention_counts(self, tokens: int) -> Mapping[str, int]:
        """Return by kind what RGTP's way of counting (ICIP 2025) sees in attention among so many tokens."""


@dataclass(frozen=True)
class Ran:
    """What came of a block that a method ran: the stream `x [B, N, D]`, and what each of B items took.

    `attention`, `mlp`: tokens for which queries, keys and values were computed, and which passed the MLP; `macs`: its
    multiply-accumulates in closed form; `published`: the same in RGTP's way of counting.
    """

    x: Tensor
    attention: tuple[int, ...]
    mlp: tuple[int, ...]
    macs: tuple[int, ...]
    published: tuple[int, ...]
