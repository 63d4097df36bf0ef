"""Take one step of a fine-tuning, alone or as one of several processes, and save its gradients and losses.

torchrun --nproc-per-node 2 gradients.py FILE METHOD CLIPS
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from noise_clips import Noise, tiny, training

from vpbench.api.method import load_method
from vpbench.commands.train.engine import place
from vpbench.commands.train.finetune import Finetuning
from vpbench.commands.train.loop import Batch


class Shared(Noise):
    """Noise of which each process gets its clips, as training clips come; nothing where there is none for it."""

    def batch(self, number: int) -> Batch:
        (pixels, target), _ = super().batch(number)
        rank, processes = place()
        mine = pixels[rank::processes], target[rank::processes]
        return Batch(mine, len(mine[0])) if len(mine[0]) else Batch((pixels[:1], target[:1]), 0)


def step(method: str, clips: int, out: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    run: Finetuning = training(tiny(), load_method(method)(), out, Shared(clips))
    losses = run.step()
    return {"losses": losses, "gradients": {n: p.grad for n, p in run.state.model.named_parameters()}}


#: clips of different lengths, three in one process and two in the other; and one clip, with none in the other
CASES = (("rlt", 5), ("dense", 1))

if __name__ == "__main__":
    file = Path(sys.argv[1])
    found = {method: step(method, clips, file.parent / method) for method, clips in CASES}
    if place()[0] == 0:
        torch.save(found, file)
