"""Follow the tokens of one clip through a backbone: what became of each of them, and what the method rated them by."""

from __future__ import annotations

import abc
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpbench.api import Backbone, Clip, ClipBatch, Output, Pruner, Selection, Tokens, Trace
from vpbench.errors import UsageError
from vpbench.fate import INPUT, PIXELS, Fate, Stage, whole
from vpbench.tokens import Grid
from vpbench.watch.followed import Followed, Moves, follow
from vpbench.watch.pixels import Home, resampled
from vpbench.watch.sites import Stand, standing_in

#: values of one step of a clip are noted under names that say which
_STEP = re.compile(r"step(\d+)\.(.+)")
#: stages before the first block: a method's pixels, then the tubelets it chose
_PIXELS, _INPUT = -2, -1
_BEFORE = {_PIXELS: PIXELS, _INPUT: INPUT}


@dataclass(frozen=True)
class Watched:
    """What came of a clip: the network's answer, the fate of its tokens, and what the method noted of them.

    `values`: by the method's own names, float32 `[slots, rows, columns]`; NaN for tokens that were not rated, or were
    no longer there.
    """

    output: Output
    fate: Fate
    values: dict[str, NDArray[np.float32]]


def watched(backbone: Backbone, batch: ClipBatch, pruner: Pruner, *, values: bool = False) -> Watched:
    """Run a backbone on a batch of one clip and watch.

    values: also what the method notes about tokens. Raises UsageError where a method makes frames or tokens of which
    cannot be told where they come from.
    """
    if len(batch.ids) != 1:
        raise ValueError(f"one clip at a time can be watched, not {len(batch.ids)}")
    watch = (_Stream if backbone.plain else _Grid)(backbone, batch)
    before = pruner.record
    pruner.record = {} if values else before
    try:
        with standing_in(pruner, watch.sites(values)), torch.inference_mode():
            output = backbone(batch, pruner)
    finally:
        pruner.record = before
    return Watched(output, watch.fate(), watch.values)


