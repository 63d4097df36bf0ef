"""Results of other files and of other computers: neither stands for what is asked here and now."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import clip_folder, vpbench

from vpbench.data import Video
from vpbench.measure import machine
from vpbench.rows.store import Store
from vpbench.tasks import recognition
from vpbench.tasks.recognition import Recognition

pytestmark = pytest.mark.usefixtures("hasty", "small", "unweighed")
SAID = "1 videos have changed since they were measured, and are measured again"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return clip_folder(tmp_path / "clips", good=3)


def run(folder: Path, out: Path, methods: str, *more: str) -> Any:
    command = (
        "sweep",
        "--method",
        methods,
        "--keep",
        "0.4",
        "--weights",
        "random",
        "--root",
        folder,
        "--profile",
        "ci",
    )
    return vpbench(*command, "--threads", "1", "--out", out, *more)


def rows(out: Path) -> dict[str, dict[Any, Any]]:
    found = Store(out).read("results")
    return {str(row["method"]): row for row in found.astype(object).where(found.notna(), None).to_dict("records")}


def replace_first(folder: Path) -> None:
    first, second, _ = sorted(folder.glob("*.mp4"))
    shutil.copy(second, first)


def runs_of(out: Path) -> dict[str, int]:
    """Return of each cell by how many runs its videos were predicted."""
    results = Store(out).read("results")
    videos = Store(out).predictions("videos", results, columns=("video_id", "run_id"))
    names = results.set_index("config_id")["method"]
    return {names[config_id]: own["run_id"].nunique() for config_id, own in videos.groupby("config_id")}


def test_all_cells_asked_for_are_measured_again_beside_a_new_one(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    assert run(folder, out, "topk").returncode == 0
    before = rows(out)
    replace_first(folder)
    done = run(folder, out, "topk,tdiff")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(SAID) == 1
    assert "6 of 12 predictions are there already" in done.stderr, "those of the replaced video are made again"
    after = rows(out)
    assert {row["status"] for row in after.values()} == {"ok"}
    assert runs_of(out) == {"dense": 2, "random": 2, "topk": 2, "tdiff": 1}
    assert all(after[name]["timestamp_utc"] > before[name]["timestamp_utc"] for name in before)
    assert all(after[name]["wall_ms_p50"] != before[name]["wall_ms_p50"] for name in before), "timed on other clips"
    assert "nothing to measure" in run(folder, out, "topk,tdiff").stdout


def test_groups_that_share_predictions_are_each_timed_again(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    assert run(folder, out, "topk", "--batch", "1,2").returncode == 0
    before = Store(out).read("results").set_index("config_id")["timestamp_utc"]
    assert len(before) == 6
    replace_first(folder)
    assert run(folder, out, "topk", "--batch", "1,2").returncode == 0
    after = Store(out).read("results").set_index("config_id")["timestamp_utc"]
    assert (after > before.loc[after.index]).all()


def test_a_cell_that_was_not_asked_for_is_not_compared_with_a_dense_of_other_files(
    tmp_path: Path, folder: Path
) -> None:
    out = tmp_path / "out"
    assert run(folder, out, "topk,tdiff", "--only", "predict").returncode == 0
    replace_first(folder)
    done = run(folder, out, "topk", "--only", "predict")
    assert done.returncode == 0, done.stderr
    reason = "1 videos were other files when it was measured than when dense was; run it again"
    found = rows(out)
    assert {name: row["status"] for name, row in found.items()} == {
        "dense": "ok", "random": "ok", "topk": "ok", "tdiff": "failed",
    }  # fmt: skip
    assert found["tdiff"]["error"] == reason
    assert found["tdiff"]["agree"] is None
    assert f"tdiff keep=0.4: failed: {reason}" in done.stderr
    assert run(folder, out, "topk,tdiff", "--only", "predict").returncode == 0
    assert {row["status"] for row in rows(out).values()} == {"ok"}


def test_another_date_of_the_same_file_measures_nothing(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    assert run(folder, out, "topk", "--only", "predict").returncode == 0
    for path in folder.glob("*.mp4"):
        os.utime(path, ns=(1, 1))
    again = run(folder, out, "topk", "--only", "predict")
    assert "nothing to measure" in again.stdout
    assert "changed" not in again.stderr


def test_timing_alone_says_that_predictions_are_of_other_files(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    assert run(folder, out, "topk").returncode == 0
    replace_first(folder)
    done = run(folder, out, "topk", "--only", "time")
    assert "1 videos have changed since they were predicted; run it again without --only time" in done.stderr


def test_on_another_computer_predictions_are_kept_and_times_are_taken_anew(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(folder, here, "topk").returncode == 0
    first = Store(here).read("results")
    shutil.copytree(here, there)
    for path in folder.glob("*.mp4"):
        os.utime(path, ns=(1, 1))
    monkeypatch.setattr(machine, "_cpu", lambda: ("Fast CPU 9000", set[str]()))
    done = run(folder, there, "topk")
    assert done.returncode == 0, done.stderr
    [name] = set(first["device_name"])
    assert f"has these cells timed on {name}: times are of their machine" in done.stderr
    assert "9 of 9 predictions are there already" in done.stderr
    found = Store(there).read("results")
    assert len(found) == 6
    new = found[found["device_name"] == "Fast CPU 9000"]
    assert set(new["prediction_id"]) == set(first["prediction_id"])
    assert not set(new["config_id"]) & set(first["config_id"])
    assert set(found[found["device_name"] == name]["wall_ms_p50"]) == set(first["wall_ms_p50"])
    assert "timed on" not in run(folder, there, "topk").stderr


def test_calibration_videos_that_were_replaced_make_other_cells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Source:
        def calibration(self) -> list[Any]:
            return [Video(path.name, path, 0) for path in sorted(folder.glob("*.mp4"))]

    setting: Any = None
    monkeypatch.setattr(recognition, "open_dataset", lambda _: Source())
    before = Recognition.calibration_digest(setting)
    for path in folder.glob("*.mp4"):
        os.utime(path, ns=(1, 1))
    assert Recognition.calibration_digest(setting) == before
    replace_first(folder)
    assert Recognition.calibration_digest(setting) != before
