"""Do training steps get as much faster as they get smaller? RLT beside dense at ViT-B, steps interleaved.

    python benchmarks/training_step.py [--keep 0.5,0.7] [--rounds 8] [--threads 2]

Forward, cross-entropy, backward and AdamW of VideoMAE ViT-B (random weights) on clips of 16 frames of 224 pixels, one
at a time, of which RLT keeps the given shares: about 0.7 are left of Kinetics-400. In each round dense comes twice and
each ratio once, in random order. Prints the speed-up with its interval, and its share of the MACs ratio.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from vpbench.api import ClipBatch, Pruner
from vpbench.api.backbone import classifier
from vpbench.methods.rlt import Rlt
from vpbench.rows.statistics import intervals
from vpbench.tasks.recognition.walk import TrainingSteps


def clip(keep: float, seed: int) -> torch.Tensor:
    """Return a clip `[1, 16, 224, 224, 3]` in which the share `keep` of tubelets, slot 0 included, changes."""
    draw = np.random.default_rng(seed)
    frames = np.repeat(draw.integers(0, 256, (1, 224, 224, 3), np.uint8), 16, axis=0)
    moving = draw.permutation(7 * 196)[: round(1568 * keep) - 196]
    for place in np.sort(moving):  # earlier slots first, whose content goes on until a place changes again
        slot, row, column = place // 196 + 1, place % 196 // 14 * 16, place % 14 * 16
        # from this slot on the place looks otherwise
        frames[2 * slot :, row : row + 16, column : column + 16] = draw.integers(0, 256, (16, 16, 3), np.uint8)
    return torch.from_numpy(frames)[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", default="0.5,0.7")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keeps = [float(each) for each in asked.keep.split(",")]
    torch.manual_seed(0)
    model = classifier("videomae_b").eval()
    steps, rlt, draw = TrainingSteps(model), Rlt(0.1).attach(model), np.random.default_rng(0)
    cells: dict[str, tuple[ClipBatch, Pruner]] = {"dense": (ClipBatch(clip(1.0, 0), ("",)), Pruner())}
    cells |= {"dense again": cells["dense"]}
    cells |= {f"rlt {keep:g}": (ClipBatch(clip(keep, 0), ("",)), rlt) for keep in keeps}
    with torch.inference_mode():
        macs = {name: model(*cell).macs[0] for name, cell in cells.items()}
        kept = {name: model(*cell).counts[0].attention[0] / 1568 for name, cell in cells.items()}
    took: dict[str, list[float]] = {name: [] for name in cells}
    for number in range(asked.rounds + 1):
        for name in draw.permutation(list(cells)).tolist():
            began = time.perf_counter()
            steps(*cells[name])
            if number:  # the first round warms up
                took[name].append(time.perf_counter() - began)
    one = np.zeros(asked.rounds, dtype=int)
    for name in cells:
        found = intervals.speedup(np.array(took["dense"]), np.array(took[name]), one)
        possible = macs["dense"] / macs[name]
        print(
            f"{name}: kept {kept[name]:.3f}, {np.median(took[name]):.2f} s, {found.value:.3f}x "
            f"[{found.lo:.3f}, {found.hi:.3f}], MACs {possible:.3f}x, share {found.value / possible:.3f}"
        )


if __name__ == "__main__":
    main()
