"""Several batch sizes and modes in one request: predictions are shared where they may be, and rows tell them apart."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import unwatched, weightless

from vpbench import plan, registry
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.errors import UsageError
from vpbench.render.tables.cells import report
from vpbench.rows.contexts import records
from vpbench.rows.store import Store, latest
from vpbench.run import group as run_group
from vpbench.run import resolve, weighing
from vpbench.tasks.recognition import Recognition
from vpbench.tasks.task import Attached, Read


@pytest.fixture(autouse=True, scope="module")
def hurried(small: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.PROFILES, "ci", plan.Profile(2, 0.0, 0.0, 0.1, single=3))
        weightless(patch)
        unwatched(patch)
        yield


def request(out: Path, **options: Any) -> run_group.Outcome:
    asked = plan.options({"weights": "random", "limit": 5, "profile": "ci", "threads": 1, "out": out} | options)
    shared, digests = resolve.resolve(asked)
    groups = [plan.cells(asked, each, digests) for each in plan.groups(shared, asked, resolve.largest_batch)]
    known = digests({cell.method for group in groups for cell in group})
    return run_group.run_all(groups, known, Store(out), "test", force=False)


@pytest.fixture(scope="module")
def two_batches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Measure two batch sizes; also returns how often an item was predicted by a cell."""
    out, made = tmp_path_factory.mktemp("batches"), 0
    run = Recognition.predict

    def counted(task: Recognition, dense: Attached, cells: Sequence[Attached], reads: Sequence[Read]) -> Any:
        nonlocal made
        made += len(cells) * len(reads)
        return run(task, dense, cells, reads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recognition, "predict", counted)
        assert request(out, method=("tdiff",), keep=(0.4,), batch=(1, 4)) == run_group.Outcome(6, 0, 0)
    return out, made


def test_each_batch_size_has_rows_of_its_own(two_batches: tuple[Path, int]) -> None:
    rows = latest(Store(two_batches[0]).read("results"))
    found = sorted(zip(rows["batch_size"], rows["method"], rows["scenario"], rows["n_rounds"], strict=True))
    assert [each[:3] for each in found] == [
        (1, "dense", "latency"),
        (1, "random", "latency"),
        (1, "tdiff", "latency"),
        (4, "dense", "throughput"),
        (4, "random", "throughput"),
        (4, "tdiff", "throughput"),
    ]
    assert [each[3] for each in found] == [3, 3, 3, 2, 2, 2], "single clips need more rounds than batches"


def test_what_one_batch_size_predicted_is_not_predicted_again(two_batches: tuple[Path, int]) -> None:
    out, made = two_batches
    assert made == 3 * 5
    store = Store(out)
    found = latest(store.read("results")).to_dict("records")
    rows: dict[Any, dict[Any, Any]] = {(row["batch_size"], row["method"]): row for row in found}
    assert {rows[batch, name]["predicted_batch"] for batch in (1, 4) for name in ("dense", "random", "tdiff")} == {8}
    one, four = rows[1, "tdiff"], rows[4, "tdiff"]
    assert one["prediction_id"] == four["prediction_id"]
    assert one["config_id"] != four["config_id"]
    assert len(store.read("clips", only={one["prediction_id"]})) == 5
    shared = store.predictions("clips", store.read("results"))
    of_one, of_four = (shared[shared["config_id"] == row["config_id"]] for row in (one, four))
    assert (
        of_one.drop(columns="config_id")
        .reset_index(drop=True)
        .equals(of_four.drop(columns="config_id").reset_index(drop=True))
    )
    assert rows[1, "tdiff"]["kl"] == rows[4, "tdiff"]["kl"]


def test_setting_up_and_the_tail_are_recorded_or_null(two_batches: tuple[Path, int]) -> None:
    rows = latest(Store(two_batches[0]).read("results"))
    assert (rows["setup_s"] > 0).all()
    assert rows["wall_ms_p99"].isna().all(), "three rounds tell nothing of the slowest hundredth"
    assert rows["compile_s"].isna().all()
    assert (rows["recompiles"] == 0).all()


def test_a_second_request_measures_what_is_new(two_batches: tuple[Path, int]) -> None:
    out, _ = two_batches
    assert request(out, method=("tdiff",), keep=(0.4,), batch=(1, 4)) == run_group.Outcome(0, 6, 0)


def test_compiled_rows_stand_beside_eager_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.backbone("videomae_embedded")
    assert isinstance(entry.sizes, VideoMAEConfig)
    one_block = dataclasses.replace(entry.sizes, depth=1)  # six take many times as long to compile
    monkeypatch.setitem(registry.entries(), "videomae_embedded", dataclasses.replace(entry, sizes=one_block))
    # graphs as they are, but no C++ of them, which takes a minute: see test_modes.py and test_compiled_parts.py
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    modes = ("eager", "compile", "compile_dynamic")
    outcome = request(tmp_path, method=("tdiff", "rlt"), keep=(0.4,), mode=modes, limit=2)
    found = latest(Store(tmp_path).read("results")).to_dict("records")
    rows: dict[Any, dict[Any, Any]] = {(row["exec_mode"], row["method"]): row for row in found}
    refused = rows["compile", "rlt"]
    assert outcome == run_group.Outcome(11, 0, 1)
    assert refused["status"] == "refused"
    assert "compile_dynamic" in refused["error"]
    assert rows["compile", "tdiff"]["compile_s"] > 0
    for mode, method in (("compile", "tdiff"), ("compile_dynamic", "tdiff"), ("compile_dynamic", "rlt")):
        compiled, eager = rows[mode, method], rows["eager", method]
        assert compiled["recompiles"] == 0
        assert compiled["gmacs_executed"] == eager["gmacs_executed"]
        assert compiled["kl"] == pytest.approx(eager["kl"], rel=1e-3, abs=1e-6)
        assert json.loads(compiled["method_params"]) == json.loads(eager["method_params"])


def test_the_largest_batch_is_a_question_for_gpus(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch max is for CUDA"):
        request(tmp_path, method=("dense",), batch=("max",))
    with pytest.raises(UsageError, match="cudagraph"):
        request(tmp_path, method=("dense",), mode=("cudagraph",))


@pytest.mark.parametrize(("busy_ms", "bound"), [(1e-6, True), (1e9, False), (None, None)])
def test_rows_whose_gpu_waits_for_its_host_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy_ms: float | None, bound: bool | None
) -> None:
    """A stand-in for a GPU says how long its kernels took of what a forward took."""
    monkeypatch.setattr(weighing, "on_host", lambda *_: {} if busy_ms is None else {"gpu_busy_ms": busy_ms})
    request(tmp_path, method=("dense",), limit=1)
    store = Store(tmp_path)
    rows = latest(store.read("results"))
    [row] = records(rows)
    assert (row["gpu_busy_ms"], row["launch_bound"]) == (busy_ms, bound)
    said = report(rows, store.predictions("videos", rows))
    assert ("in 1 of 1 rows the GPU waits for the host (launch_bound)" in said) is bool(bound)
