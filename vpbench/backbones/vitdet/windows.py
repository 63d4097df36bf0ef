"""How a square grid of tokens is cut into square windows, and which tokens of a frame ask questions in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor

from vpbench.api.contexts import plain
from vpbench.api.tokens import on_device


@dataclass(frozen=True)
class Queries:
    """Tokens of B segments that go on in a frame, R in all, by their places in windows of V positions.

    `rows [R]`: place among the positions of all windows, one window after the other. `y`, `x [R]`: place inside the
    window. `windows [A]`: the windows that hold any of them (None: all). `longest`: queries that each of these has room
    for, M. `slots [R]`: place among the A x M queries (None: they fill them in order).
    """

    #: see `measure.stages`
    timed_as: ClassVar[Mapping[str, str]] = {"spread": "gather", "packed": "gather"}

    rows: Tensor
    y: Tensor
    x: Tensor
    windows: Tensor | None
    longest: int
    slots: Tensor | None
    count: int

    @property
    def empty(self) -> int:
        """Places for queries that no token fills."""
        return self.count * self.longest - len(self.rows)

    def spread(self, packed: Tensor) -> Tensor:
        """Bring `[R, ...]` into windows `[A, M, ...]`; what no token fills is zero."""
        if self.slots is not None:
            blank = packed.new_zeros(self.count * self.longest, *packed.shape[1:])
            packed = blank.index_copy_(0, self.slots, packed)
        return packed.view(self.count, self.longest, *packed.shape[1:])

    def packed(self, spread: Tensor) -> Tensor:
        """Undo `spread`."""
        flat = spread.flatten(0, 1)
        return flat if self.slots is None else flat[self.slots]


@dataclass(frozen=True)
class SquareWindows:
    """A grid of `grid` x `grid` tokens in windows of `size` x `size`, padded on its far sides to whole ones."""

    #: see `measure.stages`
    timed_as: ClassVar[Mapping[str, str]] = {"queries": "gather", "every": "gather"}

    grid: int
    size: int

    @property
    def count(self) -> int:
        """Windows of a segment."""
        return (-(-self.grid // self.size)) ** 2

    @property
    def volume(self) -> int:
        """Positions of a window."""
        return self.size**2

    @property
    def padding(self) -> int:
        """Positions of a segment's windows that hold no token."""
        return self.count * self.volume - self.grid**2

    def queries(self, kept: Tensor) -> Queries:
        """Place the tokens `kept` `[B, K]` (int64, no token twice) of each segment in windows."""
        batch, each = kept.shape
        row, y, x = (table[kept].flatten() for table in _places(self, kept.device))
        rows = row + _starts(batch, self.count * self.volume, kept.device).repeat_interleave(each)
        if self.count == 1:
            return Queries(rows, y, x, None, each, None, batch)
        return Queries(rows, y, x, *_compact(rows // self.volume, batch * self.count))

    def every(self, batch: int, device: torch.device) -> Queries:
        """Place all tokens of `batch` segments in windows, without a look at the numbers: nothing waits for a GPU."""
        row, y, x = _places(self, device)
        rows = (row + _starts(batch, self.count * self.volume, device)[:, None]).flatten()
        count = batch * self.count
        return Queries(
            rows, y.repeat(batch), x.repeat(batch), None, self.volume, None if count == batch else rows, count
        )


def _compact(window: Tensor, windows: int) -> tuple[Tensor | None, int, Tensor, int]:
    """Number queries inside the windows `[R]` that they are in; returns the last four fields of `Queries`.

    Asks the device once, how many there are in each.
    """
    counts: list[int] = window.new_zeros(windows).scatter_add_(0, window, torch.ones_like(window)).tolist()
    held = [number for number, count in enumerate(counts) if count]
    longest = max(counts)
    place = {number: place * longest for place, number in enumerate(held)}
    # where a window's queries begin, among all of them and among the places for them
    first = on_device(tuple(accumulate(counts, initial=0))[:-1], window.device)
    room = on_device(tuple(place.get(number, 0) for number in range(windows)), window.device)
    order = window.argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device) - first[window[order]]
    kept = on_device(tuple(held), window.device) if len(held) < windows else None
    return kept, longest, room[window] + rank, len(held)


def _starts(batch: int, length: int, device: torch.device) -> Tensor:
    return torch.arange(0, batch * length, length, device=device)


@lru_cache(maxsize=16)
@plain()
def _places(windows: SquareWindows, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each token of a segment, its row among all windows' positions, and y and x inside its window."""
    side, size = windows.grid, windows.size
    token = torch.arange(side * side)
    y, x = token // side, token % side
    window = (y // size) * -(-side // size) + x // size
    rows = (window * size + y % size) * size + x % size
    return rows.to(device), (y % size).to(device), (x % size).to(device)
