"""Keep detections on disk, one Parquet file per configuration and video, so that any metric can be computed again.

A frame that was run has at least one row. One row per detection: `label` from 0, `score`, and `x1`, `y1`, `x2`, `y2` in
pixels of the frame as annotated, before any resizing, so that one truth serves all sizes; a frame without detections
has one row where these are null, a frame that could not be read one whose `error` says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vpbench.errors import UsageError, VpbenchError
from vpbench.rows.store import replace_file
from vpbench.tasks.detection.boxes import Bools, Detections, Ints, Truth

TABLE = "detections"
VERSION = 1
_BOX = ("x1", "y1", "x2", "y2")
SCHEMA = pa.schema(
    [
        pa.field("config_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("label", pa.int32()),
        pa.field("score", pa.float32()),
        *(pa.field(side, pa.float32()) for side in _BOX),
    ],
    metadata={b"vpbench.table": TABLE.encode(), b"vpbench.detections_version": str(VERSION).encode()},
)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*")


@dataclass(frozen=True)
class FrameDetections:
    """What was found in one frame: `labels [n]`, `scores [n]`, `boxes [n, 4]`; `error` where it could not be read."""

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    error: str | None = None

    @staticmethod
    def unreadable(error: str) -> FrameDetections:
        """Return the entry of a frame that could not be read."""
        return FrameDetections(np.zeros(0, np.int32), np.zeros(0), np.zeros((0, 4)), error)


@dataclass(frozen=True)
class Stored:
    """Detections of one configuration, their frames numbered like the truth's.

    `read [F]`: the frames that were run and could be read; metrics are to be taken over these alone (`Truth.only`,
    `Detections.only`), or, where two configurations are compared, over those of both. `problems` counts the others, and
    rows that belong to no frame.
    """

    found: Detections
    read: Bools
    problems: dict[str, int]


def write(folder: Path, config_id: str, video_id: str, frames: Mapping[int, FrameDetections]) -> None:
    """Replace the detections of one video by those of `frames` (by number), whole or not at all.

    Raises ValueError for names that cannot be part of a file's name and arrays that do not fit together, VpbenchError
    where the disk is full or refuses.
    """
    target = _file(folder, config_id, video_id)
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
        pa.array([config_id] * len(filled), pa.string()),
        pa.array([video_id] * len(filled), pa.string()),
        pa.array(np.repeat(list(frames), rows).astype(np.int32)),
        pa.array(errors, pa.string()),
        pa.array(label.astype(np.int32), mask=~filled),
        *(pa.array(column.astype(np.float32), mask=~filled) for column in (score, *boxes.T)),
    ]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VpbenchError(f"{target.parent}: cannot be made ({error.strerror}); name another folder") from error
    replace_file(pa.table(columns, schema=SCHEMA), target)


def has(folder: Path, config_id: str, video_id: str) -> bool:
    """Tell whether the detections of a video are on disk as a whole."""
    try:
        pq.read_metadata(_file(folder, config_id, video_id))
    except (OSError, pa.ArrowException):
        return False
    return True


def read(folder: Path, config_id: str, truth: Truth) -> Stored:
    """Return the detections of a configuration in the frames of `truth`.

    Raises UsageError that names a file that is damaged or foreign, and where there is none: metrics over what happens
    to be readable would be of another set of videos.
    """
    parts = [_file(folder, config_id, video) for video in truth.videos]
    there = [part for part in parts if part.exists()]
    if not there:
        raise UsageError(f"{folder}: no detections of configuration {config_id}; run it first")
    rows = pa.concat_tables([_read_part(part, config_id) for part in there])
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
    return Stored(
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


def _read_part(path: Path, config_id: str) -> pa.Table:
    try:
        content = pq.read_table(pa.BufferReader(path.read_bytes()))
        if not content.schema.equals(SCHEMA, check_metadata=True):
            raise ValueError(f"not a file of {TABLE}, version {VERSION}")
        if pc.unique(content["config_id"]).to_pylist() not in ([config_id], []):
            raise ValueError(f"not of configuration {config_id}")
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path}: not readable ({reason}); delete it and run the same command again") from error
    return content


def _padded(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return values if len(values) else np.zeros((1, *shape))


def _file(folder: Path, config_id: str, video_id: str) -> Path:
    for name in (config_id, video_id):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a file: use letters, digits and _ . = -")
    return folder / f"{TABLE}.parquet" / f"{config_id}-{video_id}.parquet"
