"""How detectors are run: pinned, on a GPU that is held back, in fresh processes, killed in the middle of a video."""

import os
import signal
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import HASTE, HASTY, few_frames, vpbench

from vpbench import plan
from vpbench.errors import UsageError
from vpbench.measure import affinity, clock, energy, rounds
from vpbench.measure.gpu import State
from vpbench.plan import manifest
from vpbench.rows.store import Store, latest
from vpbench.run import group, resolve
from vpbench.tasks.detection import Detection, walk

pytestmark = pytest.mark.usefixtures("hasty", "unweighed")
GIVEN: dict[str, Any] = {
    "method": ("rgtp",), "dataset": "synthmotion_boxes", "backbone": "vitdet_embedded", "split": "ci", "limit": 1,
    "size": 40, "set": ("rgtp.keep_ratio=0.3", "rgtp.reset=2"), "profile": "ci", "threads": 1,
}  # fmt: skip


#: of each video: dense and pruned ones, and some left after a kill
FRAMES = 8


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short videos, windows of two frames, and one round of stages."""
    monkeypatch.setattr(walk, "SHORTEST", 2)
    monkeypatch.setattr(Detection, "stage_rounds", 1)
    few_frames(monkeypatch, FRAMES)


def run(out: Path, **given: Any) -> pd.DataFrame:
    """Measure as `vpbench sweep` does; returns the rows by method."""
    asked = plan.options({**GIVEN, "out": out, **given})
    shared, digests = resolve.resolve(asked)
    cells = plan.cells(asked, shared, digests)
    group.run(cells, digests({cell.method for cell in cells}), Store(out), "test", force=False)
    return latest(Store(out).read("results")).set_index("method")


def usual_pin() -> str | None:
    """The processor that one thread is kept on; none where there is no other."""
    usable = sorted(os.sched_getaffinity(0))
    return str(affinity.choose(usable, 1)[0]) if len(usable) > 1 else None


def test_rounds_are_pinned_and_the_row_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, seen, before = clock.time_rounds, list[set[int]](), os.sched_getaffinity(0)

    def watched(*args: Any, **given: Any) -> list[clock.Sample]:
        seen.append(os.sched_getaffinity(0))
        return honest(*args, **given)

    monkeypatch.setattr(clock, "time_rounds", watched)
    row = run(tmp_path, method=("dense",)).loc["dense"]
    assert row["status"] == "ok"
    expected = usual_pin()
    assert (None if pd.isna(row["pinned"]) else row["pinned"]) == expected
    assert seen == [before if expected is None else {int(expected)}]
    assert os.sched_getaffinity(0) == before


class HeldBack:
    """Stands in for a GPU whose clocks are capped from one reading to another."""

    def __init__(self, first: int, last: int) -> None:
        self.capped, self.number = range(first, last), count()

    def state(self) -> State:
        held = next(self.number) in self.capped
        return State(1980.0, 50.0, 300.0, ("power cap",) if held else ())


@pytest.mark.parametrize(
    ("readings", "held_back", "dropped"), [((0, 0), 0, 0), ((4, 6), 1, 1), ((4, 16), 6, 0)]
)  # each round has two readings; of twelve rounds ten have to be left
def test_rounds_in_which_a_gpu_was_held_back_are_marked(
    readings: tuple[int, int], held_back: int, dropped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = HeldBack(*readings)
    monkeypatch.setattr(rounds, "gpu_of", lambda device: (gpu, ""))
    monkeypatch.setitem(plan.PROFILES, "ci", plan.Profile(12, 0.0, 0.0, 0.0))
    row = run(tmp_path, method=("dense",)).loc["dense"]
    assert row["throttled"] == bool(held_back)
    assert row["n_dropped"] == dropped
    assert row["n_rounds"] == 12 - dropped
    samples = Store(tmp_path).read("samples")
    for _, own in samples.groupby(["config_id", "scope"]):
        assert own["held_back"].sum() == held_back
        assert own["dropped"].sum() == dropped
        assert (own["sm_mhz"] == 1980).all()
    if held_back > dropped:
        assert row["noisy"], "rounds that count were held back"


def test_fresh_processes_stages_passes_and_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "rapl", partial(energy.rapl, tmp_path / "without counters"))
    rows = run(tmp_path / "out", processes=2, energy=True, e2e=True, stages=True)
    assert set(rows.index) == {"dense", "rgtp", "rgtp_random"}
    assert set(rows["status"]) == {"ok"}
    assert (rows["n_process"] == 2).all()
    assert rows[["j_per_clip", "j_per_clip_net"]].isna().all(axis=None)
    assert set(rows["energy_source"]) == {
        f"none: no RAPL counter under {tmp_path}/without counters (virtual machines seldom have one)"
    }
    for column in ("e2e_clips_per_s", "device_wait_frac", "stage_total_ms", "stage_embed_ms", "speedup"):
        assert (rows[column] > 0).all(), column
    assert (rows["n_stage_rounds"] == 1).all()
    samples = Store(tmp_path / "out").read("samples")
    timed = samples[samples["scope"] != "e2e"]
    assert set(timed["process"]) == {0, 1}
    assert set(timed["scope"]) == {"model", "transformer"}
    assert set(rows["n_clips"]) == {FRAMES}
    assert set(samples[samples["scope"] == "e2e"]["clips"]) == {FRAMES}
    work = Store(tmp_path / "out").read("work")
    kinds = work.groupby("config_id")["kind"].value_counts().unstack()
    assert (kinds[["rounds", "stages", "e2e", "memory"]] == [2, 1, 1, 1]).all(axis=None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": ("compile",)}, r"^mode compile is not there for detectors: what is kept of a frame"),
        ({"mode": ("cudagraph",)}, r"^mode cudagraph is not there for detectors.*leave --mode out$"),
        ({"max_batch": True}, r"^--max-batch is for CUDA devices: a host that runs out of memory kills processes$"),
    ],
)
def test_what_detectors_cannot_be_run_in_is_refused_with_the_reason(
    given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        run(tmp_path, **given)
    assert not Store(tmp_path).parts("results")


#: writes every prediction at once, and dies in the middle of the second video of the second cell
KILLED = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
import helpers, pytest
helpers.few_frames(pytest.MonkeyPatch(), {FRAMES})
from vpbench.run import work
from vpbench.tasks.detection.predict import _Track
work.SETTLE_S, honest, videos = 0.0, _Track._keep, []
def keep(track, done):
    honest(track, done)
    if track.cell.cell.method == "rgtp":
        videos.extend({{track.frames.video_id}} - set(videos))
        if len(videos) == 2 and len(track.rows) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
_Track._keep = keep
{HASTY}
"""


