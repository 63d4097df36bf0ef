"""Does time follow arithmetic? Speed-up over dense against the ratio of multiply-accumulates, interleaved rounds.

    python benchmarks/wallclock_follows_flops.py --keep 0.4 --threads 2

`efficiency` is the median over rounds of speed-up / MACs ratio of that round's clip. `totals` is the same of all time
and all MACs together: what a long job sees, and what the mean GMACs of a table stand for. Exits with 1 if random or rlt
turn less than `--least` of the ratio of totals into time.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import torch

from vpbench import plan
from vpbench.measure import clock, machine
from vpbench.rows.statistics import intervals
from vpbench.tasks.attach import attach
from vpbench.tasks.recognition.predict import macs_of
from vpbench.tasks.recognition.session import Session
from vpbench.tasks.recognition.walk import batches_of

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--keep", type=float, default=0.4)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=200)
parser.add_argument("--weights", default="embedded")
parser.add_argument("--least", type=float, default=0.8)
given = parser.parse_args()

asked = plan.options({"method": ("random", "rlt", "tdiff", "sta"), "keep": (given.keep,), "weights": given.weights})
shared = plan.setting(asked.model_copy(update={"threads": given.threads}), given.threads)
cells = plan.cells(asked, shared)
session = Session(shared)
ready = [attach(cell, session.backbone, session.calibration, {}) for cell in cells]
batches, _ = batches_of(session.backbone, session.clips_to_time(), 1, "cpu")
before = machine.snapshot()


def runs(pruner):  # type: ignore[no-untyped-def]
    return lambda number: session.backbone(batches[number % len(batches)], pruner)


with torch.inference_mode():
    variants = {r.cell.label: runs(r.pruner) for r in ready} | {"dense again": runs(ready[0].pruner)}
    for variant in variants.values():
        clock.warm_up(variant, clock.synchronizer("cpu"), min_seconds=1, max_seconds=5)
    samples = clock.time_rounds(variants, given.rounds, np.random.default_rng(0), clock.synchronizer("cpu"))
    outs = {r.cell.label: [(r.pruner, session.backbone(b, r.pruner)) for b in batches] for r in ready}
    macs = {name: np.array([macs_of(pruner, out, 0) for pruner, out in each]) for name, each in outs.items()}

wall = {name: np.array([s.wall_ns for s in samples if s.name == name], float) for name in variants}
print(
    json.dumps(
        {"machine": before.device_name, "threads": given.threads, "load": before.load, "commit": before.git_commit}
    )
)
print(
    f"{'':<16}{'ms/clip':>9}{'speed-up':>10}  {'95 % interval':<18}{'MACs ratio':>11}{'efficiency':>12}{'totals':>11}"
)
failed = False
for name, times in wall.items():
    own = macs.get(name, macs["dense"])
    ratio = np.resize(macs["dense"] / own, len(times))
    speed = intervals.speedup(wall["dense"], times, np.zeros(len(times), int))
    # medians pair each round with its own clip; totals weigh clips by their time, as a long job does
    efficiency = float(np.median(wall["dense"] / times / ratio))
    totals = (
        wall["dense"].sum()
        / times.sum()
        / (np.resize(macs["dense"], len(times)).sum() / np.resize(own, len(times)).sum())
    )
    span = f"[{speed.lo:.2f}, {speed.hi:.2f}]"
    print(
        f"{name:<16}{np.median(times) / 1e6:>9.2f}{speed.value:>10.2f}  {span:<18}{np.median(ratio):>11.2f}"
        f"{efficiency:>12.2f}{totals:>11.2f}"
    )
    failed |= name.startswith(("random", "rlt")) and totals < given.least
sys.exit(1 if failed else 0)
