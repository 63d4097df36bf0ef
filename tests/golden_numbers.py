"""Numbers of every method on every embedded backbone, on one input; run this file to write them down anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vpbench.commands.check.cells import Cells, backbones, methods
from vpbench.errors import UsageError
from vpbench.plan import identity
from vpbench.tasks.recognition import Recognition

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
        on = Cells(backbone)
        on.task.items = on.task.items[:1]
        if isinstance(on.task, Recognition):
            on.task.session.calibration = on.task.session.calibration[:CALIBRATION]
        [(unit, seen)] = on.units.items()
        on.units[unit] = seen[:FRAMES]
        for method in methods(()):
            try:
                cell = on.attach(method, None if method == "dense" else KEEP)
            except UsageError:
                continue
            facts = list(on.facts(cell, unit).values())[-1]
            values = [float(f"{value:.{DIGITS}g}") for value in facts.values[:VALUES]]
            tokens = [attention for attention, _ in facts.tokens]
            cells[f"{backbone}/{method}"] = {"tokens": tokens, "macs": facts.macs, "values": values}
    return {"numbers": identity.NUMBERS, "cells": cells}


if __name__ == "__main__":
    found = measure()
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(cell)}" for key, cell in found["cells"].items())
    FILE.write_text(f'{{\n "numbers": {found["numbers"]},\n "cells": {{\n{lines}\n }}\n}}\n', encoding="utf-8")
