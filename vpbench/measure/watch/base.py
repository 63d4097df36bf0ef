"""What is known of a clip's tokens while it runs, on any backbone, and how that becomes their fate."""

import abc
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpbench.api import Classifier, ClipBatch, Grid
from vpbench.errors import UsageError
from vpbench.measure.watch.followed import Moves
from vpbench.measure.watch.sites import Stand
from vpbench.rows.fates import INPUT, PIXELS, Fate, Stage, whole

#: values of one step of a clip are noted under names that say which
_STEP = re.compile(r"step(\d+)\.(.+)")
#: stages before the first block: a method's pixels, then the tubelets it chose
PIXELS_STAGE, INPUT_STAGE = -2, -1
_BEFORE = {PIXELS_STAGE: PIXELS, INPUT_STAGE: INPUT}


class Watch(abc.ABC):
    """What is known while a clip runs; `seen` are states: a stage's number, whose tokens it is about, and their ids."""

    #: what a site's number counts
    unit = "block"
    #: sites that are watched besides pixels and notes
    own: ClassVar[tuple[str, ...]]

    def __init__(self, backbone: Classifier, batch: ClipBatch) -> None:
        self.dense, self.clip_id = backbone.grid, batch.ids[0]
        _, frames, height, width, _ = batch.pixels.shape
        self.tubelet = (frames // self.dense.slots, height // self.dense.rows, width // self.dense.cols)
        self.seen: list[tuple[int, Tensor, Tensor]] = []
        self.values: dict[str, NDArray[np.float32]] = {}
        self.home: Home

    def sites(self, values: bool) -> dict[str, Stand]:
        """Return what stands in at the sites, methods of the same names."""
        return {name: getattr(self, name) for name in ("resample", *self.own, *(["note"] if values else []))}

    @abc.abstractmethod
    def rated(self, value: Tensor) -> Tensor | None:
        """Bring what a method noted just now to the dense tokens, `[N]`; None where it is not about tokens."""

    def resample(self, asked: Callable[[ClipBatch], ClipBatch], batch: ClipBatch) -> ClipBatch:
        """Stand in for the method's own: find where dense tokens lie in its pixels."""
        result, self.home = resampled(asked, batch, self.dense)
        self.see(PIXELS_STAGE, torch.ones_like(self.home.place, dtype=torch.bool), self.home.named(self.home.place))
        return result

    def see(self, stage: int, mine: Tensor, token: Tensor) -> None:
        """Remember which token `token [N]` stands for each of those that are `mine [N]`."""
        self.seen.append((stage, mine.cpu(), token.cpu()))

    def note(self, asked: Callable[[str, Tensor], None], name: str, value: Tensor) -> None:
        """Stand in for the method's own: keep what is about tokens."""
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
        found = at(every.flatten(), self.home.place).cpu().numpy().reshape(self._shape)
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


def at(values: Tensor, where: Tensor, nothing: float = math.nan) -> Tensor:
    """Return `values[where]`, and `nothing` where that is -1."""
    return torch.where(where >= 0, values[where.clamp(min=0)], nothing)


@dataclass(frozen=True)
class Home:
    """The grid that is left, the place there of each of the dense clip's N tokens (`place [N]`, -1: none), and the
    first of the dense tokens at each place of the grid (`first`).
    """

    grid: Grid
    place: Tensor
    first: Tensor

    def named(self, place: Tensor) -> Tensor:
        """Name the tokens at some places by the first dense token of each; -1 stays -1."""
        return torch.where(place >= 0, self.first[place.clamp(min=0)], -1)


def resampled(asked: Callable[[ClipBatch], ClipBatch], batch: ClipBatch, dense: Grid) -> tuple[ClipBatch, Home]:
    """Ask a method for its pixels, and find what they were made of; raises UsageError where that cannot be told.

    Fewer frames are those that were picked; a dense token goes with the first of its frames that was. Smaller frames
    show the whole picture: a dense token goes with the one in whose area its middle lies.
    """
    pixels = batch.pixels
    frame = torch.arange(pixels.shape[1], device=pixels.device)
    with Moves(pixels, frame[None, :, None, None, None].expand_as(pixels).contiguous()) as moves:
        result = asked(batch)
    found = moves.of(result.pixels)
    (count, height, width), sides = result.pixels.shape[1:4], pixels.shape[2:4]
    if found is not None and (height, width) == tuple(sides):
        frame = found[0, :, 0, 0, 0]
    elif found is not None or count != pixels.shape[1]:
        raise UsageError("it makes frames of its own, of which nobody knows where they lie in the clip")
    length = pixels.shape[1] // dense.slots
    grid = Grid(count // length, height * dense.rows // sides[0], width * dense.cols // sides[1])
    return result, _home(dense, grid, frame, length)


def _home(dense: Grid, grid: Grid, frame: Tensor, length: int) -> Home:
    """Place the dense tokens; frame: the number of each frame that is left, `length` of them make a slot."""
    numbers = torch.arange(len(frame), device=frame.device)
    slot = frame.new_full((dense.slots,), -1)
    # backwards, so that the first frame of each slot is written last
    slot[(frame // length).flip(0)] = (numbers // length).flip(0)
    row, col = (
        (2 * torch.arange(old, device=frame.device) + 1) * new // (2 * old)
        for old, new in ((dense.rows, grid.rows), (dense.cols, grid.cols))
    )
    place = (slot[:, None, None] * grid.rows + row[:, None]) * grid.cols + col
    place = torch.where(slot[:, None, None] >= 0, place, -1).flatten()
    first = place.new_full((grid.tokens,), -1)
    there = torch.arange(len(place), device=place.device)[place >= 0].flip(0)
    first[place[there]] = there
    return Home(grid, place, first)
