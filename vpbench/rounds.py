"""Interleaved rounds of forwards in one process: what is timed, and the arithmetic of each round's clips."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vpbench.api import Backbone, Clip, ClipBatch, Method, Output, Pruner
from vpbench.measure import clock
from vpbench.plan import PROFILES, Setting
from vpbench.session import batch_for, load_backbone


@dataclass(frozen=True)
class Rounds:
    """What one process measured.

    `macs`: configuration -> round -> multiply-accumulates of that round's clips; `h2d_ms`: see `Timed`.
    """

    samples: list[clock.Sample]
    clips_per_call: int
    settled: Mapping[str, bool]
    macs: Mapping[str, Sequence[int]]
    h2d_ms: float | None


@dataclass(frozen=True)
class Configuration:
    """A method as another process can attach it; `counts`: tokens to keep of each clip, for random controls."""

    method: Method
    counts: Mapping[str, int] | None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return a pruner for this backbone."""
        counts = self.counts
        return self.method.attach(backbone) if counts is None else self.method.attach_like(backbone, counts)


def measure(
    backbone: Backbone,
    setting: Setting,
    pruners: Mapping[str, Pruner],
    clips: Sequence[Clip],
    seed: int,
    on_round: Callable[[int], None],
) -> Rounds:
    """Time every configuration once per round in random order, after its warm-up.

    Every round takes another clip (or batch), the same for all; it lies on the device before the clock starts.
    """
    profile, synchronize = PROFILES[setting.profile], clock.synchronizer(setting.device)
    batches, h2d_ms = _on_device(backbone, setting, clips, synchronize)
    with torch.inference_mode():
        settled = {
            name: clock.warm_up(
                _walk(backbone, pruner, batches[:1]),
                synchronize,
                min_seconds=profile.warm_up_s,
                max_seconds=profile.warm_up_max_s,
            )
            for name, pruner in pruners.items()
        }
        samples = clock.time_rounds(
            {name: _walk(backbone, pruner, batches) for name, pruner in pruners.items()},
            profile.rounds,
            np.random.default_rng(seed),
            synchronize,
            min_seconds=profile.seconds,
            device=setting.device,
            on_round=on_round,
        )
        rounds = 1 + max(s.round for s in samples)
        macs = {name: _macs(backbone, pruner, batches, rounds) for name, pruner in pruners.items()}
    return Rounds(samples, len(batches[0].ids), settled, macs, h2d_ms)


def measure_afresh(
    setting: Setting, configurations: Mapping[str, Configuration], clips: Sequence[Clip], seed: int, process: int
) -> Rounds:
    """Do as `measure`, with everything built from nothing: for a process of its own."""
    backbone = load_backbone(setting)
    pruners = {name: each.attach(backbone) for name, each in configurations.items()}
    found = measure(backbone, setting, pruners, clips, seed, lambda number: None)
    return dataclasses.replace(found, samples=[dataclasses.replace(s, process=process) for s in found.samples])


def together(parts: Sequence[Rounds]) -> Rounds:
    """Return the rounds of several processes as those of one, process after process."""
    first = parts[0]
    copied = [part.h2d_ms for part in parts if part.h2d_ms is not None]
    return Rounds(
        [sample for part in parts for sample in part.samples],
        first.clips_per_call,
        {name: all(part.settled[name] for part in parts) for name in first.settled},
        {name: [macs for part in parts for macs in part.macs[name]] for name in first.macs},
        float(np.median(copied)) if copied else None,
    )


def macs_of(pruner: Pruner, out: Output, clip: int) -> int:
    """Multiply-accumulates of one clip of a batch: the backbone's closed form plus the method's own products."""
    return out.macs[clip] + pruner.macs(tuple(c.attention[clip] for c in out.counts))


def _on_device(
    backbone: Backbone, setting: Setting, clips: Sequence[Clip], synchronize: Callable[[], None]
) -> tuple[list[ClipBatch], float | None]:
    """Return the batches that rounds walk through (only whole ones if there is any), and ms per clip to copy them."""
    batches, took = [], []
    for start in range(0, len(clips), setting.batch):
        part = clips[start : start + setting.batch]
        synchronize()
        began = time.perf_counter()
        batches.append(batch_for(backbone, part, setting.device))
        synchronize()
        took.append(1e3 * (time.perf_counter() - began) / len(part))
    whole = [batch for batch in batches if len(batch.ids) == setting.batch]
    copied = setting.device.startswith("cuda")
    return whole or batches, float(np.median(took)) if copied else None


def _walk(backbone: Backbone, pruner: Pruner, batches: Sequence[ClipBatch]) -> Callable[[int], object]:
    return lambda number: backbone(batches[number % len(batches)], pruner)


def _macs(backbone: Backbone, pruner: Pruner, batches: Sequence[ClipBatch], rounds: int) -> list[int]:
    outs = [backbone(batch, pruner) for batch in batches[:rounds]]
    per_batch = [sum(macs_of(pruner, out, i) for i in range(len(out.counts[0].attention))) for out in outs]
    return [per_batch[number % len(per_batch)] for number in range(rounds)]
