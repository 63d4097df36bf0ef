"""Follow videos with a detector, frame after frame: one segment at a time, or groups of frames in lockstep."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vpbench.api import Detections, Pruner
from vpbench.backbones.vitdet.network import Frame, Segments, ViTDet


@dataclass(frozen=True)
class Look:
    """One frame as the detector takes it: `pixels` uint8 `[H, W, 3]` on the device, `scale` times the file's size."""

    video_id: str
    number: int
    pixels: Tensor
    scale: float


#: a block that a method ran: tokens computed anew, multiply-accumulates, and those in RGTP's way of counting
Layer = tuple[int, int, int]


@dataclass(frozen=True)
class Found:
    """What came of one frame, and what it took.

    `kept`: tokens that went on, None for all; `padding`: multiply-accumulates spent on queries that no token fills;
    `traced`: whether the method asked for the frame's attention maps. `layers`: blocks, of a method that ran them.
    """

    look: Look
    detections: Detections
    kept: int | None
    padding: int
    traced: bool
    layers: tuple[Layer, ...] = ()


def layers_of(frame: Frame) -> list[tuple[Layer, ...]]:
    """Return, for each segment, what a method that ran the blocks says of each."""
    return list(zip(*(zip(r.attention, r.macs, r.published, strict=True) for r in frame.ran), strict=True))


class Follower:
    """A detector with a pruner, and what they remember of the segments in lockstep."""

    def __init__(self, model: ViTDet, pruner: Pruner) -> None:
        self.model, self.pruner = model, pruner
        self.segments = Segments()

    def start(self, firsts: Sequence[Look]) -> None:
        """Forget everything: these are the first frames of new segments."""
        self.segments = Segments()
        self.pruner.restart([(look.video_id, look.number) for look in firsts])

    def narrow(self, batch: int) -> None:
        """Go on with the first `batch` segments."""
        self.segments.narrow(batch)
        self.pruner.narrow(batch)

    def step(self, looks: Sequence[Look]) -> list[Found]:
        """Look at the next frame of each segment, all of one size."""
        frame, found = self.model(torch.stack([look.pixels for look in looks]), self.segments, self.pruner)
        padding, traced = frame.padding // len(looks), bool(frame.maps)
        of_each = layers_of(frame) or [()] * len(looks)
        return [
            Found(look, each, frame.kept, padding, traced, own)
            for look, each, own in zip(looks, found, of_each, strict=True)
        ]

    def transform(self, pixels: Tensor, found: Sequence[Detections]) -> Frame:
        """Do as `step` with pixels `[B, H, W, 3]`, but without pyramid and head, whose result is given."""
        model, pruner = self.model, self.pruner
        with model.casting():
            frame = model.transform(pixels, self.segments, pruner)
        pruner.output(frame.maps, found)
        return frame

    def walk(self, groups: Sequence[Sequence[Look]]) -> Iterator[list[Found]]:
        """Look at groups of frames in lockstep, the longest first; a group begins anew and needs no older frame."""
        self.start([group[0] for group in groups])
        batch = len(groups)
        for depth in range(len(groups[0])):
            looks = [group[depth] for group in groups if len(group) > depth]
            if len(looks) < batch:
                self.narrow(batch := len(looks))
            yield self.step(looks)


class Lanes:
    """Frames of one video on their way through a follower.

    One by one they run at once, however long a segment is. In batches they are cut into groups between dense frames,
    which owe nothing to each other, and wait until `batch` groups are there.
    """

    def __init__(self, follower: Follower, batch: int) -> None:
        self.follower, self.batch = follower, batch
        self.groups: list[list[Look]] = []

    def add(self, look: Look, fresh: bool) -> list[Found]:
        """Take the next frame, `fresh` if a segment begins; returns what has come of frames so far."""
        if self.batch == 1:
            if fresh:
                self.follower.start([look])
            return self.follower.step([look])
        done: list[Found] = []
        if fresh or len(self.groups[-1]) == self.follower.pruner.period:
            if len(self.groups) == self.batch or self._other_size(look):
                done = self.flush()
            self.groups.append([])
        self.groups[-1].append(look)
        return done

    def flush(self) -> list[Found]:
        """Run the groups that wait."""
        groups, self.groups = sorted(self.groups, key=len, reverse=True), []
        return [found for step in self.follower.walk(groups) for found in step] if groups else []

    def _other_size(self, look: Look) -> bool:
        return bool(self.groups) and self.groups[-1][-1].pixels.shape != look.pixels.shape
