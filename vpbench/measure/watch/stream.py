"""Follow tokens through a backbone with a plain stream of them, of the whole clip or of each of its steps."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vpbench.api import Classifier, ClipBatch, Selection, Tokens, Trace
from vpbench.errors import UsageError
from vpbench.measure.watch.base import INPUT_STAGE, Watch, at
from vpbench.measure.watch.followed import Followed, follow


class StreamWatch(Watch):
    """A backbone with a plain stream of tokens, of the whole clip or of each of its steps."""

    #: the choice before the network, waves of steps, and both sites of every block
    own = ("video", "waves", "after_attention", "after_block")

    def __init__(self, backbone: Classifier, batch: ClipBatch) -> None:
        super().__init__(backbone, batch)
        self.stepwise = backbone.flow == "steps"
        self.waves_left: list[Sequence[int]] = []
        #: first place on the grid of each sequence that runs now, and the dense tokens that are in one of them
        self.starts = torch.zeros(1, dtype=torch.int64)
        self.mine = torch.zeros(0, dtype=torch.bool)
        self.given: Followed | None = None

    def video(self, asked: Callable[[ClipBatch], Selection | None], batch: ClipBatch) -> Selection | None:
        """Stand in for the method's own: see which tubelets enter."""
        chosen = asked(batch)
        if chosen is not None:
            place = self.home.place
            kept = torch.where(torch.isin(place, chosen.index), place, -1)
            self.see(INPUT_STAGE, torch.ones_like(place, dtype=torch.bool), self.home.named(kept))
        return chosen

    def waves(self, asked: Callable[[int], Sequence[Sequence[int]]], steps: int) -> Sequence[Sequence[int]]:
        """Stand in for the method's own: know which steps run next."""
        found = [list(wave) for wave in asked(steps)]
        self.waves_left = list(found)
        return found

    def after_attention(self, asked: Callable[..., Tokens], layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        """Stand in for the method's own: give it tokens that are followed."""
        given = self._begin(tokens) if layer == 0 else self._followed(tokens)
        return self._reduced(layer, given, lambda: asked(layer, given, trace))

    def after_block(self, asked: Callable[..., Tokens], layer: int, tokens: Tokens) -> Tokens:
        """Do as `after_attention`."""
        given = self._followed(tokens)
        return self._reduced(layer, given, lambda: asked(layer, given))

    def _reduced(self, layer: int, given: Followed, ask: Callable[[], Tokens]) -> Tokens:
        self.given = given
        result = ask()
        self.given = None
        if result is given:
            return result
        if not isinstance(result, Followed):
            result = given.found_again(result, self._places(given), self._places(result))
        self.see(layer, self.mine, self.home.named(at(self._places(result), result.row, -1)))
        return result

    def _begin(self, tokens: Tokens) -> Followed:
        """Follow the tokens of the sequences that begin now: the clip, or the steps of the next wave."""
        grid, place = self.home.grid, self.home.place
        slots = self.waves_left.pop(0) if self.stepwise else [0]
        self.starts = torch.tensor(slots, device=place.device) * grid.per_slot
        there = torch.tensor(slots, device=place.device) if self.stepwise else torch.arange(grid.slots).to(place.device)
        self.mine = torch.isin(place // grid.per_slot, there) & (place >= 0)
        lies = self._places(tokens)
        rows = lies.new_full((grid.tokens,), -1)
        rows[lies[lies >= 0]] = torch.arange(len(lies), device=lies.device)[lies >= 0]
        return follow(tokens, torch.where(self.mine, rows[place.clamp(min=0)], -1))

    def _followed(self, tokens: Tokens) -> Followed:
        if not isinstance(tokens, Followed):
            raise UsageError("the backbone made tokens of its own between two blocks, which cannot be followed")
        return tokens

    def _places(self, tokens: Tokens) -> Tensor:
        """Return where each packed row lies on the grid; class tokens, which lie nowhere, are -1."""
        lengths = torch.tensor(tokens.lengths, device=tokens.index.device)
        return torch.where(tokens.index >= 0, tokens.index + self.starts.repeat_interleave(lengths), -1)

    def rated(self, value: Tensor) -> Tensor | None:
        """Take one value for each tubelet or token, for all but those of the first slot, or for every second token."""
        flat, grid = value.flatten(), self.home.grid
        if self.given is None:  # before the network: by place, all of them or all but those of the first slot
            missing = grid.tokens - len(flat)
            known = missing in (0, grid.per_slot)
            return at(torch.cat([flat.new_full((missing,), math.nan), flat]), self.home.place) if known else None
        lengths, rows = self.given.lengths, len(self.given.index)
        if len(flat) == rows:
            return at(flat, self.given.row)
        if len(flat) == sum((length + 1) // 2 for length in lengths):  # of every second token, as matching rates them
            every = flat.new_full((rows,), math.nan)
            ends = np.cumsum(lengths)
            even = np.concatenate([np.arange(end - length, end, 2) for end, length in zip(ends, lengths, strict=True)])
            every[torch.from_numpy(even).to(flat.device)] = flat
            return at(every, self.given.row)
        return None
