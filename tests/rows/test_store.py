from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from golden_rows import clip_rows, identity, measured, video_rows
from helpers import ROOT

from vpbench.errors import UsageError, VpbenchError
from vpbench.rows.schema import SCHEMAS
from vpbench.rows.store import STALE_S, Store, latest
from vpbench.run.group import done


def test_rows_come_back_with_their_types_even_where_all_are_null(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("results", "failed", [identity("rlt", 0.4, error="why")])
    store.write("results", "good", [measured("sta", 0.4)])
    back = store.read("results")
    assert list(back.columns) == SCHEMAS["results"].names
    assert back["top1"].isna().tolist() == [True, False]
    assert str(back["n_clips"].dtype) == "int64[pyarrow]"
    assert not store.problems
    assert pd.read_parquet(tmp_path / "results.parquet").shape == back.shape


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (identity(tpo1=0.5), "no column tpo1"),
        ({k: v for k, v in identity().items() if k != "method"}, "lacks method"),
        (identity(method_params=None), "lacks method_params"),
        (identity(n_clips="many"), "results"),
    ],
)
def test_wrong_rows_are_refused(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Store(tmp_path).write("results", "x", [row])
    assert not Store(tmp_path).parts("results")


def test_damaged_foreign_and_newer_files_are_named_and_skipped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("results", "good", [measured()])
    folder = tmp_path / "results.parquet"
    content = (folder / "good.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(content[:300])
    (folder / "empty.parquet").write_bytes(b"")
    pq.write_table(pa.table({"a": [1]}), folder / "foreign.parquet")
    newer = SCHEMAS["results"].with_metadata({b"vpbench.table": b"results", b"vpbench.schema_version": b"99"})
    pq.write_table(newer.empty_table(), folder / "newer.parquet")
    assert len(store.read("results")) == 1
    assert len(store.problems) == 4
    for name in ("cut", "empty", "foreign", "newer"):
        assert any(f"{name}.parquet" in problem for problem in store.problems)
    remedy = f"; delete it and run `vpbench finish --out {tmp_path}`"
    assert all(problem.endswith(remedy) for problem in store.problems), "rows are derived, nothing is measured again"


def test_a_prefix_reads_parts_and_ids_read_rows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("rlt-0.4", "sta-0.4"):
        store.write("clips", f"{name}-000000", clip_rows(name[:3], 0.4))
    store.write("clips", "together", [*clip_rows("rlt", 0.6), *clip_rows("sta", 0.6)])
    assert set(store.read("clips", "rlt-0.4")["prediction_id"]) == {"rlt-0.4"}
    assert len(store.read("clips")) == 1200
    found = store.read("clips", only={"rlt-0.4", "sta-0.6"}, columns=("macs", "prediction_id"))
    assert sorted(set(found["prediction_id"])) == ["rlt-0.4", "sta-0.6"]
    assert len(found) == 600
    assert store.read("clips", only=set()).empty


def test_files_of_other_ids_are_opened_once_and_a_replaced_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, opened = Store(tmp_path), list[str]()
    for part, method in (("a", "rlt"), ("b", "sta")):
        store.write("clips", part, clip_rows(method, 0.4))
    wanted, other = ({row["prediction_id"] for row in clip_rows(method, 0.4)} for method in ("rlt", "sta"))
    whole = pa.OSFile

    def opens(path: str) -> Any:
        opened.append(Path(path).stem)
        return whole(path)

    monkeypatch.setattr("pyarrow.OSFile", opens)
    first = store.read("clips", only=wanted)
    assert opened == ["a", "b"]
    opened.clear()
    assert store.read("clips", only=wanted).equals(first)
    assert opened == ["a"]
    again = [row | {"run_id": "r2"} for row in clip_rows("rlt", 0.4)]
    Store(tmp_path).write("clips", "b", again)  # as another process does
    assert set(store.read("clips", only=wanted)["run_id"]) == {"r2"}
    assert store.read("clips", only=other).empty


def test_configurations_share_what_they_predict(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("clips", "a", clip_rows("rlt", 0.4))
    rows = [measured("rlt", 0.4, config_id=f"batch-{n}", batch_size=n) for n in (1, 8)]
    store.write("results", "a", rows)
    found = store.predictions("clips", store.read("results"), ("clip_id", "macs"))
    assert found.groupby("config_id").size().to_dict() == {"batch-1": 300, "batch-8": 300}
    assert list(found.columns) == ["config_id", "prediction_id", "clip_id", "macs"]


def test_a_part_without_the_one_that_makes_it_whole_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_together("one", {"clips": clip_rows()[:2], "videos": video_rows()[:2]})
    assert (len(store.read("clips")), len(store.read("videos"))) == (2, 2)
    (tmp_path / "videos.parquet" / "one.parquet").unlink()
    assert store.read("clips").empty
    assert not store.problems, "its writer was stopped, and nothing of it is damaged"


def test_what_was_predicted_again_replaces_what_was_there_of_the_same_video(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("clips", "1", clip_rows()[:3])
    store.write("clips", "2", [row | {"macs": 7} for row in clip_rows()[1:2]])
    found = store.read("clips", columns=("video_id", "macs")).set_index("video_id")
    assert found["macs"].to_dict() == {"v000": 10**9, "v001": 7, "v002": 10**9}


def test_columns_are_read_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("clips", "a", clip_rows()[:2])
    store.write("clips", "b", clip_rows()[2:4])
    old = pq.read_table(tmp_path / "clips.parquet" / "b.parquet").drop_columns(["rgtp_macs"])
    pq.write_table(old, tmp_path / "clips.parquet" / "b.parquet")  # of a version that did not have the column
    found = store.read("clips", columns=("macs", "rgtp_macs", "clip_id"))
    assert list(found.columns) == ["macs", "rgtp_macs", "clip_id"]
    assert found["macs"].tolist() == [10**9] * 4
    assert found["rgtp_macs"].isna().all()
    assert not store.problems


def test_a_full_disk_is_one_line_and_leaves_nothing_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vpbench.storage.os.fsync", full)
    with pytest.raises(VpbenchError, match=r"No space left.*free some space"):
        store.write("results", "x", [measured()])
    assert not list((tmp_path / "results.parquet").iterdir())


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out"):
        Store(tmp_path / "file" / "out")
    with pytest.raises(UsageError, match="no such results folder"):
        Store(tmp_path / "missing", writable=False)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from golden_rows import clip_rows
from vpbench.rows.store import Store
store, rows = Store(Path({folder!r})), clip_rows() * 40
print("ready", flush=True)
while True:
    store.write("clips", "part", rows)
"""


def test_kill_9_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    code = WRITER.format(tests=str(ROOT / "tests"), folder=str(tmp_path))
    for wait in (0.3, 0.45):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(wait)
            writer.kill()
        store = Store(tmp_path)
        assert len(store.read("clips")) in (0, 12000)
        assert not store.problems


def test_left_over_temporary_files_are_removed_once_old(tmp_path: Path) -> None:
    Store(tmp_path)
    young, old = (tmp_path / "clips.parquet" / f".{name}.1.tmp" for name in ("young", "old"))
    for path in (young, old):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - STALE_S - 60,) * 2)
    Store(tmp_path)
    assert young.exists()
    assert not old.exists()


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    def write(number: int) -> None:
        store = Store(tmp_path)
        for part in range(10):
            store.write("results", f"w{number}-{part}", [measured("rlt", 0.4, config_id=f"{number}-{part}")])
            store.write("results", "same", [measured(config_id="same")])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = Store(tmp_path)
    assert len(store.read("results")) == 41
    assert not store.problems


def test_latest_prefers_ok_then_new(tmp_path: Path) -> None:
    now = pd.Timestamp("2026-01-01", tz="UTC")
    store = Store(tmp_path)
    rows = [
        measured("rlt", 0.4, timestamp_utc=now, top1=1.0),
        measured("rlt", 0.4, timestamp_utc=now + pd.Timedelta(hours=1), top1=2.0),
        identity("rlt", 0.4, timestamp_utc=now + pd.Timedelta(hours=2)),
        identity("sta", 0.4, timestamp_utc=now),
    ]
    for number, row in enumerate(rows):
        store.write("results", str(number), [row])
    kept = latest(store.read("results")).set_index("method")
    assert kept.loc["rlt", "top1"] == 2.0
    assert kept.loc["sta", "status"] == "failed"
    assert done(store) == {"rlt-0.4"}
