"""Workers that share a results folder: the rows of one process, whatever happens to any of them."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib
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
import vid_tree
from golden_rows import identity
from helpers import ROOT, add_backbone, clip_folder, vpbench
from likeness import alike
from test_runner import BRISK

from vpbench import plan
from vpbench.measure import machine
from vpbench.plan import identity as identities
from vpbench.plan import manifest
from vpbench.rows.contexts import contexts
from vpbench.rows.store import Store
from vpbench.run import lease, resolve, timing, work
from vpbench.run.executors import shards
from vpbench.run.executors.inline import Inline
from vpbench.run.executors.shards import Shards
from vpbench.run.finish import finish_all
from vpbench.run.lease import Leases
from vpbench.run.planned import plan_all

#: the module; in its package the name is a function's
predicting = importlib.import_module("vpbench.tasks.recognition.predict")
pytestmark = pytest.mark.usefixtures("hasty", "small", "unweighed")
#: adaptive methods, with a threshold from calibration clips, and controls that copy token counts clip by clip
CALIBRATED = ("--method", "random,rlt,sta", "--keep", "0.4")
MATCHED = ("--method", "rlt,sta", "--set", "sta.r=8")
HOW = ("--weights", "random", "--limit", "8", "--threads", "1", "--profile", "ci")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four shards of any number of items, and short waits."""
    monkeypatch.setattr(manifest, "SHARDS", 4)
    monkeypatch.setattr(manifest, "LEAST", 1)
    monkeypatch.setattr(shards, "POLL_S", 0.02)
    monkeypatch.setattr(lease, "BEAT_S", 0.02)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict clips alone: how many go together follows the time that they take, and so do the last bits of sums."""
    monkeypatch.setattr(predicting, "TOGETHER", 1)


@pytest.fixture
def one_shard_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop each worker after its first shard, as Ctrl-C does."""
    whole = shards._Worker._shard

    def shard(worker: Any, *given: Any) -> None:
        if getattr(worker, "did", False):
            raise KeyboardInterrupt
        whole(worker, *given)
        worker.did = True

    monkeypatch.setattr(shards._Worker, "_shard", shard)


def said(*arguments: str | Path, code: int = 0) -> str:
    done = vpbench(*arguments)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.usefixtures("one_shard_each", "one_by_one")
@pytest.mark.parametrize("methods", [CALIBRATED, MATCHED], ids=["calibrated", "matched"])
def test_four_shards_in_any_order_give_the_rows_of_one_process(methods: tuple[str, ...], tmp_path: Path) -> None:
    one, four = tmp_path / "one", tmp_path / "four"
    said("sweep", *methods, *HOW, "--only", "predict", "--out", one)
    said("plan", *methods, *HOW, "--only", "predict", "--out", four)
    for number in (2, 0, 3):
        said("sweep", *methods, *HOW, "--only", "predict", "--out", four, "--shard", f"{number}/4", code=130)
    missing = said("finish", four, code=1)
    assert "missing: dense: 2 items (" in missing
    assert "vpbench status" in missing
    rows = Store(four).read("results")
    assert set(rows["status"]) == {"failed"}
    assert rows["error"].str.contains("of 8 are not predicted yet").all()
    assert "3 of 4 shards" not in said("sweep", *methods, *HOW, "--only", "predict", "--out", four, "--shard", "1/4")
    for _ in range(2):
        assert "rows derived anew" in said("finish", four)
        alike(one, four)
    each_shard = {name.rpartition("-")[2] for name in Store(four).parts("videos")}
    assert each_shard == {f"{number:05d}" for number in range(4)}


