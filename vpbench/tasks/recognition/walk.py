"""Interleaved rounds of forwards in one process: what is timed, and the arithmetic of each round's clips."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vpbench.api import Classifier, Clip, ClipBatch, Method, Output, Pruner, Tokens
from vpbench.backbones.loading import load_backbone
from vpbench.measure import affinity, clock, stages
from vpbench.measure.execution import Forward, compilations, forward_of
from vpbench.measure.gpu import gpu_of
from vpbench.plan import Setting
from vpbench.tasks.attach import pruner_of
from vpbench.tasks.recognition.session import batch_for


@dataclass(frozen=True)
class Rounds:
    """What one process measured.

    `macs`: configuration -> round -> multiply-accumulates of that round's clips; `compile_s`: configuration -> seconds
    that its first walk through all clips took longer than its second, and `recompiles`: graphs compiled during the
    rounds, both empty in modes that compile nothing; `pinned`: processors the rounds ran on; `h2d_ms`: see `Timed`.
    """

    samples: list[clock.Sample]
    clips_per_call: int
    settled: Mapping[str, bool]
    macs: Mapping[str, Sequence[int]]
    compile_s: Mapping[str, float]
    recompiles: Mapping[str, int]
    pinned: tuple[int, ...]
    h2d_ms: float | None


@dataclass(frozen=True)
class Configuration:
    """A method as another process can attach it; `counts`: tokens to keep of each clip, for random controls."""

    method: Method
    counts: Mapping[str, int] | None

    def attach(self, backbone: Classifier) -> Pruner:
        """Return a pruner for this backbone."""
        return pruner_of(self.method, backbone, self.counts)


def measure(
    backbone: Classifier,
    forward: Forward,
    setting: Setting,
    pruners: Mapping[str, Pruner],
    clips: Sequence[Clip],
    seed: int,
    on_round: Callable[[int], None],
) -> Rounds:
    """Time every configuration once per round in random order, after its warm-up.

    `forward` runs the backbone in the mode of the setting. Every round takes another clip (or batch), the same for all;
    it lies on the device before the clock starts. All shapes that will occur have been seen once before warm-up.
    """
    effort, synchronize = setting.effort, clock.synchronizer(setting.device)
    batches, h2d_ms = _on_device(backbone, setting, clips, synchronize)
    gpu, _ = gpu_of(setting.device)
    walks = {name: _Walk(forward, pruner, batches) for name, pruner in pruners.items()}
    with torch.inference_mode(), affinity.pinned(setting.threads, setting.device) as pinned:
        macs = {name: walk.macs() for name, walk in walks.items()}
        compile_s = (
            {} if setting.mode == "eager" else {name: walk.compile_s(synchronize) for name, walk in walks.items()}
        )
        settled = {
            name: clock.warm_up(walk.same, synchronize, min_seconds=effort.warm_up_s, max_seconds=effort.warm_up_max_s)
            for name, walk in walks.items()
        }
        for walk in walks.values():
            walk.compiled = 0
        samples = clock.time_rounds(
            walks if setting.mode == "eager" else {name: walk.watched for name, walk in walks.items()},
            effort.rounds,
            np.random.default_rng(seed),
            synchronize,
            min_seconds=effort.seconds,
            device=setting.device,
            on_round=on_round,
            state=None if gpu is None else gpu.state,
        )
    rounds = 1 + max(s.round for s in samples)
    return Rounds(
        samples,
        len(batches[0].ids),
        settled,
        {name: [each[number % len(each)] for number in range(rounds)] for name, each in macs.items()},
        compile_s,
        {} if setting.mode == "eager" else {name: walk.compiled for name, walk in walks.items()},
        pinned,
        h2d_ms,
    )


def measure_afresh(
    setting: Setting, configurations: Mapping[str, Configuration], clips: Sequence[Clip], seed: int, process: int
) -> Rounds:
    """Do as `measure`, with everything built from nothing: for a process of its own."""
    backbone = load_backbone(setting)
    pruners = {name: each.attach(backbone) for name, each in configurations.items()}
    forward = forward_of(backbone, setting.mode, setting.device)
    found = measure(backbone, forward, setting, pruners, clips, seed, lambda number: None)
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
        {name: float(np.median([part.compile_s[name] for part in parts])) for name in first.compile_s},
        {name: sum(part.recompiles[name] for part in parts) for name in first.recompiles},
        first.pinned,
        float(np.median(copied)) if copied else None,
    )


def split(
    backbone: Classifier, setting: Setting, pruners: Mapping[str, Pruner], clips: Sequence[Clip], seed: int
) -> dict[str, list[stages.Split]]:
    """Say where the time of every configuration's forwards goes, in rounds of their own over the same clips."""
    synchronize = clock.synchronizer(setting.device)
    batches, _ = _on_device(backbone, setting, clips, synchronize)
    parts = {name: (*backbone.modules(), pruner, Tokens) for name, pruner in pruners.items()}
    walks = {name: _Walk(backbone, pruner, batches) for name, pruner in pruners.items()}
    with torch.inference_mode(), affinity.pinned(setting.threads, setting.device):
        return stages.time_stages(walks, parts, stages.ROUNDS, np.random.default_rng(seed), synchronize)


def macs_of(pruner: Pruner, out: Output, clip: int) -> int:
    """Multiply-accumulates of one clip of a batch: the backbone's closed form plus the method's own products."""
    return out.macs[clip] + pruner.macs(tuple(c.attention[clip] for c in out.counts))


def _on_device(
    backbone: Classifier, setting: Setting, clips: Sequence[Clip], synchronize: Callable[[], None]
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


class _Walk:
    """One configuration that goes through batches in turn; `compiled` counts graphs that `watched` calls caused."""

    def __init__(self, forward: Forward, pruner: Pruner, batches: Sequence[ClipBatch]) -> None:
        self.forward, self.pruner, self.batches, self.compiled = forward, pruner, batches, 0
        self.first_s = 0.0

    def __call__(self, number: int) -> object:
        return self.forward(self.batches[number % len(self.batches)], self.pruner)

    def same(self, number: int) -> object:
        """Run the first batch: what settles must not depend on the clip."""
        return self(0)

    def watched(self, number: int) -> object:
        """Do as a call, and count what is compiled meanwhile (the count takes less than a microsecond)."""
        before = compilations()
        out = self(number)
        self.compiled += compilations() - before
        return out

    def macs(self) -> list[int]:
        """Walk through all batches once and return the multiply-accumulates of each."""
        began = time.perf_counter()
        outs = [self.forward(batch, self.pruner) for batch in self.batches]
        self.first_s = time.perf_counter() - began
        return [sum(macs_of(self.pruner, out, i) for i in range(len(out.counts[0].attention))) for out in outs]

    def compile_s(self, synchronize: Callable[[], None]) -> float:
        """Walk again, and return by how many seconds the first walk took longer."""
        began = time.perf_counter()
        for number in range(len(self.batches)):
            self(number)
        synchronize()
        return max(0.0, self.first_s - (time.perf_counter() - began))
