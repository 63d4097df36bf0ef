"""Video object detection by the command line, on a small tree of ImageNet VID and a tiny detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vid_tree

from vpbench import plan, runner
from vpbench.backbones.catalog import CATALOG, Entry
from vpbench.measure import machine, memory
from vpbench.store import Store, latest
from vpbench.tasks import detection_timing

Run = Callable[..., runner.Outcome]
KEEPS = (0.1, 0.4)
MEASURED = (
    "speedup", "wall_ms_p50", "transformer_ms_p50", "transformer_speedup", "gmacs_executed", "gmacs_transformer",
    "gmacs_rgtp", "mem_peak_rss_mb", "efficiency", "aa_ratio", "decode_ms",
)  # fmt: skip


def here(build: Callable[..., Callable[[], object]], *args: object, name: str) -> memory.PeakMemory:
    """Run the job of a process of its own in this one, which knows the tiny detector."""
    build(*args)()
    return memory.PeakMemory(1.0, 2.0, 3.0)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny detector in the catalog, and timing that takes no time."""
    monkeypatch.setitem(CATALOG, "vitdet_tiny", Entry("tiny", vid_tree.TINY))
    monkeypatch.setattr(memory, "measure_peak", here)
    monkeypatch.setattr(machine, "busy_cores", lambda: 0.0)
    monkeypatch.setitem(plan.PROFILES, "ci", plan.Profile(3, 0.0, 0.0, 0.05))
    monkeypatch.setattr(detection_timing, "ROUNDS", 3)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return vid_tree.build(tmp_path / "vid")


def run(tree: Path, out: Path, force: bool = False, **given: Any) -> runner.Outcome:
    """Measure as `vpbench sweep` does."""
    asked = plan.options(
        {"method": ("rgtp",), "dataset": "imagenet_vid", "root": tree, "backbone": "vitdet_tiny", "weights": "random"}
        | {"profile": "ci", "threads": 1, "out": out, **given}
    )
    shared, digests = runner.resolve(asked)
    cells = plan.cells(asked, shared, digests)
    return runner.run(cells, digests({cell.method for cell in cells}), Store(out), "test", force)


def rows_of(out: Path) -> pd.DataFrame:
    return latest(Store(out).read("results"))


@pytest.mark.usefixtures("tiny")
def test_every_cell_has_a_row_with_all_measurements(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(tree, out, keep=KEEPS) == runner.Outcome(5, 0, 0)
    rows = rows_of(out).set_index(["method", "keep_nominal"])
    assert set(rows["status"]) == {"ok"}
    assert set(rows["task"]) == {"detection"}
    assert (rows["n_clips"] == 23).all()
    for column in MEASURED:
        assert rows[column].notna().all(), column
    for column in ("map50", "map", "delta_pp", "vs_random_pp", "top1", "agree", "kl", "map_definition"):
        assert rows[column].isna().all(), column
    # segments of 10, 10 and 3 frames, a dense one every 8: 5 of 23; 6 of 64 tokens after the first of four blocks
    expected = (5 + 18 * (1 + 3 * 6 / 64) / 4) / 23
    assert rows.loc[("rgtp", 0.1), "keep_realised"] == pytest.approx(expected)
    assert rows.loc[("rgtp_random", 0.1), "keep_realised"] == pytest.approx(expected)
    gmacs = rows["gmacs_transformer"]
    assert gmacs.loc["rgtp"].is_monotonic_increasing
    assert run(tree, out, keep=KEEPS) == runner.Outcome(0, 5, 0)
