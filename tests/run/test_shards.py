"""Workers that share a results folder: the rows of one process, whatever happens to any of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import vid_tree
from helpers import ROOT, add_backbone
from likeness import alike
from sharded import CALIBRATED, HOW, MATCHED, each_once_predicted, said
from test_runner import BRISK

from vpbench import plan
from vpbench.commands.options import share
from vpbench.errors import UsageError
from vpbench.plan import manifest
from vpbench.rows.store import Store
from vpbench.run import lease, resolve, timing
from vpbench.run.executors.inline import Inline
from vpbench.run.executors.shards import Shards
from vpbench.run.finish import finish_all
from vpbench.run.lease import Leases
from vpbench.run.planned import plan_all

pytestmark = pytest.mark.usefixtures("hasty", "small", "unweighed", "quick")


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
    assert "predicted  40 of 40 videos x cells" in said("status", tmp_path, "--follow")


def test_what_nobody_has_done_is_no_success(tmp_path: Path) -> None:
    said("plan", *MATCHED, *HOW, "--out", tmp_path)
    assert "nothing of it has been measured" in said("finish", tmp_path, code=1)
    said("sweep", *MATCHED, *HOW, "--only", "predict", "--out", tmp_path, "--shard", "0/1")
    assert "times: 5 of 5 cells are planned to be timed" in said("finish", tmp_path)


def test_a_folder_without_plans_is_said_and_none_is_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no plans" in said("status", tmp_path / "empty", code=3)
    assert "holds no plan for" in said("sweep", *MATCHED, *HOW, "--out", tmp_path / "none", "--shard", "0/2", code=2)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("task", "count"), [("x", "2"), ("1", "0"), ("1", "")])
def test_a_slurm_that_tells_no_numbers_is_named(task: str, count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", count)
    with pytest.raises(UsageError, match=r"SLURM_ARRAY_TASK_ID is .*give --shard i/n"):
        share("slurm")


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
