"""Columns of precision from detections whose precision is known, and tables from before there were any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vid_tree
from golden_rows import identity
from helpers import add_backbone

from vpbench import plan
from vpbench.rows.schema import SCHEMAS, TABLE_KEY, VERSION_KEY
from vpbench.rows.store import Store
from vpbench.tasks.detection import score
from vpbench.tasks.detection.session import DetectionSession
from vpbench.tasks.detection.stored import TABLE, FrameDetections, table_of
from vpbench.tasks.task import Stored

NEW = {"task", "map", "map_definition", "map50_slow", "vs_random_pp", "problems", "gmacs_rgtp", "transformer_ms_p50"}


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DetectionSession:
    add_backbone(monkeypatch, "vitdet_tiny", vid_tree.TINY)
    asked = plan.options(
        {"method": ("rgtp",), "dataset": "imagenet_vid", "root": vid_tree.build(tmp_path / "vid")}
        | {"backbone": "vitdet_tiny", "weights": str(vid_tree.weights(tmp_path)), "set": ("rgtp.keep_ratio=0.3",)}
    )
    return DetectionSession(plan.setting(asked, 1, "val"))


def plant(session: DetectionSession, store: Store, prediction_id: str, unread: int = -1, lost: str = "") -> Stored:
    """Write all objects as detections: but for one frame that was not read, and the birds of one video."""
    for video, segments in session.videos.items():
        found = {}
        for frame in (frame for segment in segments for frame in segment.frames):
            kept = frame.boxes.labels != 4 if video == lost else frame.boxes.labels >= 0
            found[frame.number] = FrameDetections(
                frame.boxes.labels[kept], np.ones(int(kept.sum())), frame.boxes.xyxy[kept]
            )
            if frame.number == unread:
                found[frame.number] = FrameDetections.unreadable("planted")
        store.write(TABLE, f"{prediction_id}-{video}", table_of(prediction_id, video, found))
    return Stored({}, store.folder, prediction_id)


def test_precision_and_differences(session: DetectionSession, tmp_path: Path) -> None:
    store, setting = Store(tmp_path), session.setting
    dense = plant(session, store, "dense")
    rgtp = plant(session, store, "rgtp", lost="00007010")
    random = plant(session, store, "random", unread=20)
    whole = score.quality(setting, dense, dense, None)
    assert (whole["map50"], whole["map"]) == (100, 100)
    assert (whole["map50_ci_lo"], whole["map50_ci_hi"]) == (100, 100)
    assert {"delta_pp", "vs_random_pp"}.isdisjoint(whole)
    # a bird in each of 5 and 7 frames, zebras in all: half the classes lose all recall above 5 of 12
    own = score.quality(setting, rgtp, dense, random)
    reached = (int(5 / 12 * 100) + 1) / 101
    assert own["map50"] == pytest.approx(100 * (1 + reached) / 2)
    assert own["delta_pp"] == pytest.approx(own["map50"] - 100)
    assert own["delta_ci_lo"] <= own["delta_pp"] <= own["delta_ci_hi"] <= 0
    # the frame that random could not read takes no part in their difference
    assert own["vs_random_pp"] == pytest.approx(100 * (1 + (int(5 / 11 * 100) + 1) / 101) / 2 - 100)
    unread = score.quality(setting, random, dense, None)
    assert "frames that could not be read" in unread["problems"]
    assert unread["delta_pp"] == 0
    # birds stay where they are; zebras move by a pixel a frame, which is slow in the segment of three frames only
    assert own["map50_slow"] == pytest.approx(own["map50"])
    assert own["map50_medium"] == 100


def test_random_weights_have_no_precision(session: DetectionSession, tmp_path: Path) -> None:
    dense = plant(session, Store(tmp_path), "dense")
    assert score.quality(replace(session.setting, weights="random"), dense, dense, None) == {"problems": None}


def test_tables_from_before_detection_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = SCHEMAS["results"]
    for name in NEW:
        old = old.remove(old.get_field_index(name))
    old = old.with_metadata({VERSION_KEY: b"1", TABLE_KEY: b"results"})
    pq.write_table(pa.Table.from_pylist([identity()], schema=old), tmp_path / "results.parquet" / "old.parquet")
    [row] = store.read("results").to_dict("records")
    assert not store.problems
    assert row["method"] == "dense"
    assert all(store.read("results")[name].isna().all() for name in NEW)
