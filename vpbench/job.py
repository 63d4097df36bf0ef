"""What the runner asks of a task: how its cells are prepared, predicted, timed and turned into rows."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import pandas as pd

from vpbench.errors import UsageError
from vpbench.fate import Fate
from vpbench.fates import Sample
from vpbench.plan import Cell, Setting
from vpbench.progress import Task
from vpbench.rows import Run
from vpbench.session import Candidate
from vpbench.store import Store
from vpbench.timing import Timed

R = TypeVar("R", bound=Candidate)
Row = dict[str, Any]


class Job(abc.ABC, Generic[R]):
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
    def ready(self, cell: Cell) -> R:
        """Set the method's parameters and attach it; raises UsageError where it cannot serve."""

    @abc.abstractmethod
    def measure(self, cells: Sequence[R], store: Store, run_id: str, repeat: Callable[[str], bool], task: Task) -> Row:
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
    def fate(self, ready: R, sample: Sample) -> Fate:
        """Run one cell on a sample and see what becomes of its tokens; raises UsageError where that cannot be told."""

    @abc.abstractmethod
    def samples_to_time(self, cells: Sequence[R]) -> Sequence[Any]:
        """Decode what timing walks through; empty where nothing can be read."""

    @abc.abstractmethod
    def time_block(self, dense: R, cells: Sequence[R], inputs: Sequence[Any], task: Task) -> Timed:
        """Time dense, dense again under another name, and `cells`, each once per round in random order."""

    @abc.abstractmethod
    def samples(self, run_id: str, timed: Timed, dense_id: str) -> Mapping[str, Sequence[Row]]:
        """Return the rows of the `samples` table by the start of their part's name."""

    @abc.abstractmethod
    def common(self, run: Run, cell: Cell) -> Row:
        """Columns known before anything is measured: identity, model, data, execution."""

    @abc.abstractmethod
    def finished(self, base: Row, ready: R, dense: R, store: Store, timed: Timed) -> Row:
        """Row of a cell that was measured; raises VpbenchError where what was written cannot be read."""

    @abc.abstractmethod
    def memory(self, ready: R, inputs: Sequence[Any]) -> Row:
        """Return the memory columns of one cell; raises VpbenchError where its process fails."""
