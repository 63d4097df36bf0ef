"""Run by `against` in a process of its own, on a tree that may be older: times cells one by one as a pipe asks.

A question a line, as JSON: `backbone` and `cells` (method and keep ratio by name) loads what can run and answers with
its names; `run` and `times` runs one of them and answers with the nanoseconds of the last time.
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping

import torch

from vpbench.commands.check.cells import Cells
from vpbench.errors import UsageError
from vpbench.measure.rounds import MODEL

Call = Callable[[int], object]


def main() -> None:
    """Answer until nobody asks any more."""
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever prints must not be taken for an answer
    calls: dict[str, Call] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "run" in asked:
            answer: object = _took(calls[asked["run"]], asked["times"])
        else:
            calls = _loaded(asked["backbone"], asked["cells"])
            answer = list(calls)
            gc.collect()
            gc.disable()
        print(json.dumps(answer), file=answers, flush=True)


def _loaded(backbone: str, wanted: Mapping[str, tuple[str, float | None]]) -> dict[str, Call]:
    """Return what runs each cell, and dense twice; those that this tree refuses or lacks are left out."""
    cells = Cells(backbone)
    found = {"dense": cells.dense, "aa": cells.dense}
    for name, (method, keep) in wanted.items():
        try:
            found[name] = cells.attach(method, keep)
        except UsageError:
            continue
    return {name: cells.walk(cell).scopes[MODEL] for name, cell in found.items()}


def _took(call: Call, times: int) -> int:
    """Run a cell and return the nanoseconds of its last time."""
    took = 0
    with torch.inference_mode():
        for _ in range(times):
            began = time.perf_counter_ns()
            call(0)
            took = time.perf_counter_ns() - began
    return took


if __name__ == "__main__":
    main()
