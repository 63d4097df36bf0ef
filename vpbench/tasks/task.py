"""What a task is to those who run it: cells attached, predicted, timed and turned into rows."""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import pandas as pd

from vpbench.errors import UsageError
from vpbench.measure.machine import Machine
from vpbench.measure.rounds import Timed
from vpbench.plan import Cell, Digests, Setting
from vpbench.progress import Task
from vpbench.rows.fates import Fate, Sample
from vpbench.rows.schema import Row
from vpbench.rows.store import Store
from vpbench.tasks.attach import Attached

#: a run with a larger share of unreadable videos is incomplete
FAILED_SHARE = 0.01


@dataclasses.dataclass(frozen=True)
class Run:
    """Facts that all rows of one invocation share."""

    run_id: str
    command: str
    digests: Digests
    before: Machine


@dataclasses.dataclass(frozen=True)
class Seen:
    """What all cells of a group see and run on: how many videos or frames are expected, what they are, and the network.

    `task`: recognition or detection. `digest`: of the list of what is seen. `parameters`: of the network.
    `protocol`: how views are cut from videos, and how many there are; none on detectors.
    """

    task: str
    expected: int
    digest: str
    protocol: str | None
    views: int
    decoder: str
    frames: int
    stride: int
    resolution: int
    tokens: int
    parameters: int


def outcome(ready: Attached, seen: pd.DataFrame, name: str, unit: str) -> Row:
    """Columns of parameters and of what could be read: rows of `seen`, called `unit`, named by its column `name`."""
    broken = seen[seen["error"].notna()]
    failures = [{"video": v, "reason": e} for v, e in zip(broken[name], broken["error"], strict=True)]
    few = len(broken) <= FAILED_SHARE * len(seen)
    return {
        "method_params": json.dumps(parameters_of(ready)),
        "status": "ok" if few else "incomplete",
        "error": None if few else f"{len(broken)} of {len(seen)} {unit} unreadable",
        "n_clips": len(seen) - len(broken),
        "n_failed": len(broken),
        "failures": json.dumps(failures) if failures else None,
    }


def parameters_of(ready: Attached) -> Row:
    """Return the parameters of a cell's method; of a matched control only its seed is its own."""
    if ready.cell.match is not None:
        return {"seed": getattr(ready.method, "seed", 0)}
    return dataclasses.asdict(ready.method)


class Job(abc.ABC):
    """One group of cells on one kind of dataset: data, weights and methods, loaded once."""

    #: what can or cannot be read, one by one, for people
    unit: ClassVar[str]
    #: table whose column `error` says what could not be read
    unread: ClassVar[str]

    @classmethod
    @abc.abstractmethod
    def manifest(cls, setting: Setting) -> str:
        """Return the digest of what will be seen; raises UsageError where the data cannot be used."""

    @classmethod
    @abc.abstractmethod
    def open(cls, setting: Setting) -> Self:
        """Load data and weights; raises UsageError where the setting itself cannot run."""

    @property
    @abc.abstractmethod
    def total(self) -> int:
        """Steps of progress of `measure`."""

    @property
    @abc.abstractmethod
    def rounds(self) -> int:
        """Rounds that a block of cells is timed for, at least."""

    @abc.abstractmethod
    def recall(self, cells: Sequence[Cell], todo: Sequence[Cell], clips: Callable[[str], pd.DataFrame]) -> None:
        """Read what cells still to do need of others, some measured before; `clips` gives a configuration's rows."""

    @abc.abstractmethod
    def ready(self, cell: Cell) -> Attached:
        """Set the method's parameters and attach it; raises UsageError where it cannot serve."""

    @abc.abstractmethod
    def measure(
        self, cells: Sequence[Attached], store: Store, run_id: str, repeat: Callable[[str], bool], task: Task
    ) -> Row:
        """Predict everything with all cells, dense first, part by part, and write it down.

        Parts that exist are left alone, unless `repeat` says so of one of their videos, by id. A cell that fails is
        marked. Returns the columns that all cells share: what it took to read.
        """

    def largest_batch(self) -> int:
        """Return the most inputs that dense takes at once; raises UsageError where not even one fits, or cannot say."""
        raise UsageError(f"--batch max is not there for {self.unit}; give numbers")

    @abc.abstractmethod
    def samples_to_show(self) -> Sequence[Sample]:
        """Read the first inputs whose tokens are followed; what cannot be read is left out."""

    @abc.abstractmethod
    def fate(self, ready: Attached, sample: Sample) -> Fate:
        """Run one cell on a sample and see what becomes of its tokens; raises UsageError where that cannot be told."""

    @abc.abstractmethod
    def samples_to_time(self, cells: Sequence[Attached]) -> Sequence[Any]:
        """Decode what timing walks through; empty where nothing can be read."""

    @abc.abstractmethod
    def time_block(self, dense: Attached, cells: Sequence[Attached], inputs: Sequence[Any], task: Task) -> Timed:
        """Time dense, dense again under another name, and `cells`, each once per round in random order."""

    @abc.abstractmethod
    def samples(self, run_id: str, timed: Timed, dense_id: str) -> Mapping[str, Sequence[Row]]:
        """Return the rows of the `samples` table by the start of their part's name."""

    @abc.abstractmethod
    def common(self, run: Run, cell: Cell) -> Row:
        """Columns known before anything is measured: identity, model, data, execution."""

    @abc.abstractmethod
    def finished(self, base: Row, ready: Attached, dense: Attached, store: Store, timed: Timed) -> Row:
        """Row of a cell that was measured; raises VpbenchError where what was written cannot be read."""

    @abc.abstractmethod
    def memory(self, ready: Attached, inputs: Sequence[Any]) -> Row:
        """Return the memory columns of one cell; raises VpbenchError where its process fails."""
