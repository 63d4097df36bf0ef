"""What RGTP and Eventful Transformers buy on ViTDet-B at 672 pixels, beside their random controls, in one process.

    python benchmarks/pruned_detector.py --videos FILE... --threads 2 --rounds 3 [--preset rgtp/vid672_keep384,...]

Random weights, frames of real videos, all interleaved. Times the transformer with what the methods add to it over
groups of 8 frames, the first of them dense. Pyramid and head cost the same with and without pruning and are left out;
what guides a method are the boxes that they found in a first walk. Prints what the first preset loses on the way from
fewer multiply-accumulates to less time; exits with 1 if its speed-up is below 0.8 of the ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from interleaved import print_losses

from vpbench import plan
from vpbench.api import Detections, Method, Pruner
from vpbench.api.method import load_method
from vpbench.backbones import loading
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.data.protocols.whole import resize
from vpbench.data.video import decode
from vpbench.measure import clock, machine
from vpbench.plan import presets
from vpbench.rows.statistics import intervals
from vpbench.tasks.detection.follow import Follower, Look
from vpbench.tasks.detection.predict import transformer_macs
from vpbench.tasks.detection.walk import PARTS

PRESETS = "rgtp/vid672_keep384,rgtp/vid672_keep64,eventful/vid672_k512,eventful/vid672_k128"
GROUP = 8


def methods(preset: str) -> dict[str, Method]:
    """Return the method of a preset and its random control with the same parameters, by name."""
    asked = plan.options(presets.find(preset))
    [name] = [each for each in asked.method if each != "dense"]
    [params] = plan.parameter_sets(name, asked.set)
    kinds = [name, *load_method(name).controls]
    return {f"{kind} {preset.rpartition('_')[2]}": load_method(kind)(**dict(params)) for kind in kinds}


def groups(paths: Sequence[Path]) -> list[list[Look]]:
    """Return the first frames of each video, resized as the detector takes them."""
    found = []
    for path in paths:
        frames = (resize(frame, 672) for frame in decode(path, list(range(GROUP)), "pyav"))
        found.append([Look(path.stem, n, torch.from_numpy(frame), 1.0) for n, frame in enumerate(frames)])
    return found


class Walk:
    """One pruner over a group of frames; boxes come from a first walk with the head."""

    def __init__(self, model: ViTDet, pruner: Pruner, every: Sequence[Sequence[Look]]) -> None:
        self.follower, self.every = Follower(model, pruner), every
        self.boxes: list[list[Detections]] = []
        self.macs = 0
        for group in every:
            steps = list(self.follower.walk([group]))
            self.boxes.append([found.detections for [found] in steps])
            self.macs += sum(transformer_macs(model.config, pruner, found) for [found] in steps)

    def __call__(self, number: int) -> None:
        """Walk through a group without pyramid and head."""
        which = number % len(self.every)
        self.follower.start([self.every[which][0]])
        for look, boxes in zip(self.every[which], self.boxes[which], strict=True):
            self.follower.transform(look.pixels[None], [boxes])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default=PRESETS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    facts = machine.snapshot()
    print(json.dumps({"machine": facts.device_name, "threads": given.threads, "load": facts.load,
                      "commit": facts.git_commit, "videos": [path.stem for path in given.videos]}))  # fmt: skip
    model = loading.build_detector("vitdet_b_672", "random", 0).requires_grad_(False)
    with torch.inference_mode():
        every = groups(given.videos)
        walks = {"dense": Walk(model, Pruner(), every)}
        asked = {name: method for each in given.preset.split(",") for name, method in methods(each).items()}
        walks |= {name: Walk(model, method.attach(model), every) for name, method in asked.items()}
        first = next(iter(asked))
        variants: dict[str, Callable[[int], object]] = {**walks, "dense again": walks["dense"]}
        samples = clock.time_rounds(variants, given.rounds, np.random.default_rng(0), clock.synchronizer("cpu"))
        wall = {name: np.array([s.wall_ns for s in samples if s.name == name], float) for name in variants}
        cost, missed = {name: walk.macs for name, walk in walks.items()}, []
        print(
            f"{'':<24}{'ms/frame':>9}{'GMACs':>8}{'speed-up':>10}  {'95 % interval':<16}{'MACs ratio':>11}{'of it':>7}"
        )
        for name, times in wall.items():
            own = cost.get(name, cost["dense"])
            gain = intervals.speedup(wall["dense"], times, np.zeros(given.rounds, int))
            total, ratio = wall["dense"].sum() / times.sum(), cost["dense"] / own
            each, frames = np.median(times) / 1e6 / GROUP, GROUP * len(every)
            found = f"{name:<24}{each:>9.0f}{own / frames / 1e9:>8.1f}{total:>10.2f}"
            print(f"{found}  {f'[{gain.lo:.2f}, {gain.hi:.2f}]':<16}{ratio:>11.2f}{total / ratio:>7.2f}")
            if name == first and total / ratio < 0.8:
                missed.append(f"{name} turns {total / ratio:.2f} of the ratio into speed")
        print(f"{first}, 8 frames: ", end="")
        compared = [walks["dense"], walks[first]]
        owners = [(*model.modules(), *PARTS, walk.follower.pruner) for walk in compared]
        print_losses(compared, owners, cost["dense"] / cost[first], 2)
    print("missed: " + "; ".join(missed) if missed else "all targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