@pytest.mark.parametrize("keep", [True, False], ids=["calibrated", "own parameters"])
@pytest.mark.usefixtures("one_shard_each")
def test_shards_of_videos_with_boxes_too(keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_backbone(monkeypatch, "vitdet_tiny", vid_tree.TINY)
    videos = {f"{number:08d}": range(3 * number, 3 * number + 3) for number in range(4)}
    tree, weights = vid_tree.build(tmp_path / "vid", videos), vid_tree.weights(tmp_path)
    given = {"method": ("rgtp",), "dataset": "imagenet_vid", "root": tree, "backbone": "vitdet_tiny"}
    given |= {"weights": str(weights), "profile": "ci", "threads": 1}
    given |= {"keep": (0.4,)} if keep else {"set": ("rgtp.keep_ratio=0.3",)}
    jobs = {
        name: resolve.job(plan.options(given | {"out": tmp_path / name}), "test command") for name in ("one", "four")
    }
    assert Inline()(jobs["one"], "predict").failed == 0
    plan_all(jobs["four"], Store(tmp_path / "four"), "predict")
    for number in (3, 1, 0):
        with pytest.raises(KeyboardInterrupt):
            Shards(number, 4)(jobs["four"], "predict")
    Shards(2, 4)(jobs["four"], "predict")
    finish_all(Store(tmp_path / "four"))
    rows = Store(tmp_path / "four").read("results")
    assert rows["map50"].notna().all()
    alike(tmp_path / "one", tmp_path / "four")


def test_a_plan_is_frozen_and_nothing_is_derived_or_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*CALIBRATED, *HOW, "--out", tmp_path)
    assert "4 cells, 0 of them refused; 8 items in 4 shards" in said("plan", *command)
    [frozen] = manifest.every(tmp_path)
    monkeypatch.setattr(
        "vpbench.tasks.attach.at_keep", lambda *_: pytest.fail("a worker has derived another threshold")
    )
    assert "nothing left to do for this worker" in said("sweep", *command, "--shard", "0/2")
    assert Store(tmp_path).read("results").empty, "rows are written by finish alone"
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet/*")}
    said("sweep", *command, "--shard", "2/2")
    said("plan", *command)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet/*")} == stamps
    said("finish", tmp_path)
    rows = Store(tmp_path).read("results")
    assert set(rows["status"]) == {"ok"}
    assert rows[["wall_ms_p50", "speedup", "mem_peak_rss_mb", "agree", "keep_realised"]].notna().all(axis=None)
    assert set(rows["device_id"]) == {timing.device_id("cpu")}
    assert "nothing to measure" in said("sweep", *command)
    [after] = manifest.every(tmp_path)
    assert [each.parameters for each in after.cells] == [each.parameters for each in frozen.cells]


@pytest.fixture(scope="module")
def one(hasty: None, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process predicts."""
    folder = tmp_path_factory.mktemp("one")
    said("sweep", *MATCHED, *HOW, "--only", "predict", "--out", folder)
    return folder


def test_two_workers_at_once_share_the_work(one: Path, tmp_path: Path) -> None:
    command = ("sweep", *MATCHED, *HOW, "--only", "predict")
    said("plan", *command[1:], "--out", tmp_path / "two")
    code = BRISK.replace("from vpbench.run import work", "from vpbench.run import work, lease; lease.BEAT_S = 0.05")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, *command, "--out", str(tmp_path / "two"), "--shard", f"{number}/2"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    workers = {name.split("-")[2] for name in Store(tmp_path / "two").parts("videos")}
    assert len(workers) == 2, "both have worked"
    said("finish", tmp_path / "two")
    alike(one, tmp_path / "two", exact=False)


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


def each_once_predicted(folder: Path, count: int) -> None:
    """Check that each video lies there once for each cell, in all parts together."""
    store = Store(folder)
    rows = pd.concat([store.read("videos", parts={name}) for name in store.parts("videos")])
    assert len(rows) == count
    assert not rows.duplicated(["prediction_id", "video_id"]).any()


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
    said("finish", tmp_path)
    rows = Store(tmp_path).read("results").set_index("method")
    assert rows.loc["sta", "status"] == "failed"
    assert "Input/output error" in str(rows.loc["sta", "error"])
    assert rows.loc["rlt", "status"] == "ok"
    said("plan", *command)
    said("sweep", *command, "--shard", "0/2")
    said("finish", tmp_path)
    assert set(Store(tmp_path).read("results")["status"]) == {"ok"}


def test_status_tells_done_running_dead_and_missing(tmp_path: Path, one_shard_each: None) -> None:
    command = (*MATCHED, *HOW, "--only", "predict", "--out", tmp_path)
    said("plan", *command)
    assert "0 of 4 shards" not in said("status", tmp_path)
    said("sweep", *command, "--shard", "0/4", code=130)
    [frozen] = manifest.every(tmp_path)
    part = next(name for name in Store(tmp_path).parts("work") if name.endswith("-00000-predicted"))
    name = part.removesuffix("-00000-predicted")
    alive, silent = (Leases(tmp_path, f"{host}-1-1").take(f"{name}-0000{n}") for n, host in ((1, "a"), (2, "b")))
    assert alive is not None
    assert silent is not None
    with alive:
        shown = said("status", tmp_path)
        assert "shards     1 of 4 done, 1 running, 1 dead, 1 missing" in shown
        assert "with 1 worker at it" in shown
        assert "nothing tells" not in shown
    assert len(frozen.shards) == 4


def test_following_ends_with_the_work(tmp_path: Path) -> None:
    command = (*MATCHED, *HOW, "--only", "predict", "--out", tmp_path)
    said("plan", *command)
    assert "no worker is at it" in said("status", tmp_path, "--follow")
    said("sweep", *command, "--shard", "0/1")
    assert "all workers: 40/40 steps" in said("status", tmp_path, "--follow")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("--shard", "3"), "give i/n"),
        (("--shard", "5/4"), "give i/n"),
        (("--shard", "slurm"), "SLURM_ARRAY_TASK_ID is not set"),
        (("--shard", "0/2", "--force"), "--force is for one process"),
        (("--shard", "0/2", "--executor", "ray"), "--executor ray starts them itself"),
    ],
)
def test_options_that_do_not_go_together_are_named(given: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    assert reason in said("run", "--method", "rlt", *given, "--out", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")


def test_a_task_of_a_slurm_array_is_a_worker(tmp_path: Path, slurm: None) -> None:
    command = ("--method", "dense", *HOW, "--only", "predict", "--out", tmp_path)
    said("plan", *command)
    said("sweep", *command, "--shard", "slurm")
    assert "1 rows derived anew" in said("finish", tmp_path)
    echo = tmp_path / "bin" / "vpbench"
    echo.parent.mkdir()
    echo.write_text('#!/bin/sh\necho "$@"\n')
    echo.chmod(0o755)
    there = os.environ | {"PATH": f"{echo.parent}:{os.environ['PATH']}"}
    script = ["bash", str(ROOT / "docs" / "slurm.sh"), "--config", "a b.toml"]
    shown = subprocess.run(script, env=there, capture_output=True, text=True, check=True).stdout
    assert shown == "sweep --config a b.toml --shard slurm\n"


def test_a_worker_waits_for_others_and_takes_over_what_they_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (*MATCHED, *HOW, "--only", "predict", "--out", tmp_path)
    said("plan", *command)
    [frozen] = manifest.every(tmp_path)
    own = hashlib.sha256(",".join(sorted(cell.config_id for cell in frozen.cells)).encode()).hexdigest()[:12]
    assert Leases(tmp_path, "elsewhere-1-1").take(f"{frozen.dense.config_id}-{own}-00001") is not None
    monkeypatch.setattr(lease, "STALE_S", 0.5)  # nobody keeps it alive
    said("sweep", *command, "--shard", "0/1")
    each_once_predicted(tmp_path, 40)
    assert not list(tmp_path.glob("leases/*"))
