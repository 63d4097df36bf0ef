"""Detections on disk: what comes back, what is missing, and files that are not to be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vpbench.errors import UsageError
from vpbench.rows.schema import TABLE_KEY
from vpbench.rows.store import Store
from vpbench.tasks.detection import stored
from vpbench.tasks.detection.boxes import Detections, Truth
from vpbench.tasks.detection.precision import evaluate
from vpbench.tasks.detection.stored import TABLE, FrameDetections, table_of

VIDEOS = ("a", "b")
NUMBERS = (0, 1, 5, 2, 3, 4)


def truth() -> Truth:
    video, rng = np.repeat([0, 1], 3), np.random.default_rng(0)
    corner = rng.integers(0, 50, (6, 2)).astype(float)
    boxes = np.concatenate([corner, corner + 20], axis=1)
    return Truth(3, VIDEOS, video, np.array(NUMBERS), np.arange(6), rng.integers(3, size=6), boxes, np.full(6, -1))


def detections() -> Detections:
    """Two detections in each frame but the third, which has none."""
    there, rng = truth(), np.random.default_rng(1)
    frame = np.repeat([0, 1, 3, 4, 5], 2)
    boxes = there.boxes[frame] + rng.integers(-4, 5, (10, 4))
    return Detections(frame, there.label[frame], rng.integers(1, 9, 10) / 8, boxes)


def write(folder: Path, video: str, frames: Mapping[int, FrameDetections]) -> None:
    Store(folder).write(TABLE, f"c0-{video}", table_of("c0", video, frames))


def read(folder: Path, truth: Truth) -> stored.Read:
    return stored.read(Store(folder).read_arrow(TABLE, only={"c0"}), truth)


def store(folder: Path, found: Detections) -> None:
    frames = truth()
    for v, video in enumerate(VIDEOS):
        rows = {int(frames.number[f]): found[found.frame == f] for f in np.flatnonzero(frames.video == v)}
        write(folder, video, {n: FrameDetections(d.label, d.score, d.boxes) for n, d in rows.items()})


def test_metrics_are_the_same_after_storing(tmp_path: Path) -> None:
    store(tmp_path, detections())
    found = read(tmp_path, truth())
    assert found.problems == {}
    assert found.read.all()
    assert found.found.frame.tolist() == detections().frame.tolist()
    before, after = evaluate(truth(), detections()), evaluate(truth(), found.found)
    assert (before.map50, before.map, before.problems) == (after.map50, after.map, after.problems)
    assert 0 < after.map < after.map50
    assert not len(Store(tmp_path).read_arrow(TABLE, only={"c1"}))
    assert not list(tmp_path.rglob("*.tmp"))


def test_unreadable_frames_and_missing_videos_are_counted_and_left_out(tmp_path: Path) -> None:
    store(tmp_path, detections())
    (tmp_path / "detections.parquet" / "c0-b.parquet").unlink()
    one = FrameDetections(np.zeros(1, np.int64), np.ones(1), truth().boxes[:1])
    none = FrameDetections(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))
    write(tmp_path, "a", {0: one, 1: FrameDetections.unreadable("cut file"), 5: none, 77: one})
    found = read(tmp_path, truth())
    assert found.problems == {
        "frames not run": 3,
        "frames that could not be read": 1,
        "rows of frames without annotation": 1,
    }
    assert found.read.tolist() == [True, False, True, False, False, False]
    assert truth().only(found.read).number.tolist() == [0, 5]
    assert found.found.only(found.read).frame.tolist() == [0]
    assert found.found.only(np.arange(6) > 0).frame.tolist() == []


def test_an_order_of_videos_of_its_own(tmp_path: Path) -> None:
    store(tmp_path, detections())
    there = truth()
    turned = Truth(3, ("b", "a"), 1 - there.video, there.number, there.frame, there.label, there.boxes, there.track)
    assert evaluate(turned, read(tmp_path, turned).found).map == pytest.approx(evaluate(there, detections()).map)


def test_files_that_are_not_whole_or_not_ours_are_named_and_left_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run it first"):
        read(tmp_path, truth())
    store(tmp_path, detections())
    part = tmp_path / "detections.parquet" / "c0-b.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    assert read(tmp_path, truth()).problems == {"frames not run": 3}
    [problem] = problems(tmp_path)
    assert "c0-b.parquet: not a whole detections file, skipped" in problem
    assert problem.endswith("delete it and run the same command again")
    pq.write_table(pa.table({"x": [1]}), part)
    [problem] = problems(tmp_path)
    assert "not written by vpbench" in problem


def problems(folder: Path) -> list[str]:
    found = Store(folder)
    found.read_arrow(TABLE)
    return found.problems


def test_files_of_version_1_are_read_on(tmp_path: Path) -> None:
    """Before version 7 a file had the detections of one video, under a configuration's id and a version of its own."""
    whole = table_of("c0", "a", {0: FrameDetections(np.array([1]), np.array([0.5]), np.array([[1.0, 2.0, 3.0, 4.0]]))})
    named = whole.rename_columns(["config_id" if n == "prediction_id" else n for n in whole.column_names])
    old = named.replace_schema_metadata({TABLE_KEY: b"detections", b"vpbench.detections_version": b"1"})
    found = Store(tmp_path)
    pq.write_table(old, tmp_path / "detections.parquet" / "c0-a.parquet")
    assert found.read_arrow(TABLE, only={"c0"}).equals(whole)
    assert not found.problems


def test_arrays_of_different_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one label, score and box"):
        write(tmp_path, "a", {0: FrameDetections(np.zeros(2, np.int64), np.zeros(1), np.zeros((2, 4)))})
