"""Sweeps that are disturbed: killed, raced, fed with broken files and broken methods."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import HASTY, ROOT, SAME, add_broken, clip_folder, vpbench

from vpbench import registry
from vpbench.rows.store import Store, latest

pytestmark = pytest.mark.usefixtures("hasty", "small", "unweighed")
#: what a process of its own begins with: the small network of the others
SMALLER = (
    f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); "
    "import helpers, pytest; helpers.smaller(pytest.MonkeyPatch()); "
)
#: runs quickly, and keeps each prediction in a part of its own
BRISK = f"{SMALLER}from vpbench.run import work; work.SETTLE_S = 0.0; {HASTY}"
#: times very many rounds, so that it does not end before it is killed
MANY = HASTY.replace("cli.main()", "plan.PROFILES['ci'] = plan.Profile(5000, 0.0, 0.0, 0.1); cli.main()")
#: keeps each round in a part of its own
PATIENT = (
    f"{SMALLER}import functools; from vpbench.measure import clock; "
    f"clock.time_rounds = functools.partial(clock.time_rounds, keep_s=0.0); {MANY}"
)
VIDEOS = 6
SWEEP = (
    "sweep",
    "--method",
    "random,rlt,sta",
    "--keep",
    "0.4",
    "--weights",
    "random",
    "--limit",
    str(VIDEOS),
    "--threads",
    "1",
    "--profile",
    "ci",
)
RUN = ("run", "--method", "rlt", "--weights", "random", "--profile", "ci", "--threads", "1")
QUICK = ("--weights", "random", "--limit", "3", "--profile", "ci", "--threads", "1")


def deterministic(folder: Path) -> pd.DataFrame:
    return latest(Store(folder).read("results"))[list(SAME)].sort_values("config_id").reset_index(drop=True)


def killed(code: str, arguments: tuple[str | Path, ...], once: Callable[[], bool]) -> None:
    """Run a command in a process of its own and kill it once something is there."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as victim:
        deadline = time.monotonic() + 200
        while not once() and victim.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert victim.poll() is None, "it ended before it could be killed"
        victim.send_signal(signal.SIGKILL)


def each_once(folder: Path) -> None:
    """Check that no clip, video or round has two rows."""
    store = Store(folder)
    for table, key in {
        "clips": ["prediction_id", "clip_id"],
        "videos": ["prediction_id", "video_id"],
        "samples": ["config_id", "scope", "round"],
    }.items():
        rows = store.read(table)
        assert len(rows), table
        assert not rows.duplicated(key).any(), table
    assert not store.problems


