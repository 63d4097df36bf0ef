"""Objects and detections of many frames as flat arrays, and which detections can be evaluated."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpbench.data.boxes import Segment

#: detections of one class in one frame that are evaluated, those of the highest scores, as COCO does it
CUT = 100
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """The objects that are to be found.

    Frames are numbered through all videos, F of them in V videos: `video [F]` is the position of a frame's video in
    `videos`, `number [F]` its number there. Of G objects: `frame [G]`, `label [G]` (0 .. classes - 1), `boxes [G, 4]`
    (x1, y1, x2, y2 in the pixels that detections use), `track [G]` (-1 where unknown). Raises ValueError for arrays
    that do not fit together.
    """

    classes: int
    videos: tuple[str, ...]
    video: Ints
    number: Ints
    frame: Ints
    label: Ints
    boxes: Floats
    track: Ints

    def __post_init__(self) -> None:
        n = len(self.frame)
        _check_rows(self.frame, len(self.video), self.label, self.boxes)
        if len(self.track) != n or self.number.shape != self.video.shape:
            raise ValueError("need one track per object and one number per frame")
        if not np.isfinite(self.boxes).all() or not ((self.label >= 0) & (self.label < self.classes)).all():
            raise ValueError(f"objects need finite boxes and labels below {self.classes}")
        if not ((self.video >= 0) & (self.video < len(self.videos))).all():
            raise ValueError(f"frames must belong to one of the {len(self.videos)} videos")

    @staticmethod
    def of(segments: Iterable[Segment], classes: int) -> "Truth":
        """Collect the frames of segments in their order."""
        frames = [frame for segment in segments for frame in segment.frames]
        videos = tuple(dict.fromkeys(frame.video_id for frame in frames))
        position = {video: i for i, video in enumerate(videos)}
        return Truth(
            classes,
            videos,
            np.array([position[frame.video_id] for frame in frames], np.int64),
            np.array([frame.number for frame in frames], np.int64),
            np.repeat(np.arange(len(frames)), [len(frame.boxes.labels) for frame in frames]),
            np.concatenate([np.zeros(0, np.int64), *(frame.boxes.labels for frame in frames)]),
            np.concatenate([np.zeros((0, 4)), *(frame.boxes.xyxy for frame in frames)]),
            np.concatenate([np.zeros(0, np.int64), *(frame.boxes.tracks for frame in frames)]),
        )

    def only(self, frames: Bools) -> "Truth":
        """Return the same videos with some of their frames, `[F]`; the others' objects are not asked for."""
        kept = frames[self.frame]
        return Truth(
            self.classes,
            self.videos,
            self.video[frames],
            self.number[frames],
            (np.cumsum(frames) - 1)[self.frame[kept]],
            self.label[kept],
            self.boxes[kept],
            self.track[kept],
        )


@dataclass(frozen=True)
class Detections:
    """What was found: `frame [n]` as `Truth` numbers them, `label [n]`, `score [n]`, `boxes [n, 4]` x1, y1, x2, y2."""

    frame: Ints
    label: Ints
    score: Floats
    boxes: Floats

    def __getitem__(self, rows: Ints | Bools) -> "Detections":
        return Detections(self.frame[rows], self.label[rows], self.score[rows], self.boxes[rows])

    def only(self, frames: Bools) -> "Detections":
        """Return the detections in some frames, `[F]`, numbered like those of `Truth.only`."""
        kept = self[frames[self.frame]]
        return Detections((np.cumsum(frames) - 1)[kept.frame], kept.label, kept.score, kept.boxes)


def usable(truth: Truth, found: Detections) -> tuple[Detections, dict[str, int]]:
    """Return the detections that count, by frame, class and falling score, and how many had which problem.

    Without a finite score or a known class a detection cannot be ranked: it is left out. One whose box is not finite or
    has no area counts as a false positive. Beyond `CUT` detections of a class in a frame the rest is left out. Equal
    scores stay in the order given. Raises ValueError for arrays that do not fit together or frames that do not exist.
    """
    _check_rows(found.frame, len(truth.video), found.label, found.boxes)
    if found.score.shape != found.frame.shape:
        raise ValueError("need one score per detection")
    problems: Counter[str] = Counter()
    known = (found.label >= 0) & (found.label < truth.classes)
    finite = np.isfinite(found.score)
    problems["unknown class, left out"] = int((~known).sum())
    problems["score not finite, left out"] = int((known & ~finite).sum())
    kept = found[known & finite]

    solid = np.isfinite(kept.boxes).all(axis=1)
    # NaN compares as False: such boxes are counted once
    flat = solid & ~((kept.boxes[:, 2] > kept.boxes[:, 0]) & (kept.boxes[:, 3] > kept.boxes[:, 1]))
    problems["box not finite, false positive"] = int((~solid).sum())
    problems["box without area, false positive"] = int(flat.sum())
    boxes = np.where((solid & ~flat)[:, None], kept.boxes, 0.0).astype(np.float64)

    order = np.lexsort((-kept.score, kept.label, kept.frame))  # stable
    ranked = Detections(kept.frame, kept.label, kept.score, boxes)[order]
    place = _place_in_group(ranked.frame * truth.classes + ranked.label)
    problems[f"beyond {CUT} of a class in a frame, left out"] = int((place >= CUT).sum())
    return ranked[place < CUT], {name: count for name, count in problems.items() if count}


def empty_frames(truth: Truth, found: Detections) -> dict[str, int]:
    """Count frames without any detection, and without any object: both are sound, but worth knowing."""
    frames = len(truth.video)
    detected, annotated = (np.bincount(rows, minlength=frames) for rows in (found.frame, truth.frame))
    return {
        "frames without detections": int((detected == 0).sum()),
        "frames without objects": int((annotated == 0).sum()),
    }


def _place_in_group(groups: Ints) -> Ints:
    """Return 0, 1, 2, ... within each run of equal values."""
    starts = np.r_[True, groups[1:] != groups[:-1]][: len(groups)]
    first = np.flatnonzero(starts)
    place: Ints = np.arange(len(groups)) - np.repeat(first, np.diff(np.r_[first, len(groups)]))
    return place


def _check_rows(frame: Ints, frames: int, label: Ints, boxes: Floats) -> None:
    if frame.ndim != 1 or label.shape != frame.shape or boxes.shape != (len(frame), 4):
        raise ValueError(f"need one frame, label and box per row, got {frame.shape}, {label.shape}, {boxes.shape}")
    if not ((frame >= 0) & (frame < frames)).all():
        raise ValueError(f"rows must belong to one of the {frames} frames")
