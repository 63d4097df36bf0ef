"""Several processes train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gradients import step

HERE = Path(__file__).resolve().parent


def started(script: Path | str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script in two processes that `torchrun` starts."""
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent), *sys.path])
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    given = map(str, (script, *arguments))
    return subprocess.run([*command, *given], capture_output=True, text=True, timeout=240, check=False, env=environment)


@pytest.mark.parametrize(("method", "clips"), [("rlt", 5), ("dense", 1)])
def test_two_processes_give_the_gradients_of_one(method: str, clips: int, tmp_path: Path) -> None:
    """Clips of different lengths, three in one process and two in the other; and one clip, none in the other."""
    done = started(HERE / "gradients.py", tmp_path / "both.pt", method, str(clips))
    assert done.returncode == 0, done.stderr
    both, alone = torch.load(tmp_path / "both.pt", weights_only=True), step(method, clips, tmp_path)
    assert both["losses"] == pytest.approx(alone["losses"], rel=1e-6)
    gradients = alone["gradients"]
    assert isinstance(gradients, dict)
    for name, gradient in gradients.items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(both["gradients"][name], gradient, rtol=0, atol=1e-6 * largest + 1e-9)
