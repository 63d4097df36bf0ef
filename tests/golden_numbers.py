"""Numbers of every method on every embedded backbone, on one input; run this file to write them down anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vpbench.commands.check.cells import backbones, bench_of, methods
from vpbench.commands.check.clip_bench import ClipBench
from vpbench.commands.check.frame_bench import FrameBench
from vpbench.errors import UsageError
from vpbench.plan import identity

FILE = Path(__file__).with_suffix(".json")
KEEP = 0.5
#: clips that thresholds are derived from, and frames that a detector sees: enough for every method to prune
CALIBRATION, FRAMES = 2, 3
#: logits, or scores and boxes, that are written down of an input, and their digits
VALUES, DIGITS = 8, 6


def measure() -> dict[str, Any]:
    """Return tokens, operations and answers by `backbone/method`, of all that run, and what they were made for."""
    torch.set_num_threads(1)
    cells = {}
    for backbone in backbones(()):
        bench = bench_of(backbone)
        if isinstance(bench, ClipBench):
            bench.session.videos = bench.session.videos[:1]
            bench.calibration = bench.calibration[:CALIBRATION]
        elif isinstance(bench, FrameBench):
            unit = bench.units[0]
            bench.looks = {unit: [bench.session.look(f) for f in bench.session.videos[unit][0].frames[:FRAMES]]}
        for method in methods(()):
            try:
                candidate = bench.candidate(method, None if method == "dense" else KEEP)
            except UsageError:
                continue
            facts = list(bench.facts(candidate, bench.units[0]).values())[-1]
            values = [float(f"{value:.{DIGITS}g}") for value in facts.values[:VALUES]]
            tokens = [attention for attention, _ in facts.tokens]
            cells[f"{backbone}/{method}"] = {"tokens": tokens, "macs": facts.macs, "values": values}
    return {"numbers": identity.NUMBERS, "cells": cells}


if __name__ == "__main__":
    found = measure()
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(cell)}" for key, cell in found["cells"].items())
    FILE.write_text(f'{{\n "numbers": {found["numbers"]},\n "cells": {{\n{lines}\n }}\n}}\n', encoding="utf-8")
