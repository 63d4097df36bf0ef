"""What may happen to a worker, its disk, its clock and its device, and what becomes of its work."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from golden_rows import identity
from helpers import clip_folder
from likeness import alike
from sharded import CALIBRATED, HOW, MATCHED, each_once_predicted, said
from test_runner import BRISK

from vpbench.measure import machine
from vpbench.plan import identity as identities
from vpbench.plan import manifest
from vpbench.rows.contexts import contexts
from vpbench.rows.store import Store
from vpbench.run import lease, timing, work
from vpbench.run.lease import Leases

pytestmark = pytest.mark.usefixtures("hasty", "small", "unweighed", "quick")


def test_kill_9_of_a_worker_costs_one_part_and_another_takes_its_shard_over(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("sweep", *MATCHED, *HOW, "--only", "predict")
    out = tmp_path / "killed"
    monkeypatch.setattr(manifest, "SHARDS", 1)
    said("plan", *command[1:], "--out", out)
    victim = subprocess.Popen(
        [sys.executable, "-c", BRISK, *command, "--out", str(out), "--shard", "0/2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while len(list(out.glob("videos.parquet/*.parquet"))) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    there = len(Store(out).read("videos"))
    assert 7 <= there < 40, "it was killed before its end"
    assert list(out.glob("leases/*")), "it has left its lease"
    assert "0 running, 1 dead" in said("status", out)
    survivors = {path: path.stat().st_mtime_ns for path in out.glob("videos.parquet/*.parquet")}
    said(*command, "--out", out, "--shard", "1/2")
    assert {path: path.stat().st_mtime_ns for path in survivors} == survivors
    assert not list(out.glob("leases/*"))
    each_once_predicted(out, 40)
    said("finish", out)
    alike(one, out, exact=False)


def test_a_worker_that_was_taken_for_dead_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers on one shard: the first gives no sign of life for too long, and goes on after all."""
    command = ("sweep", *MATCHED, *HOW, "--only", "predict", "--out", tmp_path)
    said("plan", *command[1:])
    whole, began = work.predict_items, list[bool]()

    def slow(*given: Any) -> None:
        if not began:
            began.append(True)
            for path in tmp_path.glob("leases/*"):  # as whoever takes over does
                path.with_suffix(".2").write_text("elsewhere-1-1 000000000000 000000000000000\n")
            time.sleep(0.2)  # until the next heartbeat
            whole(*given)
            pytest.fail("it went on with what was no more its own")
        whole(*given)

    monkeypatch.setattr(work, "predict_items", slow)
    monkeypatch.setattr(lease, "STALE_S", 0.3)
    done = said(*command, "--shard", "0/1")
    assert "shard 0 has gone to another worker" in done
    said("finish", tmp_path)
    assert set(Store(tmp_path).read("results")["status"]) == {"ok"}


def test_a_clock_an_hour_off_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was predicted of a file that was replaced meanwhile wins, though its worker's clock is behind."""
    videos = clip_folder(tmp_path / "videos", good=3)
    where = ("--only", "predict", "--root", videos, "--out", tmp_path / "out")
    command = (*MATCHED, "--weights", "random", "--threads", "1", "--profile", "ci", *where)
    now = time.time_ns
    said("plan", *command)
    monkeypatch.setattr("vpbench.run.work.time.time_ns", lambda: now() + 3600 * 10**9)
    said("sweep", *command, "--shard", "0/2")
    first, second, _ = sorted(videos.glob("*.mp4"))
    shutil.copy(second, first)
    monkeypatch.setattr("vpbench.run.work.time.time_ns", now)
    said("plan", *command)
    assert "1 videos have changed" in said("sweep", *command, "--shard", "1/2")
    assert "changed" not in said("sweep", *command, "--shard", "1/2")
    said("finish", tmp_path / "out")
    rows = Store(tmp_path / "out").read("videos")
    pairs = rows[rows["video_id"].isin([first.stem, second.stem])].set_index(["prediction_id", "video_id"])
    assert pairs["file_digest"].nunique() == 1


def test_a_full_disk_and_a_read_only_folder_are_named_and_give_the_shard_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*MATCHED, *HOW, "--only", "predict", "--out", tmp_path)
    said("plan", *command)
    for number, advice in ((errno.ENOSPC, "free some space"), (errno.EROFS, "make the folder writable")):
        with monkeypatch.context() as patch:
            patch.setattr("vpbench.rows.store.write_whole", _refuses(number))
            assert advice in said("sweep", *command, "--shard", "0/2", code=1)
        assert not list(tmp_path.glob("leases/*"))
    with monkeypatch.context() as patch:
        patch.setattr("vpbench.rows.store.create", _refuses(errno.EROFS))
        assert "cannot write results here" in said("sweep", *command, "--shard", "0/2", code=2)
    said("sweep", *command, "--shard", "0/2")
    said("finish", tmp_path)


