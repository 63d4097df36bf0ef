"""Several processes train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gradients import CASES, step

HERE = Path(__file__).resolve().parent


def started(script: Path | str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes that `torchrun` starts."""
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent), *sys.path])
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    given = map(str, (script, *arguments))
    return subprocess.run([*command, *given], capture_output=True, text=True, timeout=240, check=False, env=environment)


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