def test_kill_9_in_the_middle_of_a_video_keeps_what_was_done(tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    options = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in GIVEN.items() if k != "set"}
    named = [str(part) for k, v in (options | {"limit": 3}).items() for part in (f"--{k}", v)]
    named += [part for each in GIVEN["set"] for part in ("--set", each)] + ["--only", "predict"]
    command = [sys.executable, "-c", KILLED, "sweep", *named, "--out", str(out)]
    killed = subprocess.run(command, capture_output=True, timeout=280, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert predicted(out) == {"dense": 2, "rgtp": 1, "rgtp_random": 1}
    files = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet/*.parquet")}
    assert len(files) == 8, "detections and frames of four videos"
    for folder in (out, whole):
        done = vpbench("sweep", *named, "--out", folder)
        assert done.returncode == 0, done.stderr
        assert ("4 of 9 predictions are there already" in done.stderr) == (folder == out)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    for table in ("detections", "clips"):
        pd.testing.assert_frame_equal(content(out, table), content(whole, table))


def predicted(out: Path) -> dict[str, int]:
    """How many videos there are of each method, in both tables, though no row was written."""
    [planned] = manifest.every(out)
    methods = {cell.prediction_id: cell.method for cell in planned.cells}
    store = Store(out)
    seen = [store.read(table).groupby("prediction_id")["video_id"].nunique() for table in ("detections", "clips")]
    assert not store.problems
    assert seen[0].to_dict() == seen[1].to_dict()
    return {methods[str(name)]: videos for name, videos in seen[0].to_dict().items()}


def content(out: Path, table: str) -> pd.DataFrame:
    """All that was predicted, in one order, without who did it when."""
    found = Store(out).read(table)
    frame = "frame" if table == "detections" else "clip_id"
    kept = found.drop(columns=["run_id", "decode_ms"], errors="ignore")
    return kept.sort_values(["prediction_id", "video_id", frame], kind="stable", ignore_index=True)


def test_a_torn_part_of_detections_is_predicted_again(tmp_path: Path) -> None:
    """Rows of frames are of no use without what was found in them."""
    run(tmp_path, method=("dense",))
    before = content(tmp_path, "detections")
    [part] = (tmp_path / "detections.parquet").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-100])
    (row,) = Store(tmp_path).read("results")["config_id"]
    (tmp_path / "results.parquet" / f"{row}.parquet").unlink()
    assert run(tmp_path, method=("dense",)).loc["dense", "status"] == "ok"
    pd.testing.assert_frame_equal(content(tmp_path, "detections"), before)
    assert HASTE.rounds == Store(tmp_path).read("samples")["round"].nunique(), "what was timed stays"
