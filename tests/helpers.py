"""Run the command line as a user does, and build small folders of clips."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import IO

import pytest
import torch
from safetensors.torch import save_file

from vpbench import cli, plan, registry
from vpbench.api import Classifier
from vpbench.api.method import load_method
from vpbench.backbones.videomae import VIDEOMAE_EMBEDDED
from vpbench.data.boxes import Segment
from vpbench.datasets import synthmotion_boxes
from vpbench.datasets.synthmotion import HERE
from vpbench.datasets.synthmotion.objects import objects
from vpbench.datasets.synthmotion_boxes import SynthMotionBoxes
from vpbench.measure import machine, memory
from vpbench.registry import Entry, Sizes
from vpbench.tasks.detection import session

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

#: profile `ci` where times are not looked at: few rounds, no warm-up
HASTE = plan.Profile(3, 0.0, 0.0, 0.0)
#: stands for `videomae_embedded`: its clips and its tokens, for a tenth of its time
SMALL = replace(VIDEOMAE_EMBEDDED, dim=24, depth=3, heads=2)
#: what `python -c` runs in place of `python -m vpbench`, for commands in processes of their own that are that quick
HASTY = (
    "from vpbench.measure import machine, memory; machine.busy_cores = lambda: 0.0; "
    "memory.measure_peak = lambda *_, name: memory.PeakMemory(1.0, 2.0, 3.0); "
    f"from vpbench import cli, plan; plan.PROFILES['ci'] = plan.{HASTE}; cli.main()"
)


def slowness() -> float:
    """Return what limits in seconds are multiplied by on a slow machine: one whose loop takes over 0.2 s; 1 at least.

    Where it was measured a wrong option took 1.9 such loops and is given 2.5, all published counts took 81 of 150.
    """
    began = time.process_time()
    sum(number * number for number in range(3_000_000))
    return max(1.0, (time.process_time() - began) / 0.2)


def weightless(patch: pytest.MonkeyPatch) -> None:
    """Measure no memory, which takes a process for each cell."""
    patch.setattr(memory, "measure_peak", lambda *_, name: memory.PeakMemory(1.0, 2.0, 3.0))


def unwatched(patch: pytest.MonkeyPatch) -> None:
    """Take the machine for idle, instead of waiting for a second before and after the rounds of each block."""
    patch.setattr(machine, "busy_cores", lambda: 0.0)


def smaller(patch: pytest.MonkeyPatch, weights: Path | None = None) -> None:
    """Let `videomae_embedded` be of sizes `SMALL`, with random numbers in the file `weights` as those it comes with."""
    if weights is not None:
        torch.manual_seed(0)
        save_file(construct(SMALL).state_dict(), weights)
    entry = replace(registry.backbone("videomae_embedded"), sizes=SMALL, weights=weights)
    patch.setitem(registry.entries(), "videomae_embedded", entry)


#: a scene follows from its seed and its label, and takes as long to draw as a small network to see
_scene = cache(objects)


def few_frames(patch: pytest.MonkeyPatch, frames: int) -> None:
    """Leave so many frames of each video of synthmotion_boxes, of 32, in this process; draw each scene once."""
    patch.setattr(synthmotion_boxes, "objects", _scene)
    # what others read of these videos, before and after, is kept apart
    patch.setattr(session, "_annotated", lru_cache(maxsize=1)(session._annotated.__wrapped__))
    whole = SynthMotionBoxes.segments

    def segments(dataset: SynthMotionBoxes, split: str, video_id: str) -> list[Segment]:
        return [replace(each, frames=each.frames[:frames]) for each in whole(dataset, split, video_id)]

    patch.setattr(SynthMotionBoxes, "segments", segments)


def like(sizes: Sizes) -> Entry:
    """Return the entry of a backbone whose sizes are of this kind."""
    known = [entry for entry in registry.backbones().values() if type(entry.sizes) is type(sizes)]
    kind = getattr(sizes, "model_type", None)
    return next(entry for entry in known if getattr(entry.sizes, "model_type", None) == kind)


def construct(sizes: Sizes) -> Classifier:
    """Build a classifier of any sizes with initial weights."""
    found = registry.imported(like(sizes).build)(sizes)
    assert isinstance(found, Classifier)
    return found


def add_backbone(monkeypatch: pytest.MonkeyPatch, name: str, sizes: Sizes) -> None:
    """Let a backbone of other sizes, without weights, be named."""
    monkeypatch.setitem(registry.entries(), name, replace(like(sizes), summary="for tests", sizes=sizes, weights=None))


def vpbench(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `vpbench` in this process, which spares loading torch; also returns what its child processes wrote."""
    threads = torch.get_num_threads()
    with contextlib.ExitStack() as within:
        out, err = (within.enter_context(_written_to(name)) for name in ("stdout", "stderr"))
        within.enter_context(contextlib.chdir(cwd or Path.cwd()))
        patch = within.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "argv", ["vpbench", *map(str, arguments)])
        warned = within.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("default")
        for unseen in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", unseen)  # as Python does on its own
        within.callback(torch.set_num_threads, threads)
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        for each in warned:
            err.write(warnings.formatwarning(each.message, each.category, each.filename, each.lineno))
        return subprocess.CompletedProcess(sys.argv, code, _read(out), _read(err))


@contextlib.contextmanager
def _written_to(stream: str) -> Iterator[IO[str]]:
    """Yield the file that holds what is written to a standard stream, by this process or those it starts."""
    number, before = {"stdout": 1, "stderr": 2}[stream], getattr(sys, stream)
    kept = os.dup(number)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        os.dup2(file.fileno(), number)
        setattr(sys, stream, file)
        try:
            yield file
        finally:
            setattr(sys, stream, before)
            os.dup2(kept, number)
            os.close(kept)


def _read(file: IO[str]) -> str:
    file.flush()
    file.seek(0)
    return file.read()


def vpbench_process(
    *arguments: str | Path, cwd: Path | None = None, hasty: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `vpbench` in a process of its own: where `cwd` is another checkout, or the process itself is looked at."""
    command = [sys.executable, *(("-c", HASTY) if hasty else ("-m", "vpbench")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=cwd)


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
