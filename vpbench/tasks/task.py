"""What a task is to those who run it: its data and network, what it predicts, what of it is timed, how it is scored."""

import abc
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
import torch

from vpbench.api import Clip, Method, Pruner
from vpbench.data.state import FileState
from vpbench.measure import stages
from vpbench.measure.rounds import Walk
from vpbench.plan import Cell, Setting
from vpbench.rows.fates import Fate, Sample
from vpbench.rows.schema import Result


@dataclass
class Attached:
    """A cell whose method is attached to a backbone; `error` is set once something went wrong with it.

    `setup_s`: what setting the parameters and attaching took.
    """

    cell: Cell
    method: Method
    pruner: Pruner
    setup_s: float
    status: str = "ok"
    error: str | None = None

    def fail(self, error: BaseException) -> None:
        """Remember why this cell has no result; it takes no further part."""
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        self.status = "oom" if memory else "failed"
        self.error = f"{type(error).__name__}: {error}".splitlines()[0]


@dataclass(frozen=True)
class Seen:
    """What all cells of a group see and run on: how many videos or frames are expected, what they are, and the network.

    `digest`: of the list of what is seen. `parameters`: of the network. `protocol`: how views are cut from videos, and
    how many there are; none on detectors. `outputs`: numbers that the network answers with.
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
    outputs: int
    #: JSON of what contradicts itself in what is seen, counts by kind
    problems: str | None = None
    #: how multiply-accumulates of the network are known; see `Backbone.costs`
    costs: str = "closed form"
    #: how positions came about; see `Backbone.repositioned`
    positions: str | None = None


@dataclass(frozen=True)
class Read:
    """One item as it was read: `given` is its task's business, or `error` says why there is nothing."""

    item: str
    given: Any
    error: str | None = None
    #: of its file before it was read, where it has one
    state: FileState | None = None


@dataclass(frozen=True)
class Predicted:
    """What one cell predicted of one item: rows by table, without run and id; tables may hold Arrow columns."""

    cell: Attached
    item: str
    rows: Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """What was predicted under one id, as it lies in the tables of a task, rows in the order of the items."""

    tables: Mapping[str, pd.DataFrame]
    #: where tables lie that are too large to be at hand
    folder: Path
    prediction_id: str

    def __getitem__(self, table: str) -> pd.DataFrame:
        return self.tables[table]


@dataclass(frozen=True)
class Configuration:
    """A method as another process can attach it; `counts`: tokens to keep of each clip, for random controls."""

    method: Method
    counts: Mapping[str, int] | None


@dataclass(frozen=True)
class Pass:
    """One walk from files to answers: clips or frames answered, and seconds in which the model waited for them."""

    units: int
    waited_s: float


