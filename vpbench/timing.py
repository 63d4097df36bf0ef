"""Third pass: how long each cell takes, in interleaved rounds beside dense, and what memory it needs."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vpbench.api import Clip, ClipBatch, Pruner
from vpbench.end_to_end import Pass, time_passes
from vpbench.measure import clock, machine, memory
from vpbench.plan import PROFILES
from vpbench.progress import Task
from vpbench.quality import clip_macs
from vpbench.session import Ready, Session, peak_job

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
    #: milliseconds per clip to bring a batch onto an accelerator; None on the CPU, where nothing is copied
    h2d_ms: float | None = None
    #: config_id -> walks from files to answers, where they were asked for
    passes: Mapping[str, Sequence[Pass]] = field(default_factory=dict)

    def wall_ns(self, name: str) -> np.ndarray:
        """Wall-clock of one configuration, `[rounds]`, in the order of the rounds."""
        return np.array([s.wall_ns for s in self.samples if s.name == name], dtype=np.float64)


def time_block(session: Session, dense: Ready, cells: Sequence[Ready], clips: Sequence[Clip], task: Task) -> Timed:
    """Time dense, dense again under another name, and `cells`, each once per round in random order.

    Every round takes another clip (or batch), the same for all; it lies on the device before the clock starts.
    """
    setting, profile = session.setting, PROFILES[session.setting.profile]
    synchronize = clock.synchronizer(setting.device)
    batches, h2d_ms = _on_device(session, clips, synchronize)
    pruners = {dense.cell.config_id: dense.pruner, TWIN: dense.pruner, **{c.cell.config_id: c.pruner for c in cells}}
    # the order of rounds is seeded by the block's content, so that a repeated run repeats it
    seed = zlib.crc32(",".join(pruners).encode())
    busy_before = machine.busy_cores()
    with torch.inference_mode():
        settled = {
            name: clock.warm_up(
                _one_clip(session, pruner, batches[0]),
                synchronize,
                min_seconds=profile.warm_up_s,
                max_seconds=profile.warm_up_max_s,
            )
            for name, pruner in pruners.items()
        }
        samples = clock.time_rounds(
            {name: _walk(session, pruner, batches) for name, pruner in pruners.items()},
            profile.rounds,
            np.random.default_rng(seed),
            synchronize,
            min_seconds=profile.seconds,
            device=setting.device,
            on_round=lambda number: task.advance() if number < profile.rounds else None,
        )
        rounds = 1 + max(s.round for s in samples)
        macs = {r.cell.config_id: _macs(session, r, batches, rounds) for r in (dense, *cells)}
    busy_after = machine.busy_cores()
    own = {name: pruner for name, pruner in pruners.items() if name != TWIN}
    passes = time_passes(session, own, synchronize, np.random.default_rng(seed)) if setting.e2e else {}
    return Timed(samples, len(batches[0].ids), settled, macs, busy_before, busy_after, h2d_ms, passes)


def _on_device(
    session: Session, clips: Sequence[Clip], synchronize: Callable[[], None]
) -> tuple[list[ClipBatch], float | None]:
    """Return the batches that rounds walk through (only whole ones if there is any), and ms per clip to copy them."""
    batches, took = [], []
    stream = session.batches(clips)
    while True:
        synchronize()
        began = time.perf_counter()
        found = next(stream, None)
        synchronize()
        if found is None:
            break
        batches.append(found[1])
        took.append(1e3 * (time.perf_counter() - began) / len(found[0]))
    whole = [batch for batch in batches if len(batch.ids) == session.setting.batch]
    copied = session.setting.device.startswith("cuda")
    return whole or batches, float(np.median(took)) if copied else None


def _one_clip(session: Session, pruner: Pruner, batch: ClipBatch) -> Callable[[int], object]:
    return lambda _: session.backbone(batch, pruner)


def _walk(session: Session, pruner: Pruner, batches: Sequence[ClipBatch]) -> Callable[[int], object]:
    return lambda number: session.backbone(batches[number % len(batches)], pruner)


def _macs(session: Session, ready: Ready, batches: Sequence[ClipBatch], rounds: int) -> list[int]:
    outs = [session.backbone(batch, ready.pruner) for batch in batches[:rounds]]
    per_batch = [sum(clip_macs(ready, out, i) for i in range(len(out.counts[0].attention))) for out in outs]
    return [per_batch[number % len(per_batch)] for number in range(rounds)]


def peak_memory(session: Session, ready: Ready, clips: Sequence[Clip]) -> Row:
    """Return the memory columns of one cell: a process of its own on the CPU, allocator counters on CUDA."""
    part = clips[: session.setting.batch]
    counts = None if ready.cell.match is None else session.kept[ready.cell.match]
    if session.setting.device.startswith("cuda"):
        _, batch = next(session.batches(part))
        with torch.inference_mode():
            peak = memory.cuda_peak(lambda: session.backbone(batch, ready.pruner), session.setting.device)
        return {
            "mem_weights_mb": peak.weights_mb,
            "mem_peak_alloc_mb": peak.peak_alloc_mb,
            "mem_peak_reserved_mb": peak.peak_reserved_mb,
        }
    host = memory.measure_peak(peak_job, session.setting, ready.method, counts, part, name=ready.cell.label)
    return {"mem_weights_mb": host.weights_mb, "mem_peak_rss_mb": host.peak_mb}
