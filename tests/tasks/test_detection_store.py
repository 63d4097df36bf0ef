"""Detections on disk: what comes back, what is missing, and files that are not to be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vpbench.errors import UsageError
from vpbench.tasks.detection.boxes import Detections, Truth
from vpbench.tasks.detection.precision import evaluate
from vpbench.tasks.detection.stored import FrameDetections, has, read, write

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


def store(folder: Path, found: Detections, config_id: str = "c0") -> None:
    frames = truth()
    for v, video in enumerate(VIDEOS):
        rows = {int(frames.number[f]): found[found.frame == f] for f in np.flatnonzero(frames.video == v)}
        write(folder, config_id, video, {n: FrameDetections(d.label, d.score, d.boxes) for n, d in rows.items()})


def test_metrics_are_the_same_after_storing(tmp_path: Path) -> None:
    store(tmp_path, detections())
    found = read(tmp_path, "c0", truth())
    assert found.problems == {}
    assert found.read.all()
    assert found.found.frame.tolist() == detections().frame.tolist()
    before, after = evaluate(truth(), detections()), evaluate(truth(), found.found)
    assert (before.map50, before.map, before.problems) == (after.map50, after.map, after.problems)
    assert 0 < after.map < after.map50
    assert has(tmp_path, "c0", "a")
    assert not has(tmp_path, "c1", "a")
    assert not list(tmp_path.rglob("*.tmp"))


def test_unreadable_frames_and_missing_videos_are_counted_and_left_out(tmp_path: Path) -> None:
    store(tmp_path, detections())
    (tmp_path / "detections.parquet" / "c0-b.parquet").unlink()
    one = FrameDetections(np.zeros(1, np.int64), np.ones(1), truth().boxes[:1])
    none = FrameDetections(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))
    write(tmp_path, "c0", "a", {0: one, 1: FrameDetections.unreadable("cut file"), 5: none, 77: one})
    found = read(tmp_path, "c0", truth())
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
    assert evaluate(turned, read(tmp_path, "c0", turned).found).map == pytest.approx(evaluate(there, detections()).map)


def test_files_that_are_not_whole_or_not_ours_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run it first"):
        read(tmp_path, "c0", truth())
    store(tmp_path, detections())
    part = tmp_path / "detections.parquet" / "c0-b.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    assert not has(tmp_path, "c0", "b")
    with pytest.raises(UsageError, match=r"c0-b.parquet: not readable .*; delete it"):
        read(tmp_path, "c0", truth())
    pq.write_table(pa.table({"x": [1]}), part)
    with pytest.raises(UsageError, match="not a file of detections"):
        read(tmp_path, "c0", truth())
    store(tmp_path, detections(), "c1")
    part.write_bytes((tmp_path / "detections.parquet" / "c1-b.parquet").read_bytes())
    with pytest.raises(UsageError, match="not of configuration c0"):
        read(tmp_path, "c0", truth())


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        write(tmp_path, "c0", name, {})


def test_arrays_of_different_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one label, score and box"):
        write(tmp_path, "c0", "a", {0: FrameDetections(np.zeros(2, np.int64), np.zeros(1), np.zeros((2, 4)))})
