"""Run a fine-tuning that is killed (-9) while it writes a checkpoint, with half of it on the disk.

killed.py OUT CHECKPOINT
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from noise_clips import PLAIN_RECIPE, tiny, training

from vpbench.commands.train import loop
from vpbench.methods.rlt import Rlt


def run(out: Path) -> Path:
    """Train four steps, saved at each."""
    torch.set_num_threads(1)
    loop.SAVE_EVERY_S = 0.0
    return loop.run(training(tiny(), Rlt(0.1), out, recipe=PLAIN_RECIPE), "")


if __name__ == "__main__":
    out, last = Path(sys.argv[1]), int(sys.argv[2])
    real, written = torch.save, list[Path]()

    def dying(content: Any, path: Path) -> None:
        written.append(path)
        if len(written) == last:
            whole = io.BytesIO()
            real(content, whole)
            path.write_bytes(whole.getvalue()[: whole.tell() // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        real(content, path)

    torch.save = dying  # type: ignore[assignment]
    run(out)