@pytest.fixture(scope="module")
def undisturbed(hasty: None, small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole sweep."""
    out = tmp_path_factory.mktemp("undisturbed")
    done = vpbench(*SWEEP, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_cell_has_a_row_with_all_measurements(undisturbed: Path) -> None:
    rows = Store(undisturbed).read("results")
    assert sorted(rows["method"]) == ["dense", "random", "rlt", "sta"]
    for column in (
        "speedup",
        "wall_ms_p50",
        "gmacs_executed",
        "mem_peak_rss_mb",
        "agree",
        "kl",
        "efficiency",
        "aa_ratio",
    ):
        assert rows[column].notna().all(), column
    assert rows["top1"].isna().all(), "accuracy with random weights means nothing and must not be shown"
    dense = rows[rows["method"] == "dense"].iloc[0]
    assert (dense["keep_realised"], dense["agree"], dense["kl"]) == (1.0, 1.0, 0.0)
    samples = Store(undisturbed).read("samples")
    assert set(samples["config_id"]) == {*rows["config_id"], dense["config_id"] + "-aa"}
    assert samples.groupby("config_id").size().nunique() == 1


def test_a_second_run_measures_nothing_and_force_does(undisturbed: Path) -> None:
    before = len(Store(undisturbed).read("results"))
    again = vpbench(*SWEEP, "--out", undisturbed)
    assert again.returncode == 0
    assert "nothing to measure" in again.stdout
    assert len(Store(undisturbed).read("results")) == before
    small = ("run", "--method", "random", "--keep", "0.4", *QUICK)
    stamps = []
    for force in ((), ("--force",)):
        assert vpbench(*small, *force, "--out", undisturbed / "force").returncode == 0
        rows = Store(undisturbed / "force").read("results")
        assert len(rows) == 2
        stamps.append(rows.set_index("config_id")["timestamp_utc"])
    assert (stamps[1] > stamps[0]).all()
    each_once(undisturbed / "force")


def test_kill_9_in_the_middle_repeats_nothing_and_tears_nothing(undisturbed: Path, tmp_path: Path) -> None:
    brisk = BRISK.replace(HASTY, MANY)
    killed(brisk, (*SWEEP, "--out", tmp_path), lambda: len(list(tmp_path.glob("videos.parquet/*.parquet"))) >= 5)
    # as if it had been stopped between the two files of a part
    sorted(tmp_path.glob("videos.parquet/*.parquet"))[-1].unlink()
    videos = {path.name for path in tmp_path.glob("videos.parquet/*.parquet")}
    # a part is done once its videos are written too, which comes last
    survivors = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.glob("*.parquet/*.parquet")
        if path.parent.name != "clips.parquet" or path.name in videos
    }
    assert survivors
    store = Store(tmp_path)
    assert len(store.read("clips")) == len(videos), "clips without their videos do not count"
    assert not store.problems
    again = vpbench(*SWEEP, "--out", tmp_path)
    assert again.returncode == 0
    assert f"{len(videos)} of {4 * VIDEOS} predictions are there already" in again.stderr
    each_once(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in survivors} == survivors
    pd.testing.assert_frame_equal(deterministic(tmp_path), deterministic(undisturbed))


def test_kill_9_while_timing_keeps_the_rounds(tmp_path: Path) -> None:
    command = (*RUN, "--keep", "0.4", "--limit", "2", "--out", tmp_path)
    assert vpbench(*command, "--only", "predict").returncode == 0
    killed(PATIENT, command, lambda: len(list(tmp_path.glob("samples.parquet/*.parquet"))) >= 2)
    survivors = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[scv]*.parquet/*.parquet")}
    first = int(Store(tmp_path).read("samples")["round"].max()) + 1
    again = vpbench(*command)
    assert again.returncode == 0, again.stderr
    assert f"{first} of 3 rounds are there already" in again.stderr
    assert "6 of 6 predictions are there already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in survivors} == survivors
    each_once(tmp_path)
    samples = Store(tmp_path).read("samples")
    assert samples.groupby("round")["config_id"].nunique().eq(4).all(), "dense, its twin, random and rlt"
    assert sorted(set(samples["round"])) == list(range(max(3, first + 1)))
    assert set(samples.loc[samples["round"] < first, "process"]) == {0}
    assert set(samples.loc[samples["round"] >= first, "process"]) == {1}
    assert set(Store(tmp_path).read("results")["n_rounds"]) == {max(3, first + 1)}


def test_two_sweeps_at_once_lose_nothing(undisturbed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BRISK, *SWEEP, "--out", str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    pd.testing.assert_frame_equal(deterministic(tmp_path), deterministic(undisturbed))


def test_broken_clips_are_counted_and_named_and_do_not_end_the_run(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clips", good=6)
    broken = add_broken(folder)
    done = vpbench(*RUN, "--root", folder, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    rows = latest(Store(tmp_path / "out").read("results"))
    assert set(rows["status"]) == {"incomplete"}
    for row in rows.to_dict("records"):
        assert (row["n_expected"], row["n_clips"], row["n_failed"]) == (9, 6, 3)
        failures = {f["video"]: f["reason"] for f in json.loads(row["failures"])}
        assert sorted(failures) == sorted(broken)
        assert all(f"{name}.mp4" in reason for name, reason in failures.items())
    assert all(f"{name}.mp4" in done.stderr for name in broken)
    assert "3 of 9 videos unreadable" in done.stdout
    for name in broken:
        shutil.copy(folder / "test0000_move_e.mp4", folder / f"{name}.mp4")
    assert vpbench(*RUN, "--root", folder, "--out", tmp_path / "out").returncode == 0
    mended = latest(Store(tmp_path / "out").read("results"))
    assert set(mended["status"]) == {"ok"}
    assert set(mended["n_clips"]) == {9}


def test_nothing_readable_is_a_failed_row(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clips", good=1)
    next(folder.glob("*.mp4")).write_bytes(b"")
    done = vpbench(*RUN, "--root", folder, "--out", tmp_path / "out")
    assert done.returncode == 1
    rows = Store(tmp_path / "out").read("results")
    assert set(rows["status"]) == {"failed"}
    assert rows["error"].str.contains("none of the .* could be read").all()


def test_a_truncated_results_file_is_named_and_measured_again(tmp_path: Path) -> None:
    assert vpbench(*RUN, "--limit", "3", "--out", tmp_path).returncode == 0
    victim = sorted(tmp_path.glob("results.parquet/*.parquet"))[0]
    victim.write_bytes(victim.read_bytes()[:200])
    shown = vpbench("table", tmp_path)
    assert shown.returncode == 0
    assert victim.name in shown.stderr
    again = vpbench(*RUN, "--limit", "3", "--out", tmp_path)
    assert again.returncode == 0
    assert "1 cells measured, 2 were done before" in again.stdout


def test_refused_cells_are_rows_with_the_reason(tmp_path: Path) -> None:
    done = vpbench("sweep", "--method", "rlt", "--keep", "0.05,0.5", *QUICK, "--out", tmp_path)
    assert done.returncode == 1
    rows = Store(tmp_path).read("results")
    refused = rows[rows["status"] == "refused"]
    assert refused["method"].tolist() == ["rlt"]
    assert "0.125" in refused["error"].iloc[0]
    assert (rows["status"] == "ok").sum() == 4


BREAKS = '''"""Fail in the middle of a run."""

from dataclasses import dataclass

import torch

from vpbench.api import Method, Pruner


@dataclass(frozen=True)
class Breaks(Method):
    """Raise for some batches."""

    reference = "control"

    def attach(self, backbone):
        return _Pruner()

    def at_keep(self, keep, backbone, calibration):
        return self


class _Pruner(Pruner):
    def video(self, batch):
        if {when}:
            raise {what}("planted")
'''


@pytest.fixture
def sweep_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], subprocess.CompletedProcess[str]]:
    """Sweep a plug-in that raises `what` when a batch is such, and another method."""

    def sweep(what: str, when: str) -> subprocess.CompletedProcess[str]:
        module = f"breaks_{abs(hash((what, when)))}"
        (tmp_path / f"{module}.py").write_text(BREAKS.replace("{when}", when).replace("{what}", what))
        points = [EntryPoint("breaks", module, "vpbench.methods")]
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "vpbench.methods" else [])
        arguments = ("sweep", "--method", "breaks,tdiff", "--keep", "0.5", "--weights", "random", "--limit", "5")
        return vpbench(*arguments, "--profile", "ci", "--threads", "1", "--out", tmp_path / "out")

    return sweep


@pytest.mark.parametrize(
    "when",
    ["any('0002' in each for each in batch.ids)", "len(batch.ids) == 1 and '0002' in batch.ids[0]"],
    ids=["while it predicts", "only while it is timed"],
)
def test_a_method_that_raises_fails_alone(when: str, tmp_path: Path, sweep_with: Callable[[str, str], Any]) -> None:
    done = sweep_with("ZeroDivisionError", when)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    rows = latest(Store(tmp_path / "out").read("results")).set_index("method")
    assert rows["status"].to_dict() == {"dense": "ok", "random": "ok", "tdiff": "ok", "breaks": "failed"}
    assert rows.loc["breaks", "error"] == "ZeroDivisionError: planted"
    assert "planted" in done.stdout


def test_what_does_not_fit_together_is_predicted_as_it_is_timed(
    tmp_path: Path, sweep_with: Callable[[str, str], Any]
) -> None:
    done = sweep_with("torch.OutOfMemoryError", "len(batch.ids) > 1")
    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "out")
    rows = latest(store.read("results")).set_index("method")
    assert set(rows["status"]) == {"ok"}
    batches = {name: set(store.read("clips", only={rows.loc[name, "prediction_id"]})["batch"]) for name in rows.index}
    # of the first piece, a single clip, nothing tells that eight would not fit
    assert batches == {"dense": {8}, "random": {8}, "tdiff": {8}, "breaks": {8, 1}}
