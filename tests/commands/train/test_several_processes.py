"""Several processes train as one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gradients import CASES, step
from killed import run
from safetensors.torch import load_file

from vpbench.commands.train import loop

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def started(script: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes that `torchrun` starts."""
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    given = [*command, str(script), *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, timeout=240, check=False, env=environment())


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    done = started(HERE / "gradients.py", tmp_path / "both.pt")
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "both.pt", weights_only=True)
    for method, clips in CASES:
        both, alone = found[method], step(method, clips, tmp_path / "alone")
        assert both["losses"] == pytest.approx(alone["losses"], rel=1e-6)
        for name, gradient in alone["gradients"].items():
            largest = float(gradient.abs().max())
            torch.testing.assert_close(both["gradients"][name], gradient, rtol=0, atol=1e-6 * largest + 1e-9)


def test_a_killed_run_ends_with_the_weights_of_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    done = subprocess.run([sys.executable, HERE / "killed.py", tmp_path / "parts", "3"], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    left = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert json.loads(left["counts"])[0] == 2
    whole, parts = (load_file(run(tmp_path / name)) for name in ("whole", "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
