"""Videos for object detection: numbered frames with boxes, cut into segments."""

import abc
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpbench.errors import UsageError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Boxes:
    """The objects of one frame: `xyxy` float32 `[n, 4]` in pixels, `labels` int64 `[n]`, class numbers from 0.

    `tracks` int64 `[n]`: the same number is the same object in other frames of the video; -1 where that is unknown.
    """

    xyxy: NDArray[np.float32]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]

    @staticmethod
    def of(objects: Sequence[tuple[Sequence[float], int, int]]) -> "Boxes":
        """Collect (box, label, track) of any number of objects, none included."""
        xyxy, labels, tracks = zip(*objects, strict=True) if objects else ((), (), ())
        return Boxes(np.array(xyxy, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(tracks, np.int64))


@dataclass(frozen=True)
class Frame:
    """One annotated frame: its number in the video, the boxes in its own pixels, its size where annotations say it."""

    video_id: str
    number: int
    boxes: Boxes
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class Segment:
    """Frames of one video without a gap in numbering; whatever a method carries from frame to frame starts anew."""

    video_id: str
    frames: tuple[Frame, ...]


class DetectionDataset(abc.ABC):
    """Videos with boxes in every frame. One class per file in `datasets/`."""

    classes: tuple[str, ...]
    splits: tuple[str, ...]
    #: the library that decodes frames
    decoder: str = "pillow"

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    @abc.abstractmethod
    def videos(self, split: str) -> list[str]:
        """List the ids of the videos of a split in their fixed order; raises UsageError if lists are missing."""

    @abc.abstractmethod
    def segments(self, split: str, video_id: str) -> list[Segment]:
        """Read the annotations of one video; raises UsageError that names the file that is missing or wrong."""

    @abc.abstractmethod
    def pixels(self, frame: Frame) -> Pixels:
        """Decode one frame, `[H, W, 3]` RGB; raises `vpbench.data.video.DecodeError` if it cannot be read."""


def segments_of(frames: Iterable[Frame]) -> list[Segment]:
    """Sort the frames of one video by number and cut them where numbers are missing; refuses a number twice."""
    ordered = sorted(frames, key=lambda frame: frame.number)
    starts = [0]
    for i, (before, frame) in enumerate(itertools.pairwise(ordered), start=1):
        if frame.number == before.number:
            raise UsageError(f"video {frame.video_id}: frame {frame.number} is listed twice; remove one of the two")
        if frame.number > before.number + 1:
            starts.append(i)
    ends = [*starts[1:], len(ordered)]
    return [Segment(ordered[a].video_id, tuple(ordered[a:b])) for a, b in zip(starts, ends, strict=True) if a < b]


def oddities(segments: Iterable[Segment]) -> dict[str, int]:
    """Count what is odd in annotations but kept as it is: boxes without area, and boxes beyond the frame's edges."""
    found: Counter[str] = Counter()
    for frame in (frame for segment in segments for frame in segment.frames):
        x1, y1, x2, y2 = frame.boxes.xyxy.T
        found["boxes without area"] += int(((x2 <= x1) | (y2 <= y1)).sum())
        if frame.height is not None and frame.width is not None:
            beyond = (np.minimum(x1, y1) < 0) | (x2 > frame.width) | (y2 > frame.height)
            found["boxes beyond the frame"] += int(beyond.sum())
    return {name: count for name, count in found.items() if count}
