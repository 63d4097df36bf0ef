"""The commands of the README on small trees in official layouts, with checkpoints in a published one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import epic_tree
import k400_tree
import pandas as pd
import pytest
import ssv2_tree
import torch
from helpers import vpbench

from vpbench import registry
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.rows.store import Store

pytestmark = pytest.mark.usefixtures("hasty", "unweighed")
# small clips: what is tested is the way from the tree to the table
SMALL = ("--backbone", "videomae_s", "--size", "32", "--frames", "4", "--profile", "ci", "--threads", "1")


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """Let VideoMAE-S have two of its twelve blocks."""
    entry = registry.backbone("videomae_s")
    assert isinstance(entry.sizes, VideoMAEConfig)
    with pytest.MonkeyPatch.context() as patch:
        sizes = dataclasses.replace(entry.sizes, depth=2)
        patch.setitem(registry.entries(), "videomae_s", dataclasses.replace(entry, sizes=sizes))
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what writes a VideoMAE-S of so many classes as its authors' code saves it."""
    folder = tmp_path_factory.mktemp("weights")

    def write(classes: int) -> Path:
        torch.manual_seed(0)
        sizes = registry.backbone("videomae_s").sizes
        assert isinstance(sizes, VideoMAEConfig)
        model = VideoMAE(dataclasses.replace(sizes, classes=classes))
        path = folder / f"{classes}.pth"
        torch.save({"module": model.state_dict()}, path)
        return path

    return write


def rows(out: Path) -> pd.DataFrame:
    return Store(out).read("results").set_index("method")


def test_kinetics(weights: Any, tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path / "k400")
    broken = k400_tree.VAL[2].stem
    (root / "val" / f"{broken}.mp4").write_bytes((root / "val" / f"{broken}.mp4").read_bytes()[:900])
    (root / "val" / f"{k400_tree.VAL[4].stem}.mp4").unlink()
    arguments = ("--method", "rlt", "--dataset", "k400", "--root", root, "--weights", weights(400))
    done = vpbench("run", *arguments, *SMALL, "--out", tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    found = rows(tmp_path / "out")
    assert set(found.index) == {"dense", "random", "rlt"}
    dense = found.loc["dense"]
    assert (dense["status"], dense["n_expected"], dense["n_videos"], dense["n_failed"]) == ("incomplete", 5, 3, 2)
    assert (dense["protocol"], dense["views"], dense["n_clips"], dense["split"]) == ("videomae_5x3", 15, 45, "val")
    assert dense["top1"] is not pd.NA
    failures = {f["video"]: f["reason"] for f in json.loads(str(dense["failures"]))}
    assert sorted(failures) == sorted([broken, k400_tree.VAL[4].stem])
    assert "3 videos, 15 views each (videomae_5x3); 2 of 5 could not be read" in done.stdout


def test_something_something(weights: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VPBENCH_SSV2", str(ssv2_tree.build(tmp_path / "ssv2")))
    arguments = ("--method", "tdiff", "--keep", "0.5", "--dataset", "ssv2", "--weights", weights(174))
    done = vpbench("run", *arguments, *SMALL, "--workers", "2", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    dense = rows(tmp_path / "out").loc["dense"]
    assert (dense["protocol"], dense["views"], dense["n_videos"], dense["status"]) == ("spread_2x3", 6, 3, "ok")


@pytest.mark.parametrize(("outputs", "known"), [(97, {"verb"}), (300, {"noun"}), (397, {"verb", "noun", "action"})])
def test_epic_kitchens(weights: Any, tmp_path: Path, outputs: int, known: set[str]) -> None:
    root = epic_tree.build(tmp_path / "epic")
    arguments = ("--method", "dense", "--dataset", "epic100", "--root", root, "--weights", weights(outputs))
    done = vpbench("run", *arguments, *SMALL, "--protocol", "single", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    dense = rows(tmp_path / "out").loc["dense"]
    assert {name for name in ("verb", "noun", "action") if dense[f"{name}_top1"] is not pd.NA} == known
    assert dense["n_videos"] == 3
    videos = Store(tmp_path / "out").read("videos")
    assert sorted(videos["label"]) == ([2, 91, 299] if known == {"noun"} else [0, 1, 96])


def test_weights_of_another_set_are_refused(weights: Any, tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path / "k400")
    arguments = ("--method", "rlt", "--dataset", "k400", "--root", root, "--weights", weights(174))
    done = vpbench("run", *arguments, *SMALL, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "174 classes, but the dataset has 400" in done.stderr


def test_without_a_root_it_says_how_to_give_one(tmp_path: Path) -> None:
    done = vpbench("run", "--method", "rlt", "--dataset", "k400", "--backbone", "videomae_s", "--weights", "random",
                   "--out", tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert "VPBENCH_K400" in done.stderr
