"""Run the command line as a user does, and build small folders of clips."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vpbench import registry
from vpbench.api import Classifier
from vpbench.api.method import load_method
from vpbench.datasets.synthmotion import HERE
from vpbench.registry import Entry, Sizes

ROOT = Path(__file__).resolve().parent.parent

# others need a grid of tokens (test_grid_contract.py), or a backbone that takes steps (test_steps.py) or frames
PLAIN = [name for name in registry.names("methods") if "stream" in load_method(name).flows]

# deterministic columns: what two runs of the same request must agree on, whatever happened in between
SAME = (
    "config_id",
    "status",
    "method",
    "method_params",
    "keep_nominal",
    "n_clips",
    "n_failed",
    "failures",
    "keep_realised",
    "gmacs_executed",
    "top1",
    "top5",
    "delta_pp",
    "agree",
    "kl",
    "logit_rel_l2",
    "tokens_kept_mean",
    "clip_list_sha256",
)


def like(sizes: Sizes) -> Entry:
    """Return the entry of a backbone whose sizes are of this kind."""
    return next(entry for entry in registry.backbones().values() if type(entry.sizes) is type(sizes))


def construct(sizes: Sizes) -> Classifier:
    """Build a classifier of any sizes with initial weights."""
    found = registry.imported(like(sizes).build)(sizes)
    assert isinstance(found, Classifier)
    return found


def add_backbone(monkeypatch: pytest.MonkeyPatch, name: str, sizes: Sizes) -> None:
    """Let a backbone of other sizes, without weights, be named."""
    monkeypatch.setitem(registry.entries(), name, replace(like(sizes), summary="for tests", sizes=sizes, weights=None))


def vpbench(*arguments: str | Path, timeout: float = 280, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `vpbench` in a process of its own."""
    command = [sys.executable, "-m", "vpbench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd)


def checkout_with(folder: Path, name: str, code: str) -> Path:
    """Copy the checkout into `folder` and add one method to it."""
    for part in ("vpbench", "methods", "datasets", "tests"):
        shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "methods" / f"{name}.py").write_text(code)
    return folder


def clip_folder(folder: Path, good: int) -> Path:
    """Copy the first `good` embedded clips with a manifest."""
    folder.mkdir(parents=True)
    with (HERE / "clips" / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[:good]
    for row in rows:
        shutil.copy(HERE / "clips" / row["file"], folder)
    write_manifest(folder, rows)
    return folder


def write_manifest(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write `manifest.csv` of a clip folder."""
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ("file", "clip_id", "label", "label_name", "seed", "frames", "sha256"))
        writer.writeheader()
        writer.writerows(rows)


def add_broken(folder: Path) -> list[str]:
    """Add a truncated, an empty and a text file under the names of clips; returns their ids."""
    whole = next(folder.glob("*.mp4")).read_bytes()
    broken = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"this is not a video\n" * 50}
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name, content in broken.items():
        (folder / f"{name}.mp4").write_bytes(content)
        rows.append(rows[0] | {"file": f"{name}.mp4", "clip_id": name})
    write_manifest(folder, rows)
    return list(broken)
