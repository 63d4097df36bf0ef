"""Detections as rows of the table `detections`, so that any metric can be computed again.

A frame that was run has at least one row. One row per detection: `label` from 0, `score`, and `x1`, `y1`, `x2`, `y2` in
pixels of the frame as annotated, before any resizing, so that one truth serves all sizes; a frame without detections
has one row where these are null, a frame that could not be read one whose `error` says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpbench.errors import UsageError
from vpbench.rows.schema import SCHEMAS
from vpbench.tasks.detection.boxes import Bools, Detections, Ints, Truth

TABLE = "detections"
_BOX = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class FrameDetections:
    """What was found in one frame: `labels [n]`, `scores [n]`, `boxes [n, 4]`; `error` where it could not be read."""

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    error: str | None = None

    @staticmethod
    def unreadable(error: str) -> "FrameDetections":
        """Return the entry of a frame that could not be read."""
        return FrameDetections(np.zeros(0, np.int32), np.zeros(0), np.zeros((0, 4)), error)


@dataclass(frozen=True)
class Read:
    """Detections under one id, their frames numbered like the truth's.

    `read [F]`: the frames that were run and could be read; metrics are to be taken over these alone (`Truth.only`,
    `Detections.only`), or, where two configurations are compared, over those of both. `problems` counts the others, and
    rows that belong to no frame.
    """

    found: Detections
    read: Bools
    problems: dict[str, int]


def table_of(prediction_id: str, video_id: str, frames: Mapping[int, FrameDetections]) -> pa.Table:
    """Return the rows of one video from the detections of its frames, by number.

    Raises ValueError for arrays that do not fit together.
    """
    # a frame without detections gets one row of nulls
    rows = [max(1, len(one.labels)) for one in frames.values()]
    filled = np.repeat([len(one.labels) > 0 for one in frames.values()], rows)
    label, score, boxes = (
        np.concatenate([np.zeros((0, *shape)), *(_padded(getattr(one, name), shape) for one in frames.values())])
        for name, shape in (("labels", ()), ("scores", ()), ("boxes", (4,)))
    )
    if not len(label) == len(score) == len(boxes) == len(filled):
        raise ValueError(f"video {video_id}: need one label, score and box per detection")
    errors = [one.error for one, n in zip(frames.values(), rows, strict=True) for _ in range(n)]
    columns = [
        pa.array([prediction_id] * len(filled), pa.string()),
        pa.array([video_id] * len(filled), pa.string()),
        pa.array(np.repeat(list(frames), rows).astype(np.int32)),
        pa.array(errors, pa.string()),
        pa.array(label.astype(np.int32), mask=~filled),
        *(pa.array(column.astype(np.float32), mask=~filled) for column in (score, *boxes.T)),
    ]
    return pa.table(columns, schema=SCHEMAS[TABLE])


def read(rows: pa.Table, truth: Truth) -> Read:
    """Return stored detections in the frames of `truth`; `rows`: of the table, under one id.

    Raises UsageError where there are none: metrics over what happens to be readable would be of another set of videos.
    """
    if not len(rows):
        raise UsageError("there are no detections of it; run it first")
    frame = _frames_of(truth, rows)
    failed, empty = pc.is_valid(rows["error"]).to_numpy(), pc.is_null(rows["label"]).to_numpy()
    known = frame >= 0
    run, unread = np.zeros((2, len(truth.video)), np.bool_)
    run[frame[known]] = True
    unread[frame[known & failed]] = True
    kept = known & ~failed & ~empty
    boxes = np.stack([rows[side].to_numpy() for side in _BOX], axis=1).astype(np.float64)
    problems = {
        "frames not run": int((~run).sum()),
        "frames that could not be read": int(unread.sum()),
        "rows of frames without annotation": int((~known).sum()),
    }
    return Read(
        Detections(
            frame[kept],
            rows["label"].to_numpy()[kept].astype(np.int64),
            rows["score"].to_numpy()[kept].astype(np.float64),
            boxes[kept],
        ),
        run & ~unread,
        {name: count for name, count in problems.items() if count},
    )


def _frames_of(truth: Truth, rows: pa.Table) -> Ints:
    """Return the truth's frame of each row, -1 where it has none."""
    video = pc.index_in(rows["video_id"], pa.array(truth.videos, pa.string())).fill_null(-1).to_numpy().astype(np.int64)
    place = (video << 32) + rows["frame"].to_numpy()
    known = (truth.video << 32) + truth.number
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], place), max(0, len(known) - 1))
    return np.where(known[order][at] == place, order[at], -1)


def _padded(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return values if len(values) else np.zeros((1, *shape))
