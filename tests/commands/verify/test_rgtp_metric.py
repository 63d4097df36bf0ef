"""Metric cases: what must not pass, and cases that are malformed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpbench.commands.verify.cases import verify

CASE = ROOT / "tests" / "parity" / "rgtp-vitdet" / "map50-small"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CASE, tmp_path / "case"))


def run(folder: Path) -> tuple[int, str]:
    lines: list[str] = []
    return verify([folder], lines.append, lines.append), "\n".join(lines)


def change(file: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


def test_all_three_metrics_agree() -> None:
    code, said = run(CASE)
    assert code == 0
    assert "3 of 3 agree" in said


@pytest.mark.parametrize("name", ["map50", "map", "ap50_per_class"])
def test_every_metric_is_compared(copied: Path, name: str) -> None:
    change(copied / "expected.safetensors", lambda tensors: tensors[name][-1:].add_(2e-5))
    code, said = run(copied)
    assert code == 1
    assert said.endswith(f"1 missed: case/{name}")


def test_a_changed_detection_is_noticed(copied: Path) -> None:
    change(copied / "inputs.safetensors", lambda tensors: tensors["det_labels"].add_(1).remainder_(6))
    assert run(copied)[0] == 1


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("kind", "metrics", "unknown kind 'metrics'; did you mean 'metric'"),
        ("recall_points", 11, "recall_points"),
        ("iou_threshold", 0.75, "iou_threshold"),
        ("num_frames", 3, "one of the 3 frames"),
        ("num_classes", 2, "labels below 2"),
        ("tolerance", {}, "tolerance.atol"),
    ],
)
def test_settings_other_than_ours_are_one_line(copied: Path, key: str, value: Any, reason: str) -> None:
    settings = json.loads((copied / "case.json").read_text())
    (copied / "case.json").write_text(json.dumps(settings | {key: value}))
    code, said = run(copied)
    assert code == 2
    assert reason in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("name", ["det_frame", "gt_boxes", "det_scores"])
def test_inputs_that_do_not_fit_are_one_line(copied: Path, name: str) -> None:
    change(copied / "inputs.safetensors", lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    code, said = run(copied)
    assert code == 2
    assert len(said.splitlines()) == 1
    change(copied / "inputs.safetensors", lambda tensors: tensors.pop(name))
    assert f"no tensor '{name}'" in run(copied)[1]


def test_a_case_without_kind_is_asked_for_its_method(copied: Path) -> None:
    settings = json.loads((copied / "case.json").read_text())
    del settings["kind"]
    (copied / "case.json").write_text(json.dumps(settings))
    code, said = run(copied)
    assert code == 2
    assert "unknown method" in said
