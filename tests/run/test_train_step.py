"""Training steps as rows: timed beside dense, with memory, and without them ids and weights are as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import HASTE, clip_folder, construct, smaller, unwatched, vpbench

from vpbench import plan
from vpbench.api import ClipBatch
from vpbench.backbones.videomae import TINY
from vpbench.measure import memory
from vpbench.measure.rounds import TRAIN
from vpbench.methods.rlt import Rlt
from vpbench.plan import identity
from vpbench.rows.contexts import records
from vpbench.rows.store import Store, latest
from vpbench.tasks.recognition.walk import ClipWalk, TrainingSteps


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(plan.PROFILES, "ci", HASTE)
    unwatched(monkeypatch)
    smaller(monkeypatch)


def test_a_step_trains_a_copy_and_leaves_all_weights_as_they_are() -> None:
    torch.manual_seed(0)
    model = construct(TINY).eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = TrainingSteps(model)
    batches = [ClipBatch(torch.randint(256, (1, 16, 32, 32, 3), dtype=torch.uint8), ("c",))]
    pruner = Rlt(0.5).attach(model)
    walk = ClipWalk(model, model, pruner, batches, {}, steps)
    with torch.inference_mode():
        logits = walk(0).logits  # type: ignore[attr-defined]
        for number in range(3):
            walk.scopes[TRAIN](number)
        assert torch.equal(walk(0).logits, logits)  # type: ignore[attr-defined]
    for name, tensor in steps.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None for p in steps.network.parameters())
    moments = steps.optimizer.state_dict()["state"]
    assert len(moments) == len(list(model.parameters()))  # the optimiser did its work on all of them
    assert any(bool(each["exp_avg"].any()) for each in moments.values())


def test_rows_tell_how_long_steps_take_beside_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"model": memory.PeakMemory(1.0, 2.0, 3.0), "train": memory.PeakMemory(1.0, 20.0, 3.0)}
    monkeypatch.setattr(memory, "measure_peak", lambda *given, name: found[given[-1]])
    root = clip_folder(tmp_path / "clips", good=3)
    given = ("--method", "tdiff", "--keep", "0.25", "--weights", "random", "--root", root, "--split", "ci")
    out = tmp_path / "out"
    done = vpbench("run", *given, "--train-step", "--profile", "ci", "--threads", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "training" in done.stdout
    store = Store(out, writable=False)
    rows = {row["method"]: row for row in records(latest(store.read("results")))}
    for row in rows.values():
        assert row["train_ms_ci_lo"] <= row["train_ms_p50"] <= row["train_ms_ci_hi"]
        assert row["mem_train_mb"] == 20
        assert row["mem_peak_rss_mb"] == 2
        assert row["train_ms_p50"] > row["wall_ms_p50"]
    samples = store.read("samples")
    wall = {
        key: rows_of.sort_values("round")["wall_ns"].to_numpy()
        for key, rows_of in samples[samples["scope"] == "train"].groupby("config_id")
    }
    dense, own = (wall[rows[name]["config_id"]] for name in ("dense", "tdiff"))
    assert rows["tdiff"]["train_speedup"] == pytest.approx(np.median(dense / own))
    assert rows["dense"]["train_speedup"] == 1
    plain = vpbench("run", *given, "--profile", "ci", "--threads", "1", "--out", out, "--dry-run")
    assert "0 done" in plain.stdout  # rows with and without training steps are different ones
    assert vpbench("plot", out, "--format", "png", "--figure", "pareto").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mode", "compile"), "training steps are timed in mode eager"),
        (("--dtype", "fp16"), "needs its losses scaled"),
        (("--backbone", "vitdet_embedded", "--dataset", "synthmotion_boxes"), "leave it out for detectors"),
    ],
)
def test_what_has_no_training_steps_is_refused(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = vpbench(
        "run", "--method", "dense", "--weights", "random", "--train-step", *arguments, "--limit", "1", "--out", tmp_path
    )
    assert done.returncode == 2
    assert said in done.stderr


def test_ids_without_training_steps_are_those_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "NUMBERS", 3)
    asked = plan.options({"method": ("rlt",), "threads": 1})
    shared = plan.setting(asked, 1)
    with_steps = plan.setting(asked.model_copy(update={"train_step": True}), 1)
    without = plan.cells(asked, shared)
    assert [cell.prediction_id for cell in plan.cells(asked, with_steps)] == [cell.prediction_id for cell in without]
    assert {cell.config_id for cell in plan.cells(asked, with_steps)}.isdisjoint(cell.config_id for cell in without)
    # of before training steps were timed: rows that are there stay what they are
    assert [cell.config_id for cell in without] == ["4bf4487dd93e", "8dcea998e387", "bdd45e9481af"]
