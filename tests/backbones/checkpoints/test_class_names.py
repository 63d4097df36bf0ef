"""What checkpoints call their outputs: every place where files have it, and text that nobody vouches for."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from helpers import add_backbone, construct
from safetensors.torch import save_file

from vpbench.backbones import loading
from vpbench.backbones.checkpoints import reading
from vpbench.backbones.checkpoints.classes import class_names
from vpbench.backbones.loading import Outputs
from vpbench.errors import UsageError

NAMES = ("run", "jump")


@pytest.mark.parametrize(
    "tree",
    [
        {"id2label": {0: "run", 1: "jump"}},
        {"id2label": {"1": "jump", "0": "run"}},
        {"id2label": '{"0": "run", "1": "jump"}'},
        {"config": {"id2label": {0: "run", 1: "jump"}}},
        {"class_to_idx": OrderedDict(jump=1, run=0)},
        {"class_names": ["run", "jump"]},
        {"classes": ("run", "jump")},
        {"meta": {"CLASSES": ("run", "jump")}},
        {"meta": {"dataset_meta": {"classes": ["run", "jump"]}}},
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}, "meta": {"CLASSES": ("run", "jump")}},
    ],
)
def test_every_place(tree: dict[str, Any]) -> None:
    assert class_names(tree) == NAMES


@pytest.mark.parametrize(
    "tree",
    [
        {}, {"id2label": {0: "LABEL_0", 1: "LABEL_1"}}, {"id2label": {0: "run", 2: "jump"}}, {"id2label": {"a": "b"}},
        {"id2label": {0: 1}}, {"classes": 400}, {"classes": "no JSON"}, {"classes": [1, 2]}, {"meta": 3},
        {"class_to_idx": {"run": "0"}}, {"class_to_idx": {"run": 0, "jump": 0}}, {"id2label": "[" * 10_000},
    ],
)  # fmt: skip
def test_what_names_nothing(tree: dict[str, Any]) -> None:
    assert class_names(tree) == ()


def test_names_are_shown_as_they_can_be_printed() -> None:
    assert class_names({"classes": ["a\x1b[31m", "b"]}) == ("'a\\x1b[31m'", "b")


def test_outputs_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = dataclasses.replace(TINY, classes=2)
    add_backbone(monkeypatch, "own_tiny", sizes)
    state, file = construct(sizes).state_dict(), tmp_path / "a.pth"
    torch.save({"model": state}, file)
    assert loading.outputs("own_tiny", str(file)) == Outputs(2)
    torch.save({"model": state, "id2label": dict(enumerate(NAMES))}, file)
    assert loading.outputs("own_tiny", str(file)) == Outputs(2, NAMES)
    torch.save({"model": state, "id2label": dict(enumerate(("a", "b", "c")))}, file)
    with pytest.raises(UsageError, match=r"2 outputs, but names of 3 classes \(a, b, c \.\.\.\)"):
        loading.outputs("own_tiny", str(file))
    save_file(state, tmp_path / "a.safetensors", {"id2label": '{"0": "run", "1": "jump"}'})
    assert loading.outputs("own_tiny", str(tmp_path / "a.safetensors")) == Outputs(2, NAMES)
    reading.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", overwrite=False)
    assert loading.outputs("own_tiny", str(tmp_path / "b.safetensors")) == Outputs(2, NAMES)
    assert loading.outputs("own_tiny", "random") is None
    assert loading.outputs("videomae_embedded", "embedded") == Outputs(18)
    with pytest.raises(UsageError, match="this is own_tiny: use --backbone own_tiny"):
        loading.outputs("videomae_s", str(tmp_path / "a.safetensors"))
    with pytest.raises(UsageError, match=r"none\.pth: No such file"):
        loading.outputs("own_tiny", str(tmp_path / "none.pth"))
