"""What does the quality pass cost beside its forwards? As a run does it, over bare forwards of as large batches.

    python benchmarks/quality_pass.py                        the demo's first part: seven cells, 60 clips
    python benchmarks/quality_pass.py --method rlt --keep 0.4 --limit 40 --repeats 5

The machine must be idle otherwise. Both take turns in one process. The pass reads files, decodes, runs every cell,
compares and writes rows into a new folder; bare are the forwards alone, of clips that are decoded and stacked. What
parts of the pass take is said per clip, all cells together. Exits with 1 if the pass takes over 15 % longer.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpbench import plan
from vpbench.api import ClipBatch
from vpbench.data.feed import ViewLoader
from vpbench.plan import Cell
from vpbench.rows.store import Store
from vpbench.run import resolve, work
from vpbench.tasks import recognition
from vpbench.tasks.recognition import Recognition
from vpbench.tasks.recognition.session import batch_for
from vpbench.tasks.task import Attached

MOST = 0.15
#: the module; in its package the name is a function's
predicting = importlib.import_module("vpbench.tasks.recognition.predict")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="dense,random,rlt,sta")
    parser.add_argument("--keep", default="0.2,0.4")
    parser.add_argument("--backbone", default="videomae_embedded")
    parser.add_argument("--split", default="ci")
    parser.add_argument("--limit", type=int, default=60, help="clips")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    asked = {"method": given.method.split(","), "keep": [float(keep) for keep in given.keep.split(",")]}
    asked |= {"backbone": given.backbone, "split": given.split, "limit": given.limit, "threads": given.threads}
    cells = cells_of(plan.options(asked))
    torch.set_num_threads(given.threads)
    task = Recognition.open(cells[0].setting)
    attached = [task.attach(cell) for cell in cells]
    passed(task, attached)  # warms up, and finds the counts that random controls copy
    batches = seen(task)
    ratios, spent = list[float](), dict[str, float]()
    for turn in range(given.repeats):
        alone = bare(task, attached, batches)
        took, spent = passed(task, attached)
        ratios.append(took / alone)
        print(f"turn {turn + 1}: pass {took:.2f} s, forwards {alone:.2f} s, {100 * (took / alone - 1):+.1f} %")
    clips = len(task.items) * task.session.views
    print(", ".join(f"{name} {1e3 * seconds / clips:.2f} ms/clip" for name, seconds in spent.items()))
    over = float(np.median(ratios)) - 1
    print(f"{len(cells)} cells, {clips} clips: the pass takes {100 * over:.1f} % longer than its forwards")
    return 0 if over <= MOST else 1


def cells_of(asked: plan.Options) -> list[Cell]:
    """Plan the one group of a request."""
    shared, digests = resolve.resolve(asked)
    [setting] = plan.groups(shared, asked, resolve.largest_batch)
    return plan.cells(asked, setting, digests)


def passed(task: Recognition, cells: list[Attached]) -> tuple[float, dict[str, float]]:
    """Run the quality pass into a new folder; returns its seconds, and those of its parts."""
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, _timed(spent):
        store = Store(Path(folder))
        began = time.perf_counter()
        work.predict(task, cells, store, "pass", True)
        return time.perf_counter() - began, spent


def seen(task: Recognition) -> list[ClipBatch]:
    """Decode all clips, in the batches that forwards get."""
    clips = [clip for read in task.read(set(task.items)) for clip in read.given.clips]
    size = predicting.TOGETHER
    return [batch_for(task.session.backbone, clips[i : i + size], "cpu") for i in range(0, len(clips), size)]


def bare(task: Recognition, cells: list[Attached], batches: list[ClipBatch]) -> float:
    """Run every cell on every batch, and nothing else; returns seconds."""
    began = time.perf_counter()
    with torch.inference_mode():
        for cell in cells:
            for batch in batches:
                task.session.forward(batch, cell.pruner)
    return time.perf_counter() - began


@contextmanager
def _timed(spent: dict[str, float]) -> Iterator[None]:
    """Add up what parts of the pass take meanwhile."""
    parts: tuple[tuple[str, Any, str], ...] = (
        ("read", ViewLoader, "load"),
        ("file states", recognition, "state_of"),
        ("forwards", predicting, "_answers"),
        ("rows", predicting, "_row"),
        ("videos", predicting, "_video"),
        ("writing", work.Parts, "settle"),
    )
    before = [(owner, name, getattr(owner, name)) for _, owner, name in parts]
    for (what, owner, name), (_, _, function) in zip(parts, before, strict=True):
        setattr(owner, name, _counting(what, function, spent))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def _counting(what: str, function: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def counted(*args: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **named)
        finally:
            spent[what] = spent.get(what, 0.0) + time.perf_counter() - began

    return counted


if __name__ == "__main__":
    sys.exit(main())
