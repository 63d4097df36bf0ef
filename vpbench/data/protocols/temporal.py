"""Which frames of a video make its views: one rule per published evaluation, exact to the frame. Imports no torch."""

import abc
import hashlib
from dataclasses import dataclass, field, replace
from math import floor
from typing import Self

from vpbench.data.protocols.shape import Shape
from vpbench.data.video.reader import frame_indices


@dataclass(frozen=True)
class Temporal(abc.ABC):
    """A rule that picks the frames of `views` temporal views."""

    views: int

    @abc.abstractmethod
    def indices(self, total: int, fps: float | None, shape: Shape, video_id: str) -> list[list[int]]:
        """Return the `shape.frames` frame numbers of each view, all in 0..total-1; a number may come twice.

        `total`: frames of the video, at least 1. `fps`: its frames per second, None where unknown.
        """

    def single(self) -> Self:
        """Return the rule of one view in the middle."""
        return self if self.views == 1 else replace(self, views=1)


@dataclass(frozen=True)
class First(Temporal):
    """One view from frame 0 on, for videos that are as long as a clip."""

    views: int = field(default=1, init=False)

    def indices(self, total: int, fps: float | None, shape: Shape, video_id: str) -> list[list[int]]:
        """Return every `shape.stride`-th frame; raises DecodeError if the video is too short."""
        return [frame_indices(total, shape.frames, shape.stride)]


@dataclass(frozen=True)
class Strided(Temporal):
    """VideoMAE on Kinetics: windows evenly spread over every `stride`-th frame of the whole video.

    Source: VideoMAE, `kinetics.py`, test mode. Where there are too few frames the last one is repeated.
    """

    def indices(self, total: int, fps: float | None, shape: Shape, video_id: str) -> list[list[int]]:
        """Return each view's frame numbers; see `Temporal.indices`."""
        every = list(range(0, total, shape.stride))
        every += every[-1:] * (shape.frames - len(every))
        return [every[start : start + shape.frames] for start in spread(len(every) - shape.frames, self.views)]


@dataclass(frozen=True)
class Spread(Temporal):
    """VideoMAE on Something-Something: each view spans the whole video, whatever its length and the stride.

    Source: VideoMAE, `ssv2.py`, test mode. The video is cut into as many parts as a clip has frames. Starts and middles
    of the parts, sorted, go to two views in turn; a single view takes the middles.
    """

    def __post_init__(self) -> None:
        if self.views > 2:
            raise ValueError(f"parts have two kinds of frames, not {self.views}")

    def indices(self, total: int, fps: float | None, shape: Shape, video_id: str) -> list[list[int]]:
        """Return each view's frame numbers; see `Temporal.indices`."""
        tick = total / shape.frames
        middles = [int(tick / 2 + tick * k) for k in range(shape.frames)]
        if self.views == 1:
            return [middles]
        both = sorted(middles + [int(tick * k) for k in range(shape.frames)])
        return [both[view :: self.views] for view in range(self.views)]


