"""What do leases, part files and notes of workers cost? Cells that sleep instead of predicting, and one worker.

    python benchmarks/scheduling.py --out FOLDER

A task is one cell on one shard, of `--task` seconds. Prints how much longer all took than they have slept; exits with 1
where that is more than a tenth.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from finish_time import planned

from vpbench.plan import Cell, Setting
from vpbench.rows.store import Store
from vpbench.run.executors import shards
from vpbench.run.planned import Planned
from vpbench.tasks.task import Attached, Predicted, Read

MOST = 0.1


class Sleeping:
    """A task whose cells sleep."""

    unit, unread, tables = "videos", "videos", ("clips", "videos")
    task_s = 0.01

    def __init__(self, setting: Setting) -> None:
        self.setting, self.slept = setting, 0.0

    @classmethod
    def open(cls, setting: Setting) -> Sleeping:
        return cls(setting)

    @classmethod
    def changed(cls, setting: Setting, stored: object) -> set[str]:
        return set()

    def steps(self, item: str) -> int:
        return 1

    def attach(self, cell: Cell, frozen: Mapping[str, Any] | None = None) -> Attached:
        return Attached(cell, SimpleNamespace(), SimpleNamespace(), 0.0)  # type: ignore[arg-type]

    def read(self, items: Collection[str]) -> Iterator[Read]:
        yield from (Read(item, None) for item in items)

    def predict(self, dense: Attached, cells: Sequence[Attached], reads: Sequence[Read]) -> Iterator[Predicted]:
        for read in reads:
            for cell in cells:
                time.sleep(self.task_s)
                clip = {"clip_id": f"{read.item}@0", "video_id": read.item, "view": 0, "tokens_layer": [1568] * 12}
                yield Predicted(cell, read.item, {"clips": [clip], "videos": [{"video_id": read.item}]})

    def samples_to_show(self) -> Sequence[object]:
        return ()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="results folder, which must not be there yet")
    parser.add_argument("--shards", type=int, default=250, help="default: 250")
    parser.add_argument("--cells", type=int, default=40, help="default: 40")
    parser.add_argument("--task", type=float, default=0.01, help="seconds of a cell on a shard (default: 0.01)")
    given = parser.parse_args()
    found = planned(given.shards, given.cells, 1)
    found = dataclasses.replace(found, shards=tuple({f"video{number:06d}": 1} for number in range(given.shards)))
    setting = found.shared()
    cells = [Cell(cell.config_id, cell.prediction_id, setting, cell.method) for cell in found.cells]
    store = Store(given.out)
    Sleeping.task_s = given.task
    shards.planned = lambda folder, job: [Planned(found, cells, "")]  # type: ignore[assignment]
    shards.task_of = lambda dataset, backbone: Sleeping  # type: ignore[assignment, return-value]
    began, worked = time.perf_counter(), time.process_time()
    shards.Shards(0, 1)(SimpleNamespace(asked=SimpleNamespace(out=given.out)), "predict")  # type: ignore[arg-type]
    took, tasks = time.perf_counter() - began, given.shards * given.cells
    worked = time.process_time() - worked
    slept = _slept(tasks, given.task)
    over = took / slept - 1
    more = f"{100 * over:.1f} % more than {slept:.1f} s of sleep, {worked:.1f} s of CPU"
    print(f"{tasks} tasks of {1e3 * given.task:g} ms: {took:.1f} s, {more}")
    whole = len(store.read("videos")) == tasks
    return 0 if whole and over <= MOST else 1


def _slept(tasks: int, seconds: float) -> float:
    """Return how long so many sleeps take on this machine: each is a little longer than it is asked to be."""
    began = time.perf_counter()
    for _ in range(200):
        time.sleep(seconds)
    return max(tasks * seconds, tasks * (time.perf_counter() - began) / 200)


if __name__ == "__main__":
    sys.exit(main())
