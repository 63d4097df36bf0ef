"""What rounds of timing gave: raw samples, and what is needed to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vpbench.measure import clock
from vpbench.measure.stages import Split


@dataclass(frozen=True)
class Pass:
    """One walk through the same videos: wall-clock, and the share of it in which the model waited for clips."""

    number: int
    order: int
    wall_ns: int
    clips: int
    waited_s: float


#: cells timed side by side, besides dense and its twin; more would stretch a round, and a killed run loses one block
BLOCK = 8
#: name of the second dense in the samples, as a control of the clock itself
TWIN = "aa"


@dataclass(frozen=True)
class Timed:
    """Raw samples of one block of cells and what is needed to read them."""

    samples: list[clock.Sample]
    clips_per_call: int
    settled: Mapping[str, bool]
    #: config_id -> round -> multiply-accumulates of that round's clips
    macs: Mapping[str, Sequence[int]]
    #: cores kept busy by other processes, just before and just after the rounds
    busy_before: float
    busy_after: float
    #: what was compiled before the rounds and during them, and processors they were pinned to: see `Rounds`
    compile_s: Mapping[str, float] = field(default_factory=dict)
    recompiles: Mapping[str, int] = field(default_factory=dict)
    pinned: tuple[int, ...] = ()
    #: milliseconds per clip to bring a batch onto an accelerator; None on the CPU, where nothing is copied
    h2d_ms: float | None = None
    #: config_id -> walks from files to answers, where they were asked for
    passes: Mapping[str, Sequence[Pass]] = field(default_factory=dict)
    #: config_id -> where the time of its forwards went, where that was asked for
    stages: Mapping[str, Sequence[Split]] = field(default_factory=dict)

    def of(self, name: str) -> list[clock.Sample]:
        """Return the samples of one configuration that count, in the order of processes and rounds."""
        return [s for s in self.samples if s.name == name and not s.dropped]

    def wall_ns(self, name: str) -> np.ndarray:
        """Wall-clock of one configuration, `[rounds]`, in the order of processes and rounds."""
        return np.array([s.wall_ns for s in self.of(name)], dtype=np.float64)

    def process(self, name: str) -> np.ndarray:
        """Return in which process each of these rounds ran, `[rounds]`."""
        return np.array([s.process for s in self.of(name)])

    def macs_of(self, name: str) -> np.ndarray:
        """Multiply-accumulates of each of these rounds, `[rounds]`."""
        counts = [not s.dropped for s in self.samples if s.name == name]
        return np.array(self.macs[name], dtype=np.float64)[counts]
