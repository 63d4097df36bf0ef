"""What does the clock itself cost? The timed region of dense against a bare loop over the same model and clips.

    python benchmarks/harness_overhead.py --rounds 300
    python benchmarks/harness_overhead.py --rounds 100 --base DIR --repeats 12

The two alternate, call by call, in one process. Exits with 1 if they differ by more than 2 %. With `--base`, this
script and the one of another checkout take turns in random order, each in a fresh process that imports its own tree:
held to 2 % is each turn's harness over bare, so that a machine that becomes slower meanwhile cancels out.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vpbench import plan
from vpbench.measure import clock
from vpbench.rows.statistics import intervals
from vpbench.tasks.recognition.session import Session
from vpbench.tasks.recognition.walk import batches_of

HERE = Path(__file__).resolve()
MOST = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", default="embedded")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--base", type=Path, help="another checkout, to take turns with")
    parser.add_argument("--repeats", type=int, default=12, help="turns of each tree, with --base (default: 12)")
    given = parser.parse_args()
    if given.base is not None:
        options = ["--rounds", str(given.rounds), "--threads", str(given.threads), "--weights", given.weights]
        if given.device != "cpu":  # older trees know no other
            options += ["--device", given.device]
        return beside(given.base.resolve(), given.repeats, options)
    harness, bare = alternating(given.rounds, given.threads, given.weights, given.device)
    print(f"harness {np.median(harness) / 1e6:.3f} ms, bare {np.median(bare) / 1e6:.3f} ms", end=", ")
    return verdict("ratio", harness, bare)


def alternating(rounds: int, threads: int, weights: str, device: str) -> tuple[list[int], list[int]]:
    """Return nanoseconds of dense as the clock measures it, and called from a bare loop."""
    asked = plan.options({"method": ("dense",), "weights": weights, "threads": threads, "device": device})
    session = Session(plan.setting(asked, threads))
    batches, _ = batches_of(session.backbone, session.clips_to_time(), session.setting.batch, device)
    synchronize = clock.synchronizer(device)
    harness, bare = [], []
    with torch.inference_mode():
        clock.warm_up(lambda number: session.backbone(batches[0]), synchronize, min_seconds=1, max_seconds=5)
        for number in range(rounds):
            batch = batches[number % len(batches)]
            variant = {"dense": lambda _, batch=batch: session.backbone(batch)}
            timed = clock.time_rounds(variant, 1, np.random.default_rng(0), synchronize, device=device)
            harness += [sample.wall_ns for sample in timed]
            began = time.perf_counter_ns()
            session.backbone(batch)
            synchronize()
            bare.append(time.perf_counter_ns() - began)
    return harness, bare


def beside(base: Path, repeats: int, options: Sequence[str]) -> int:
    """Let both trees take turns and say how they differ."""
    trees = {"base": base, "here": HERE.parent.parent}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
    order = np.random.default_rng(0)
    for turn in range(repeats):
        for name in order.permutation(list(trees)):
            found[name].append(one_turn(trees[name], options))
        last = ", ".join(f"{name} {each[-1][0]:.3f} / {each[-1][1]:.3f} ms" for name, each in found.items())
        print(f"turn {turn + 1} of {repeats}, harness / bare: {last}", file=sys.stderr)
    here, there = (np.array(found[name]) for name in ("here", "base"))
    verdict("harness, here over base", here[:, 0], there[:, 0])
    return verdict("harness over bare, here over base", here[:, 0] / here[:, 1], there[:, 0] / there[:, 1])


def one_turn(tree: Path, options: Sequence[str]) -> tuple[float, float]:
    """Return medians of harness and bare loop, in ms, of one process."""
    command = [sys.executable, str(tree / "benchmarks" / HERE.name), *options]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    numbers = re.search(r"harness ([\d.]+) ms, bare ([\d.]+) ms", done.stdout)
    if numbers is None:
        raise SystemExit(f"{tree}: no result:\n{done.stdout}{done.stderr}")
    return float(numbers[1]), float(numbers[2])


def verdict(what: str, times: Sequence[float] | np.ndarray, reference: Sequence[float] | np.ndarray) -> int:
    ratio = intervals.speedup(np.asarray(times), np.asarray(reference), np.zeros(len(times), int))
    print(f"{what} {ratio.value:.4f} [{ratio.lo:.4f}, {ratio.hi:.4f}]")
    return 0 if abs(ratio.value - 1) <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
