"""Fates beside the results: packed small, written once per cell, read back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpbench import plan
from vpbench.rows import fates
from vpbench.rows.fates import DROPPED, Fate, Sample, Stage, packed, row_of, shown, unpacked, whole
from vpbench.rows.store import Store
from vpbench.run import resolve, work
from vpbench.tasks import task_of
from vpbench.tasks.recognition import Recognition
from vpbench.tasks.task import Attached

GRID, TUBELET = (4, 14, 14), (2, 16, 16)


def mosaic(tokens: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Ids of which some are dropped and some merged."""
    draw = np.random.default_rng(seed)
    return np.where(draw.random(tokens) < 0.4, DROPPED, draw.permutation(tokens) // 2).astype(np.int32)


def of(store: Store, *names: str) -> pd.DataFrame:
    """The fates of configurations that are named like what they predict."""
    return store.predictions("fates", pd.DataFrame({"config_id": names, "prediction_id": names}))


@given(st.lists(st.integers(DROPPED, 49), min_size=50, max_size=50))
def test_ids_come_back_as_they_were(ids: list[int]) -> None:
    token = np.array(ids, np.int32)
    np.testing.assert_array_equal(unpacked(packed(token)), token)


def test_ids_are_small() -> None:
    kept = np.random.default_rng(0).random(1568) < 0.5
    own = np.arange(1568, dtype=np.int32)
    assert len(packed(own)) < 50
    assert len(packed(np.where(kept, own, DROPPED).astype(np.int32))) < 800
    assert len(packed(mosaic(1568))) < 3500


def sample(side: int = 224) -> Sample:
    y, x = np.mgrid[:side, :side] * (255 / side)
    frames = np.stack([np.stack([x, y, np.full_like(x, 40 * t)], axis=-1) for t in range(4)]).astype(np.uint8)
    return Sample("v/0", "v", frames, None)


def test_a_fate_and_its_frames_go_through_the_store(tmp_path: Path) -> None:
    store, own = Store(tmp_path), {"run_id": "r", "dense_id": "dense"}
    token = mosaic(784)
    reduced = Fate("v/0", GRID, TUBELET, (Stage("block 0", mosaic(784, 1)), Stage("block 3", token)))
    store.write(
        "fates",
        "dense",
        [own | {"prediction_id": "dense"} | row_of(whole("v/0", GRID, TUBELET), sample(), frames=True)],
    )
    store.write("fates", "other", [own | {"prediction_id": "other"} | row_of(reduced, sample(), frames=False)])
    [found] = shown(of(store, "dense", "other"))
    assert (found.clip_id, found.video_id, list(found.fates)) == ("v/0", "v", ["dense", "other"])
    assert found.fates["dense"].left() == 784
    read = found.fates["other"]
    assert (read.grid, read.tubelet, read.stages[-1].name) == (GRID, TUBELET, "block 3")
    np.testing.assert_array_equal(read.final, token)
    assert found.frames.shape == (4, 126, 126, 3)  # whole pixels for each token
    np.testing.assert_allclose(found.frames[2, 60, 30], [30 * 255 / 126, 60 * 255 / 126, 80], atol=8)
    files = sum(path.stat().st_size for path in tmp_path.rglob("other.parquet"))
    assert files < 10_000


def test_small_frames_are_kept_as_they_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    clip = sample(28)
    row = row_of(whole("v/0", GRID, (2, 2, 2)), clip, frames=True)
    store.write("fates", "d", [{"run_id": "r", "dense_id": "d", "prediction_id": "d"} | row])
    [found] = shown(of(store, "d"))
    assert found.frames.shape == clip.frames.shape


def test_clips_without_frames_are_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row = row_of(whole("v/0", GRID, TUBELET), sample(), frames=False)
    store.write("fates", "d", [{"run_id": "r", "dense_id": "gone", "prediction_id": "d"} | row])
    assert shown(of(store, "d")) == []
    assert shown(of(Store(tmp_path / "empty"), "d")) == []


@pytest.fixture(scope="module")
def task() -> Recognition:
    asked = plan.options({"method": ("dense",), "limit": 2, "threads": 1, "split": "ci"})
    found = task_of("synthmotion", "videomae_embedded").open(resolve.resolve(asked)[0])
    assert isinstance(found, Recognition)
    return found


def ready(task: Recognition, method: str, prediction_id: str) -> Attached:
    keep = None if method == "dense" else 0.5
    return task.attach(plan.Cell("", prediction_id, task.setting, method, keep=keep))


def test_runs_keep_the_first_clips_of_each_cell(task: Recognition, tmp_path: Path) -> None:
    store, cells = Store(tmp_path), [ready(task, "dense", "d"), ready(task, "random", "a")]
    work.follow(task, cells, store, "first", force=False)
    found = shown(of(store, "d", "a"))
    assert [each.video_id for each in found] == task.items[: fates.CLIPS]
    assert all(set(each.fates) == {"a", "d"} for each in found)
    assert [found[0].fates[name].left() for name in "da"] == [512, 256]
    # what is there is left alone, unless it is to be done again
    work.follow(task, cells, store, "second", force=False)
    assert set(store.read("fates")["run_id"]) == {"first"}
    work.follow(task, cells, store, "third", force=True)
    assert set(store.read("fates")["run_id"]) == {"third"}


def test_a_cell_that_cannot_be_followed_is_named_and_ends_nothing(
    task: Recognition, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, broken, good = Store(tmp_path), ready(task, "rlt", "b"), ready(task, "random", "g")
    monkeypatch.setattr(broken.pruner, "video", lambda batch: 1 / 0)
    failed = ready(task, "random", "f")
    failed.fail(ValueError("before"))
    work.follow(task, [ready(task, "dense", "d"), broken, failed, good], store, "run", force=False)
    assert store.parts("fates") == {"d-run", "g-run"}
    assert "rlt keep=0.5: no picture of its tokens: ZeroDivisionError: division by zero" in capsys.readouterr().err
