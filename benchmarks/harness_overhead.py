"""What does the clock itself cost? The timed region of dense against a bare loop over the same model and clips.

    python benchmarks/harness_overhead.py --rounds 300

The two alternate, call by call, in one process. Exits with 1 if they differ by more than 2 %.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch

from vpbench import plan
from vpbench.measure import clock
from vpbench.rows.statistics import intervals
from vpbench.tasks.recognition.session import Session

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rounds", type=int, default=300)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--weights", default="embedded")
given = parser.parse_args()

asked = plan.options({"method": ("dense",), "weights": given.weights, "threads": given.threads})
session = Session(plan.setting(asked, given.threads))
batches = [batch for _, batch in session.batches(session.clips_to_time())]
synchronize = clock.synchronizer("cpu")
harness, bare = [], []
with torch.inference_mode():
    clock.warm_up(lambda number: session.backbone(batches[0]), synchronize, min_seconds=1, max_seconds=5)
    for number in range(given.rounds):
        batch = batches[number % len(batches)]
        variant = {"dense": lambda _, batch=batch: session.backbone(batch)}
        harness += [s.wall_ns for s in clock.time_rounds(variant, 1, np.random.default_rng(0), synchronize)]
        began = time.perf_counter_ns()
        session.backbone(batch)
        bare.append(time.perf_counter_ns() - began)

ratio = intervals.speedup(harness, bare, np.zeros(given.rounds, int))
print(
    f"harness {np.median(harness) / 1e6:.3f} ms, bare {np.median(bare) / 1e6:.3f} ms, ratio {ratio.value:.4f}", end=" "
)
print(f"[{ratio.lo:.4f}, {ratio.hi:.4f}]")
sys.exit(0 if abs(ratio.value - 1) <= 0.02 else 1)
