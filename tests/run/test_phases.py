"""Predictions and times apart from each other, files that change, rows derived anew, folders of an older vpbench."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from golden_rows import clip_rows, measured, video_rows
from helpers import clip_folder, vpbench

from vpbench.backbones import loading
from vpbench.rows.schema import SCHEMAS
from vpbench.rows.store import Store
from vpbench.run import work
from vpbench.tasks.recognition import score

pytestmark = pytest.mark.usefixtures("hasty", "small", "unweighed")
# sta with a native parameter has a random control that copies its token counts, clip by clip
COMMAND = ("sweep", "--method", "sta", "--set", "sta.r=8", "--weights", "random", "--limit", "2", "--profile", "ci",
           "--threads", "1")  # fmt: skip


def rows(folder: Path) -> dict[str, dict[Any, Any]]:
    found = Store(folder).read("results").sort_values("method")
    return {str(row["method"]): row for row in found.astype(object).where(found.notna(), None).to_dict("records")}


def test_predicting_first_and_timing_later_is_the_whole(tmp_path: Path) -> None:
    assert vpbench(*COMMAND, "--out", tmp_path, "--only", "predict").returncode == 0
    predicted = rows(tmp_path)
    assert {row["status"] for row in predicted.values()} == {"ok"}
    assert all(row["agree"] is not None and row["wall_ms_p50"] is None for row in predicted.values())
    parts = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[cvf]*.parquet/*.parquet")}
    assert parts
    assert "nothing to measure" in vpbench(*COMMAND, "--out", tmp_path, "--only", "predict").stdout
    assert vpbench(*COMMAND, "--out", tmp_path, "--only", "time").returncode == 0
    whole = rows(tmp_path)
    assert {row["status"] for row in whole.values()} == {"ok"}
    assert all(row["agree"] is not None and row["wall_ms_p50"] is not None for row in whole.values())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("[cvf]*.parquet/*.parquet")} == parts
    assert "nothing to measure" in vpbench(*COMMAND, "--out", tmp_path).stdout
    assert rows(tmp_path) == whole


def test_times_alone_know_no_accuracy_and_controls_have_nothing_to_copy(tmp_path: Path) -> None:
    done = vpbench(*COMMAND, "--out", tmp_path, "--only", "time")
    assert done.returncode == 1
    timed = rows(tmp_path)
    assert {name: row["status"] for name, row in timed.items()} == {"dense": "ok", "sta": "ok", "random": "refused"}
    assert "predict first" in timed["random"]["error"]
    for name in ("dense", "sta"):
        assert timed[name]["wall_ms_p50"] > 0
        assert timed[name]["efficiency"] > 0
        assert all(timed[name][column] is None for column in ("agree", "kl", "top1", "keep_realised"))
    samples = Store(tmp_path).read("samples")
    assert Store(tmp_path).read("clips").empty
    assert vpbench(*COMMAND, "--out", tmp_path).returncode == 0
    whole = rows(tmp_path)
    assert {row["status"] for row in whole.values()} == {"ok"}
    assert all(row["agree"] is not None and row["wall_ms_p50"] is not None for row in whole.values())
    assert set(samples["wall_ns"]) <= set(Store(tmp_path).read("samples")["wall_ns"])


def test_rows_are_derived_anew_from_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vpbench(*COMMAND, "--out", tmp_path).returncode == 0
    another = (*COMMAND[:2], "tdiff", "--keep", "0.5", *COMMAND[5:])
    assert vpbench(*another, "--out", tmp_path).returncode == 0
    before = rows(tmp_path)
    monkeypatch.setattr(loading, "_build", lambda *_: pytest.fail("a network was loaded"))
    done = vpbench("finish", "--out", tmp_path)
    assert done.stdout.startswith("5 rows derived anew"), done.stderr
    assert rows(tmp_path) == before, "the same rows, timestamps included"
    monkeypatch.setattr(score, "by_question", lambda *_: {"verb_top1": 12.5})  # a mend in statistics
    assert vpbench("finish", "--out", tmp_path).returncode == 0
    assert rows(tmp_path) == {name: row | {"verb_top1": 12.5} for name, row in before.items()}
    nothing = vpbench("finish", "--out", Store(tmp_path / "empty").folder)
    assert nothing.returncode == 3
    assert "run or sweep" in nothing.stderr


def test_a_video_that_was_replaced_is_predicted_again(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clips", good=3)
    command = ("run", "--method", "rlt", "--keep", "0.4", "--weights", "random", "--root", folder, "--profile", "ci",
               "--threads", "1", "--only", "predict", "--out", tmp_path / "out")  # fmt: skip
    assert vpbench(*command).returncode == 0
    before = Store(tmp_path / "out").read("videos").set_index(["prediction_id", "video_id"])
    first, second, _ = sorted(folder.glob("*.mp4"))
    shutil.copy(second, first)
    again = vpbench(*command)
    assert again.returncode == 0
    changed = [line for line in again.stderr.splitlines() if "changed" in line]
    assert changed == ["1 videos have changed since they were measured, and are measured again"]
    after = Store(tmp_path / "out").read("videos").set_index(["prediction_id", "video_id"])
    assert len(after) == len(before) == 9
    differ = {video for (_, video), same in (after["run_id"] == before.loc[after.index, "run_id"]).items() if not same}
    assert len(differ) == 1
    clips = Store(tmp_path / "out").read("clips")
    assert not clips.duplicated(["prediction_id", "clip_id"]).any()
    assert "nothing to measure" in vpbench(*command).stdout


def test_a_folder_of_an_older_vpbench_is_shown_and_what_is_measured_again_is_said(tmp_path: Path) -> None:
    Store(tmp_path)
    older = [measured(schema_version=6), measured("rlt", 0.4, schema_version=6)]
    _as_version_6(tmp_path, "results", older, overhead=pa.float64(), prune_host_ms=pa.float64())
    for table, content in (("clips", clip_rows), ("videos", video_rows)):
        _as_version_6(tmp_path, table, [*content(), *content("rlt", 0.4)])
    shown = vpbench("table", tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "88.0" in shown.stdout
    assert "warning" not in shown.stderr
    seen = Store(tmp_path).predictions("videos", Store(tmp_path).read("results"))
    assert seen.groupby("config_id").size().to_dict() == {"dense-None": 300, "rlt-0.4": 300}
    command = ("run", "--method", "dense", "--weights", "random", "--limit", "1", "--profile", "ci", "--threads", "1",
               "--only", "predict", "--out", tmp_path)  # fmt: skip
    done = vpbench(*command)
    assert done.returncode == 0, done.stderr
    assert "holds 2 rows of an older vpbench, whose ids knew no machine" in done.stderr
    assert "the 1 cells asked for are measured again" in done.stderr
    assert len(Store(tmp_path).read("results")) == 3
    assert "older" not in vpbench(*command).stderr


def _as_version_6(folder: Path, table: str, content: list[dict[str, Any]], **dropped: pa.DataType) -> None:
    """Write a part as version 6 did: one kind of id, columns that have gone since, and none of those that came."""
    schema = SCHEMAS[table]
    key = {"prediction_id": "config_id"} if table != "results" else {}
    came = {"block", "batch", "file_bytes", "file_mtime_ns", *({"prediction_id"} if table == "results" else ())}
    fields = [pa.field(key.get(f.name, f.name), f.type, f.nullable) for f in schema if f.name not in came]
    fields += [pa.field(name, kind) for name, kind in dropped.items()]
    marks = {b"vpbench.schema_version": b"6", b"vpbench.table": table.encode()}
    old = [{key.get(name, name): value for name, value in row.items()} for row in content]
    pq.write_table(
        pa.Table.from_pylist(old, schema=pa.schema(fields, metadata=marks)),
        folder / f"{table}.parquet" / "older.parquet",
    )


def test_rows_of_a_part_of_the_predictions_score_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed run has predicted is no accuracy yet, and times that are taken meanwhile do not make it one."""
    monkeypatch.setattr(work, "SETTLE_SHARE", 9.0)  # one part
    assert vpbench(*COMMAND, "--out", tmp_path, "--only", "predict").returncode == 0
    for table in ("clips", "videos"):
        [part] = Store(tmp_path).parts(table)
        content = Store(tmp_path).read_arrow(table)
        kept = content.filter(pc.equal(content["video_id"], content["video_id"][0]))
        Store(tmp_path).write(table, part, kept)
    for path in tmp_path.glob("results.parquet/*.parquet"):
        path.unlink()
    vpbench(*COMMAND, "--out", tmp_path, "--only", "time")
    assert all(row["agree"] is None for row in rows(tmp_path).values())
    assert vpbench(*COMMAND, "--out", tmp_path).returncode == 0
    videos: pd.DataFrame = Store(tmp_path).read("videos")
    assert not videos.duplicated(["prediction_id", "video_id"]).any()
    assert {row["n_videos"] for row in rows(tmp_path).values()} == {2}