def _refuses(number: int) -> Callable[..., None]:
    def refuses(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuses


def test_a_worker_of_another_version_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (*CALIBRATED, *HOW, "--out", tmp_path)
    worker = ("sweep", *command, "--shard", "0/2")
    assert "holds no plan for videomae_embedded on synthmotion test; run `vpbench plan`" in said(*worker, code=2)
    said("plan", *command, "--only", "predict")
    weights = tmp_path / "other.pth"
    torch.save({}, weights)
    code, snapshot = identities.code_digest, machine.snapshot

    def other(name: str) -> str:
        return code(name)[::-1] if name == "rlt" else code(name)

    def commit(device: str = "cpu") -> machine.Machine:
        return dataclasses.replace(snapshot(device), torch_version="1.0.0")

    with monkeypatch.context() as patch:
        patch.setattr(identities, "code_digest", other)
        assert "but with other code of rlt (version " in said(*worker, code=2)
    with monkeypatch.context() as patch:
        patch.setattr(identities, "NUMBERS", 1000)
        assert "another version of vpbench" in said(*worker, code=2)
    with monkeypatch.context() as patch:
        patch.setattr(machine, "snapshot", commit)
        assert "and here it is 1.0.0" in said(*worker, code=2)
    embedded = ["embedded" if word == "random" else word for word in worker[3:]]
    assert "other weights: SHA-256 none there" in said(*worker[:3], *embedded, code=2)
    assert "tome keep=0.4 is not planned" in said("sweep", "--method", "tome", *worker[3:], code=2)
    assert not Store(tmp_path).parts("videos")


def test_a_device_of_another_model_predicts_and_leaves_times_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*MATCHED, *HOW, "--out", tmp_path)
    said("plan", *command)
    with monkeypatch.context() as patch:
        patch.setattr(machine, "model", lambda device: "Linux x86_64 Abacus 3000")
        assert "no times are taken here: it was planned for" in said("sweep", *command, "--shard", "0/2")
    store = Store(tmp_path)
    assert store.parts("videos")
    assert not store.parts("samples")
    said("sweep", *command, "--shard", "1/2")
    assert store.parts("samples")


def test_a_block_that_another_device_has_begun_is_timed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (*MATCHED, *HOW, "--out", tmp_path)
    said("plan", *command)
    write = Store.write

    def stopped(store: Store, table: str, part: str, rows: Any) -> None:
        if table == "work" and part.endswith("-rounds-000"):
            raise KeyboardInterrupt
        write(store, table, part, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stopped)
        patch.setattr(timing, "device_id", lambda device: "another")
        said("sweep", *command, "--shard", "0/2", code=130)
    assert set(Store(tmp_path).read("samples")["device_id"]) == {"another"}
    assert "timed anew on this one" in said("sweep", *command, "--shard", "1/2")
    assert set(Store(tmp_path).read("samples")["device_id"]) == {timing.device_id("cpu")}
    said("finish", tmp_path)
    assert set(Store(tmp_path).read("results")["device_id"]) == {timing.device_id("cpu")}


def test_one_worker_times_on_a_device_at_once(tmp_path: Path) -> None:
    command = (*MATCHED, *HOW, "--out", tmp_path)
    said("plan", *command)
    lease_of_another = Leases(tmp_path, "elsewhere-1-1").take(f"device-{timing.device_id('cpu')}")
    assert lease_of_another is not None
    with lease_of_another:
        assert "another worker takes times on this device" in said("sweep", *command, "--shard", "0/2")
    assert not Store(tmp_path).parts("samples")
    said("sweep", *command, "--shard", "0/2")
    assert Store(tmp_path).parts("samples")


def test_blocks_of_unlike_devices_are_on_no_front_together() -> None:
    rows = pd.DataFrame([identity(), identity("rlt", 0.4, device_name="Abacus 3000")])
    assert len(contexts(rows.assign(protocol=None, positions=None, exec_mode="eager"))) == 2


def test_a_cell_that_fails_in_a_shard_has_a_failed_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vpbench.methods.sta import Sta

    command = (*MATCHED, *HOW, "--out", tmp_path)
    said("plan", *command)
    attach = Sta.attach

    def broken(method: Any, backbone: Any) -> Any:
        pruner = attach(method, backbone)
        patch.setattr(pruner, "macs", _refuses(errno.EIO))
        return pruner

    with monkeypatch.context() as patch:
        patch.setattr(Sta, "attach", broken)
        said("sweep", *command, "--shard", "0/2")
    said("finish", tmp_path, code=1)
    rows = Store(tmp_path).read("results").set_index("method")
    assert rows.loc["sta", "status"] == "failed"
    assert "Input/output error" in str(rows.loc["sta", "error"])
    assert rows.loc["rlt", "status"] == "ok"
    said("plan", *command)
    said("sweep", *command, "--shard", "0/2")
    said("finish", tmp_path)
    assert set(Store(tmp_path).read("results")["status"]) == {"ok"}
