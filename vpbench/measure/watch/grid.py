"""Follow tokens through a backbone whose tokens form a grid."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vpbench.api import ClipBatch, Grid, GridBackbone
from vpbench.errors import UsageError
from vpbench.measure.watch.base import Watch, at
from vpbench.measure.watch.followed import Moves


class GridWatch(Watch):
    """A backbone whose tokens form a grid; `place [N]`: where each dense token's stands on it now, -1 if dropped."""

    own = ("stage",)

    def __init__(self, backbone: GridBackbone, batch: ClipBatch) -> None:
        super().__init__(backbone, batch)
        if backbone.sites != backbone.depth:
            self.unit = "stage"
        self.grid: Grid | None = None
        self.place = torch.zeros(0, dtype=torch.int64)
        self.moves: Moves | None = None

    def stage(self, asked: Callable[[int, Tensor], Tensor], block: int, x: Tensor) -> Tensor:
        """Stand in for the method's own: repeat on numbers how it moves tokens."""
        entering = Grid(*x.shape[1:4])
        if self.grid is None:
            self.grid, self.place = self.home.grid, self.home.place
        self._pool(entering)
        ids = torch.arange(entering.tokens, device=x.device).view(1, *x.shape[1:4], 1).expand_as(x).contiguous()
        with Moves(x, ids) as self.moves:
            result = asked(block, x)
        if result is x:
            return result
        came = self.moves.of(result)
        if came is None:
            raise UsageError("it makes tokens of its own, of which nobody knows where they lie in the clip")
        kept = came[0, ..., 0].flatten()
        now = kept.new_full((entering.tokens + 1,), -1)
        now[kept] = torch.arange(len(kept), device=kept.device)
        self.place, self.grid = now[self.place], Grid(*result.shape[1:4])
        whole = torch.ones_like(self.place, dtype=torch.bool)
        self.see(block, whole, torch.where(self.place >= 0, self.home.named(self.home.place), -1))
        return result

    def _pool(self, entering: Grid) -> None:
        """Follow what the network itself did since the last site: it may have pooled the grid by whole strides."""
        grid = self.grid
        assert grid is not None, "there is one from the first site on"
        slot, row, col = self.place // grid.per_slot, self.place // grid.cols % grid.rows, self.place % grid.cols
        pairs = ((grid.slots, entering.slots), (grid.rows, entering.rows), (grid.cols, entering.cols))
        strides = [-(-old // new) for old, new in pairs]
        moved = (slot // strides[0] * entering.rows + row // strides[1]) * entering.cols + col // strides[2]
        self.place, self.grid = torch.where(self.place >= 0, moved, -1), entering

    def rated(self, value: Tensor) -> Tensor | None:
        """Take one value for each slice, or for each token, of what the method looks at."""
        if self.moves is None:
            return None
        ids = self.moves.latest[0, ..., 0]
        flat = value.flatten()
        if len(flat) == len(ids):  # one value for each slice
            flat = flat[:, None].expand(-1, ids[0].numel()).flatten()
        if len(flat) != ids.numel():
            return None
        assert self.grid is not None, "there is one from the first site on"
        every = flat.new_full((self.grid.tokens,), math.nan)
        every[ids.flatten()] = flat
        return at(every, self.place)
