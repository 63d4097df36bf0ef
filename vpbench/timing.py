"""Third pass: how long each cell takes, in interleaved rounds beside dense, and what memory it needs."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vpbench import rounds
from vpbench.api import Clip, Pruner
from vpbench.end_to_end import Pass, time_passes
from vpbench.measure import clock, energy, fresh, machine, memory
from vpbench.measure.stages import Split
from vpbench.progress import Task
from vpbench.rounds import Configuration, Rounds
from vpbench.session import Ready, Session, batch_for, peak_job

#: cells timed side by side, besides dense and its twin; more would stretch a round, and a killed run loses one block
BLOCK = 8
#: name of the second dense in the samples, as a control of the clock itself
TWIN = "aa"

Row = dict[str, Any]


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


def time_block(session: Session, dense: Ready, cells: Sequence[Ready], clips: Sequence[Clip], task: Task) -> Timed:
    """Time dense, dense again under another name, and `cells`, each once per round in random order.

    In this process, or in as many fresh ones as were asked for, one after the other. Raises VpbenchError where such a
    process fails.
    """
    setting, effort = session.setting, session.setting.effort
    kinds = {dense.cell.config_id: dense, TWIN: dense, **{c.cell.config_id: c for c in cells}}
    # the order of rounds is seeded by the block's content, so that a repeated run repeats it
    seed = zlib.crc32(",".join(kinds).encode())
    busy_before = machine.busy_cores()
    if setting.processes == 1:
        pruners = {name: ready.pruner for name, ready in kinds.items()}
        found = rounds.measure(
            session.backbone,
            session.forward,
            setting,
            pruners,
            clips,
            seed,
            lambda number: task.advance() if number < effort.rounds else None,
        )
    else:
        found = _in_fresh_processes(session, kinds, clips, seed, task)
    busy_after = machine.busy_cores()
    own = {name: ready.pruner for name, ready in kinds.items() if name != TWIN}
    synchronize = clock.synchronizer(setting.device)
    passes = time_passes(session, own, synchronize, np.random.default_rng(seed)) if setting.e2e else {}
    stages = rounds.split(session.backbone, setting, own, clips, seed) if setting.stages else {}
    return Timed(
        found.samples,
        found.clips_per_call,
        found.settled,
        found.macs,
        busy_before,
        busy_after,
        found.compile_s,
        found.recompiles,
        found.pinned,
        found.h2d_ms,
        passes,
        stages,
    )


def _in_fresh_processes(
    session: Session, kinds: Mapping[str, Ready], clips: Sequence[Clip], seed: int, task: Task
) -> Rounds:
    setting, effort = session.setting, session.setting.effort
    configurations = {
        name: Configuration(ready.method, None if ready.cell.match is None else session.kept[ready.cell.match])
        for name, ready in kinds.items()
    }
    # far beyond what it may take: warm-up of each configuration, then the rounds, on a machine that is ten times slower
    deadline_s = 3600 + 10 * (effort.seconds + len(kinds) * effort.warm_up_max_s)
    parts = []
    for process in range(setting.processes):
        arguments = (setting, configurations, clips, seed + process, process)
        name = f"timing in process {process + 1} of {setting.processes}"
        parts.append(fresh.call(rounds.measure_afresh, *arguments, name=name, deadline_s=deadline_s))
        task.advance(effort.rounds)
    return rounds.together(parts)


def peak_memory(session: Session, ready: Ready, clips: Sequence[Clip]) -> Row:
    """Return the memory columns of one cell: a process of its own on the CPU, allocator counters on CUDA."""
    part = clips[: session.setting.batch]
    counts = None if ready.cell.match is None else session.kept[ready.cell.match]
    if session.setting.device.startswith("cuda"):
        _, batch = next(session.batches(part))
        with torch.inference_mode():
            peak = memory.cuda_peak(lambda: session.forward(batch, ready.pruner), session.setting.device)
        return {
            "mem_weights_mb": peak.weights_mb,
            "mem_peak_alloc_mb": peak.peak_alloc_mb,
            "mem_peak_reserved_mb": peak.peak_reserved_mb,
            "mem_device_mb": peak.device_mb,
            "max_batch": largest_batch(session, ready.pruner, clips) if session.setting.max_batch else None,
        }
    host = memory.measure_peak(peak_job, session.setting, ready.method, counts, part, name=ready.cell.label)
    return {"mem_weights_mb": host.weights_mb, "mem_peak_rss_mb": host.peak_mb}


def largest_batch(session: Session, pruner: Pruner, clips: Sequence[Clip]) -> int | None:
    """Search the largest batch that fits on a GPU; clips are repeated to fill it. None where one does not fit."""

    def fits(size: int) -> bool:
        many = [clips[k % len(clips)] for k in range(size)]
        batch = batch_for(session.backbone, many, session.setting.device)
        return memory.fits_cuda(lambda: session.forward(batch, pruner), session.setting.device)

    with torch.inference_mode():
        return memory.max_batch(fits)


def joules(session: Session, ready: Ready, clips: Sequence[Clip]) -> Row:
    """Return the columns of energy of one cell: its forwards, for ten seconds, after ten idle ones."""
    counter, reason = energy.counter_of(session.setting.device)
    idle = 0.0 if counter is None else energy.idle_watts(counter)
    batches = itertools.cycle([batch for _, batch in session.batches(clips)])
    synchronize = clock.synchronizer(session.setting.device)

    def work() -> int:
        batch = next(batches)
        with torch.inference_mode():
            session.forward(batch, ready.pruner)
        synchronize()
        return len(batch.ids)

    return energy.columns(counter, reason, work, idle)
