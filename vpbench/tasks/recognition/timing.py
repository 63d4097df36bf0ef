"""Third pass: how long each cell takes, in interleaved rounds beside dense, and what memory it needs."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from vpbench.api import Clip, Pruner
from vpbench.measure import clock, energy, machine, memory
from vpbench.measure.rounds import TWIN, Timed
from vpbench.processes import call
from vpbench.progress import Task
from vpbench.rows.schema import Row
from vpbench.tasks.recognition import walk
from vpbench.tasks.recognition.end_to_end import time_passes
from vpbench.tasks.recognition.session import Ready, Session, batch_for, peak_job
from vpbench.tasks.recognition.walk import Configuration, Rounds


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
        found = walk.measure(
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
    stages = walk.split(session.backbone, setting, own, clips, seed) if setting.stages else {}
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
        parts.append(call(walk.measure_afresh, *arguments, name=name, deadline_s=deadline_s))
        task.advance(effort.rounds)
    return walk.together(parts)


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