@dataclass(frozen=True)
class RandomWindows(Temporal):
    """RLT on Kinetics: in each of `views` equal parts of the video one window at a random place.

    Source: RLT, `kinetics_dataset.py`, test mode, which draws from one global generator; here the place depends on
    nothing but seed, video id and part. A part not longer than a window is taken as a whole, its last frame repeated.
    Of a video with fewer frames than parts the published code asks for frame -1; here it gives its first one.
    """

    seed: int = 0

    def indices(self, total: int, fps: float | None, shape: Shape, video_id: str) -> list[list[int]]:
        """Return each view's frame numbers; see `Temporal.indices`."""
        part, length = total // self.views, shape.frames * shape.stride
        found = []
        for view in range(self.views):
            if part > length:
                start = self._draw(part - length, video_id, view)
                ticks = [start + tick for tick in _linspace(length, shape.frames)]
                last = start + length - 1
            else:
                ticks = _linspace(part, part // shape.stride)
                ticks += [part] * (shape.frames - len(ticks))
                last = max(part - 1, 0)
            found.append([view * part + min(int(tick), last) for tick in ticks])
        return found

    def _draw(self, count: int, video_id: str, view: int) -> int:
        """Return a number below `count`; a hash, since library generators may change what they draw."""
        digest = hashlib.sha256(f"{self.seed}\0{video_id}\0{view}".encode()).digest()
        return int.from_bytes(digest, "big") % count


@dataclass(frozen=True)
class Seconds(Temporal):
    """MViT on Kinetics: windows of a fixed duration, whatever the frame rate, evenly spread over the video.

    Source: SlowFast, `decoder.py`, test mode. A window lasts as long as `frames * stride` frames at the `target` rate,
    which is also the rate assumed where it is unknown. The frames are spread over it from its first to its last: 16 of
    64 frames are 4.2 apart, not 4.
    """

    target: float = 30.0

    def indices(self, total: int, fps: float | None, shape: Shape, video_id: str) -> list[list[int]]:
        """Return each view's frame numbers; see `Temporal.indices`."""
        size = shape.frames * shape.stride / self.target * (fps or self.target)
        free = max(total - size, 0)
        starts = [floor(free / 2)]
        if self.views > 1:
            starts = [view * floor(free / (self.views - 1)) for view in range(self.views)]
        ticks = [max(int(tick), 0) for tick in _linspace(size - 1, shape.frames)]
        # the published code centres a second time, within what it decoded: that is always less than 2 frames too many
        return [[min(start + tick, total - 1) for tick in ticks] for start in starts]


@dataclass(frozen=True)
class Segments(Temporal):
    """VideoSwin on Kinetics: windows in the middle of equal parts; a video that is too short starts over.

    Source: mmaction, `SampleFrames`, test mode.
    """

    def indices(self, total: int, fps: float | None, shape: Shape, video_id: str) -> list[list[int]]:
        """Return each view's frame numbers; see `Temporal.indices`."""
        length = shape.frames * shape.stride
        average = (total - length + 1) / self.views
        starts = [int(view * average + average / 2) if total >= length else 0 for view in range(self.views)]
        return [[(start + i * shape.stride) % total for i in range(shape.frames)] for start in starts]


@dataclass(frozen=True)
class Windows(Temporal):
    """ViViT as RGTP evaluates it: windows of `frames * stride` frames, evenly spread over the video.

    Source: RGTP's data sets. A video that is shorter than a window repeats its last frame.
    """

    def indices(self, total: int, fps: float | None, shape: Shape, video_id: str) -> list[list[int]]:
        """Return each view's frame numbers; see `Temporal.indices`."""
        length = shape.frames * shape.stride
        starts = spread(max(total, length) - length, self.views)
        return [[min(start + i * shape.stride, total - 1) for i in range(shape.frames)] for start in starts]


@dataclass(frozen=True)
class Even(Temporal):
    """One view whose frames are spread over the whole video, from its first one on.

    Source: `transformers`, `video_utils.default_sample_indices_fn`; a video that is too short repeats frames.
    """

    views: int = field(default=1, init=False)

    def indices(self, total: int, fps: float | None, shape: Shape, video_id: str) -> list[list[int]]:
        """Return each view's frame numbers; see `Temporal.indices`."""
        return [[k * total // shape.frames for k in range(shape.frames)]]


def spread(free: int, count: int) -> list[int]:
    """Return `count` starts from 0 to `free`, evenly spread and rounded down; the middle for a single one."""
    return [free // 2] if count == 1 else [int(k * free / (count - 1)) for k in range(count)]


def _linspace(end: float, count: int) -> list[float]:
    """Return `count` numbers from 0 to `end` with the roundings of numpy's linspace."""
    return [0.0] * count if count < 2 else [*(k * (end / (count - 1)) for k in range(count - 1)), float(end)]