class Task(abc.ABC):
    """Data and network of one setting, loaded once. One subclass per folder of `tasks/`."""

    #: recognition, detection
    name: ClassVar[str]
    #: what can or cannot be read, one by one, for people
    unit: ClassVar[str]
    #: tables that hold what it predicts, in the order in which they are written
    tables: ClassVar[tuple[str, ...]]
    #: the one of them whose column `error` says what could not be read
    unread: ClassVar[str]
    #: modes of execution that it can be run in
    modes: ClassVar[tuple[str, ...]] = ("eager",)
    #: rounds in which the time of stages is told apart
    stage_rounds: ClassVar[int] = stages.ROUNDS
    #: milliseconds per clip to bring inputs onto an accelerator; None where nothing is copied
    h2d_ms: float | None = None

    setting: Setting
    seen: Seen
    #: ids of what will be predicted, in order
    items: Sequence[str]
    #: seconds to build the network and to load its weights
    setup_s: float
    #: prediction id -> clip id -> tokens kept on average over the layers; random controls copy it
    kept: dict[str, dict[str, int]]

    @classmethod
    @abc.abstractmethod
    def digest(cls, setting: Setting) -> str:
        """Return the digest of what will be seen; raises UsageError where the data cannot be used."""

    @classmethod
    @abc.abstractmethod
    def calibration_digest(cls, setting: Setting) -> str:
        """Return the digest of the clips that parameters are derived from and of their files; empty for none."""

    @classmethod
    @abc.abstractmethod
    def look(cls, setting: Setting) -> tuple[int, Mapping[str, int]]:
        """Count the items, and by kind what contradicts itself in the data, before anything is loaded or written.

        Raises UsageError where nothing of it is there, or the weights answer something else than it is labelled with.
        """

    @classmethod
    @abc.abstractmethod
    def check(cls, settings: Sequence[Setting]) -> None:
        """Raise UsageError where `open` would for options, weights and sizes of inputs, without building the network.

        settings: those of the groups of a request, which differ in mode and batch alone.
        """

    @classmethod
    @abc.abstractmethod
    def open(cls, setting: Setting) -> Self:
        """Load data and weights; raises UsageError where the setting itself cannot run."""

    @classmethod
    @abc.abstractmethod
    def alone(
        cls, setting: Setting, configurations: Mapping[str, Configuration], inputs: Sequence[Any]
    ) -> dict[str, Walk]:
        """Build the network from nothing and return the walks of configurations: for a process of its own."""

    @abc.abstractmethod
    def steps(self, item: str) -> int:
        """Return the steps of progress that an item is worth."""

    @classmethod
    @abc.abstractmethod
    def changed(cls, setting: Setting, stored: pd.DataFrame) -> set[str]:
        """Return the items whose files are others than those in rows of `unread`, as far as that is known."""

    @abc.abstractmethod
    def attach(self, cell: Cell, frozen: Mapping[str, Any] | None = None) -> Attached:
        """Set the method's parameters, or take those that were `frozen`, and attach it; raises UsageError."""

    @abc.abstractmethod
    def read(self, items: Collection[str]) -> Iterator[Read]:
        """Decode each of these items once, in order; one that cannot be read is there with its reason."""

    @abc.abstractmethod
    def predict(self, dense: Attached, cells: Sequence[Attached], reads: Sequence[Read]) -> Iterator[Predicted]:
        """Run cells, one after the other, on items that were read; all are compared with `dense`.

        A cell that fails is marked, and nothing of it comes from then on.
        """

    @abc.abstractmethod
    def inputs(self, cells: Sequence[Attached]) -> Sequence[Any]:
        """Choose and decode what the clock walks through, the same for all cells; picklable. Empty where it cannot."""

    @abc.abstractmethod
    def timed(self, inputs: Sequence[Any]) -> Sequence[str]:
        """Return the ids of the clips that inputs hold, as predictions name them."""

    @abc.abstractmethod
    def walk(self, cell: Attached, inputs: Sequence[Any], known: Mapping[str, int], batch: int | None = None) -> Walk:
        """Return what clock, stopwatch and joules run.

        known: multiply-accumulates by clip, as far as stored; `batch`: of a call, where it is not the setting's.
        """

    @abc.abstractmethod
    def least(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Return the part of the inputs that peak memory is taken on."""

    @abc.abstractmethod
    def enlarged(self, inputs: Sequence[Any], size: int) -> Sequence[Any]:
        """Return one call's inputs of so many clips or segments at once, repeating those that are there."""

    @abc.abstractmethod
    def through(self, pruner: Pruner, items: Sequence[str]) -> Pass:
        """Walk from the files of items to answers on the host, as users run it; caches are left out."""

    @abc.abstractmethod
    def samples_to_show(self) -> Sequence[Sample]:
        """Read the first inputs whose tokens are followed; what cannot be read is left out."""

    @abc.abstractmethod
    def fate(self, cell: Attached, sample: Sample) -> Fate:
        """Run one cell on a sample and see what becomes of its tokens; raises UsageError where that cannot be told."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the processes that read; from here on time is measured."""

    @classmethod
    @abc.abstractmethod
    def score(cls, setting: Setting, seen: Seen, own: Stored, dense: Stored, control: Stored | None) -> Result:
        """Return columns of quality, tokens and operations from stored tables alone; loads no network.

        control: what the method's random control predicted. Raises VpbenchError where what was written cannot be read.
        """


def parameters_of(attached: Attached) -> dict[str, Any]:
    """Return the parameters of a cell's method; of a matched control only its seed is its own."""
    if attached.cell.match is not None:
        return {"seed": getattr(attached.method, "seed", 0)}
    return dataclasses.asdict(attached.method)


def kept_of(tokens_layer: Sequence[int]) -> int:
    """Tokens per layer, averaged over the layers and rounded: what a random control of the same cost keeps."""
    return round(sum(tokens_layer) / len(tokens_layer))


def calibration_of(read: Callable[[], list[Clip]]) -> Sequence[Clip]:
    """Return clips that nobody decodes before a method looks at them."""
    return _Lazy(read)


class _Lazy(Sequence[Clip]):
    def __init__(self, read: Callable[[], list[Clip]]) -> None:
        self._read, self._clips = read, list[Clip]()

    def __getitem__(self, index: Any) -> Any:
        return self._known()[index]

    def __len__(self) -> int:
        return len(self._known())

    def _known(self) -> list[Clip]:
        self._clips = self._clips or self._read()
        return self._clips
