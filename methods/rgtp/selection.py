"""Which tokens a step keeps: by score, split into foreground and background, or by a fixed pattern."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.api import kept, moved

#: fixed patterns: every so many columns and rows, or a checkerboard
PATTERNS = ("1in2", "1in4", "1in9")


@dataclass(frozen=True)
class Split:
    """How scores become a set (RGTP, ICIP 2025).

    The best `round(keep_ratio * N)` tokens are foreground; of them every `round(1 / fg_ratio)`-th is kept in order of
    rank, and of the others every `round(1 / bg_ratio)`-th in order of position, none at `bg_ratio` 0. Rounding is to
    even at halves; equal scores: the lower position first.
    """

    keep_ratio: float
    fg_ratio: float = 1.0
    bg_ratio: float = 0.0

    def count(self, tokens: int) -> int:
        """Return how many of `tokens` are kept."""
        fg, bg = self._kept(tokens)
        return int(fg.sum() + bg.sum())

    def __call__(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return kept and dropped positions, int64 `[B, K]` and `[B, N-K]`, of `scores` `[B, N]`.

        Each is foreground in order of rank, then background in order of position.
        """
        tokens = scores.shape[1]
        front = len(self._kept(tokens)[0])
        order = scores.argsort(dim=1, descending=True, stable=True)
        order = torch.cat([order[:, :front], order[:, front:].sort(dim=1).values], dim=1)
        if self.fg_ratio == 1 and not self.bg_ratio:
            return order[:, :front], order[:, front:]
        kept, dropped = _places(self, tokens, scores.device)
        return order[:, kept], order[:, dropped]

    def _kept(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Return, on the host, which ranks of the foreground and which places of the background are kept."""
        front = round(self.keep_ratio * tokens)
        fg = torch.arange(front, device="cpu") % round(1 / self.fg_ratio) == 0
        places = torch.arange(tokens - front, device="cpu")
        return fg, places % round(1 / self.bg_ratio) == 0 if self.bg_ratio else places < 0


@kept
def _places(split: Split, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return which places of foreground and background are kept, and which are not; no device is asked how many."""
    mask = torch.cat(split._kept(tokens))
    return _split(mask, device)


@kept
def pattern(name: str, rows: int, cols: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return kept and dropped positions of a fixed pattern, int64, ascending; `name` is one of `PATTERNS`."""
    y, x = torch.meshgrid(*(torch.arange(n, device="cpu") for n in (rows, cols)), indexing="ij")
    side = {"1in4": 2, "1in9": 3}.get(name)
    mask = ((x + y) % 2 == 0 if side is None else (x % side == 0) & (y % side == 0)).flatten()
    return _split(mask, device or mask.device)


def _split(mask: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where a mask of the host is true and where it is not, on the device."""
    return moved(torch.nonzero(mask)[:, 0], device), moved(torch.nonzero(~mask)[:, 0], device)