class _Watch(abc.ABC):
    """What is known while a clip runs; `seen` are states: a stage's number, whose tokens it is about, and their ids."""

    #: what a site's number counts
    unit = "block"

    def __init__(self, backbone: Backbone, batch: ClipBatch) -> None:
        self.dense, self.clip_id = backbone.grid, batch.ids[0]
        _, frames, height, width, _ = batch.pixels.shape
        self.tubelet = (frames // self.dense.slots, height // self.dense.rows, width // self.dense.cols)
        self.seen: list[tuple[int, Tensor, Tensor]] = []
        self.values: dict[str, NDArray[np.float32]] = {}
        self.home: Home

    @abc.abstractmethod
    def sites(self, values: bool) -> dict[str, Stand]:
        """Return what stands in at the sites."""

    @abc.abstractmethod
    def rated(self, value: Tensor) -> Tensor | None:
        """Bring what a method noted just now to the dense tokens, `[N]`; None where it is not about tokens."""

    def resample(self, asked: Callable[[ClipBatch], ClipBatch], batch: ClipBatch) -> ClipBatch:
        result, self.home = resampled(asked, batch, self.dense)
        self.see(_PIXELS, torch.ones_like(self.home.place, dtype=torch.bool), self.home.named(self.home.place))
        return result

    def see(self, stage: int, mine: Tensor, token: Tensor) -> None:
        """Remember which token `token [N]` stands for each of those that are `mine [N]`."""
        self.seen.append((stage, mine.cpu(), token.cpu()))

    def note(self, asked: Callable[[str, Tensor], None], name: str, value: Tensor) -> None:
        asked(name, value)
        if not value.is_floating_point():
            return
        if (step := _STEP.fullmatch(name)) is not None:
            self._note_step(int(step[1]), step[2], value)
        elif (found := self.rated(value.detach().float())) is not None:
            self.values[name] = found.cpu().numpy().reshape(self._shape)

    def _note_step(self, slot: int, name: str, value: Tensor) -> None:
        grid = self.home.grid
        if value.numel() != grid.per_slot or slot >= grid.slots:
            return
        every = value.new_full((grid.slots, grid.per_slot), math.nan, dtype=torch.float32)
        every[slot] = value.detach().flatten()
        found = _at(every.flatten(), self.home.place).cpu().numpy().reshape(self._shape)
        known = self.values.setdefault(name, np.full(self._shape, np.nan, np.float32))
        self.values[name] = np.where(np.isnan(found), known, found)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.dense.slots, self.dense.rows, self.dense.cols

    def fate(self) -> Fate:
        """Put what was seen in the order of the network: steps of a clip may pass its blocks one after the other."""
        stages: list[Stage] = []
        token = np.arange(self.dense.tokens, dtype=np.int32)
        for number in sorted({number for number, _, _ in self.seen}):
            before = token
            token = token.copy()
            for _, mine, ids in (each for each in self.seen if each[0] == number):
                token[mine.numpy()] = ids.numpy()[mine.numpy()]
            if not np.array_equal(token, before):
                stages.append(Stage(_BEFORE.get(number, f"{self.unit} {number}"), token))
        fate = whole(self.clip_id, self._shape, self.tubelet)
        return replace(fate, stages=tuple(stages) or fate.stages)


class _Stream(_Watch):
    """A backbone with a plain stream of tokens, of the whole clip or of each of its steps."""

    def __init__(self, backbone: Backbone, batch: ClipBatch) -> None:
        super().__init__(backbone, batch)
        self.stepwise = backbone.stepwise
        self.waves_left: list[Sequence[int]] = []
        #: first place on the grid of each sequence that runs now, and the dense tokens that are in one of them
        self.starts = torch.zeros(1, dtype=torch.int64)
        self.mine = torch.zeros(0, dtype=torch.bool)
        self.given: Followed | None = None

    def sites(self, values: bool) -> dict[str, Stand]:
        own: dict[str, Stand] = {
            "resample": self.resample,
            "video": self.video,
            "waves": self.waves,
            "after_attention": self.after_attention,
            "after_block": self.after_block,
        }
        return own | ({"note": self.note} if values else {})

    def video(self, asked: Callable[[ClipBatch], Selection | None], batch: ClipBatch) -> Selection | None:
        chosen = asked(batch)
        if chosen is not None:
            place = self.home.place
            kept = torch.where(torch.isin(place, chosen.index), place, -1)
            self.see(_INPUT, torch.ones_like(place, dtype=torch.bool), self.home.named(kept))
        return chosen

    def waves(self, asked: Callable[[int], Sequence[Sequence[int]]], steps: int) -> Sequence[Sequence[int]]:
        found = [list(wave) for wave in asked(steps)]
        self.waves_left = list(found)
        return found

    def after_attention(self, asked: Callable[..., Tokens], layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        given = self._begin(tokens) if layer == 0 else self._followed(tokens)
        return self._reduced(layer, given, lambda: asked(layer, given, trace))

    def after_block(self, asked: Callable[..., Tokens], layer: int, tokens: Tokens) -> Tokens:
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
        self.see(layer, self.mine, self.home.named(_at(self._places(result), result.row, -1)))
        return result

    def _begin(self, tokens: Tokens) -> Followed:
        """Follow the tokens of the sequences that begin now: the clip, or the steps of the next wave."""
        grid, place = self.home.grid, self.home.place
        slots = self.waves_left.pop(0) if self.stepwise else [0]
        self.starts = torch.tensor(slots, device=place.device) * grid.per_slot
        there = torch.tensor(slots, device=place.device) if self.stepwise else torch.arange(grid.slots).to(place.device)
        self.mine = torch.isin(place // grid.per_slot, there) & (place >= 0)
        at = self._places(tokens)
        rows = at.new_full((grid.tokens,), -1)
        rows[at[at >= 0]] = torch.arange(len(at), device=at.device)[at >= 0]
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
        flat, grid = value.flatten(), self.home.grid
        if self.given is None:  # before the network: by place, all of them or all but those of the first slot
            missing = grid.tokens - len(flat)
            known = missing in (0, grid.per_slot)
            return _at(torch.cat([flat.new_full((missing,), math.nan), flat]), self.home.place) if known else None
        lengths, rows = self.given.lengths, len(self.given.index)
        if len(flat) == rows:
            return _at(flat, self.given.row)
        if len(flat) == sum((length + 1) // 2 for length in lengths):  # of every second token, as matching rates them
            every = flat.new_full((rows,), math.nan)
            ends = np.cumsum(lengths)
            even = np.concatenate([np.arange(end - length, end, 2) for end, length in zip(ends, lengths, strict=True)])
            every[torch.from_numpy(even).to(flat.device)] = flat
            return _at(every, self.given.row)
        return None


class _Grid(_Watch):
    """A backbone whose tokens form a grid; `place [N]`: where each dense token's stands on it now, -1 if dropped."""

    def __init__(self, backbone: Backbone, batch: ClipBatch) -> None:
        super().__init__(backbone, batch)
        if getattr(backbone, "sites", backbone.depth) != backbone.depth:
            self.unit = "stage"
        self.grid: Grid | None = None
        self.place = torch.zeros(0, dtype=torch.int64)
        self.moves: Moves | None = None

    def sites(self, values: bool) -> dict[str, Stand]:
        own: dict[str, Stand] = {"resample": self.resample, "stage": self.stage}
        return own | ({"note": self.note} if values else {})

    def stage(self, asked: Callable[[int, Tensor], Tensor], block: int, x: Tensor) -> Tensor:
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
        return _at(every, self.place)


def _at(values: Tensor, where: Tensor, nothing: float = math.nan) -> Tensor:
    """Return `values[where]`, and `nothing` where that is -1."""
    return torch.where(where >= 0, values[where.clamp(min=0)], nothing)


def as_seen(clip: Clip) -> NDArray[np.uint8]:
    """Return a clip's frames as pictures, uint8 `[T, H, W, 3]`, also where its pixels are floats."""
    return clip.pixels if clip.pixels.dtype == np.uint8 else clip.pixels.round().clip(0, 255).astype(np.uint8)
