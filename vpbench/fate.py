"""What became of the tokens of a clip: which token stands for each of them, stage after stage. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

#: stands for a token that no other one stands for
DROPPED = -1
#: names of the stages before a network: fewer or smaller frames, and tokens that never enter
PIXELS, INPUT = "pixels", "input"


@dataclass(frozen=True)
class Stage:
    """The tokens after one reduction: `token [N]` is, for each token of the dense clip, the id of the one that stands
    for it: its own while it is kept, another's once it is merged, `DROPPED` once it is gone.
    """

    name: str
    token: Ints


@dataclass(frozen=True)
class Fate:
    """What became of the N tokens of one clip, stage after stage; the last stage is how it ended.

    `grid`: slots, rows and columns of the dense clip; the id of a token is `(slot * rows + row) * columns + column`.
    `tubelet`: the frames, height and width in pixels that a token is made of. A network that pools its own tokens does
    so without any method as well: that neither drops nor merges a token here. Where a method leaves fewer or smaller
    frames, dense tokens share one from the stage `PIXELS` on, though no tokens were merged. Raises ValueError for
    arrays that do not fit the grid.
    """

    clip_id: str
    grid: tuple[int, int, int]
    tubelet: tuple[int, int, int]
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError(f"{self.clip_id}: a fate has at least one stage")
        for stage in self.stages:
            token = stage.token
            if token.shape != (self.tokens,) or token.min() < DROPPED or token.max() >= self.tokens:
                raise ValueError(f"{self.clip_id}, {stage.name}: need {self.tokens} ids from {DROPPED} on below that")

    @property
    def tokens(self) -> int:
        """Tokens of the dense clip."""
        slots, rows, columns = self.grid
        return slots * rows * columns

    @property
    def final(self) -> Ints:
        """The last stage's ids, `[N]`."""
        return self.stages[-1].token

    def left(self, stage: int = -1) -> int:
        """Return how many tokens are left after a stage, merged ones as one."""
        token = self.stages[stage].token
        return len(np.unique(token[token != DROPPED]))

    def sizes(self, stage: int = -1) -> Ints:
        """Return for each dense token how many of them share the one that stands for it, `[N]`; 0 for dropped ones."""
        token = self.stages[stage].token
        there = token != DROPPED
        shared = np.bincount(token[there], minlength=self.tokens)
        return np.where(there, shared[token], 0).astype(np.int32)


def whole(clip_id: str, grid: tuple[int, int, int], tubelet: tuple[int, int, int]) -> Fate:
    """Return the fate of a clip that keeps all of its tokens."""
    tokens = grid[0] * grid[1] * grid[2]
    return Fate(clip_id, grid, tubelet, (Stage(INPUT, np.arange(tokens, dtype=np.int32)),))
