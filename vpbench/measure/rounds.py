"""Interleaved rounds: every configuration of a block walks through the same inputs, side by side, whatever they are."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from vpbench.measure import affinity, clock, machine, stages
from vpbench.measure.execution import compilations
from vpbench.measure.gpu import gpu_of

#: cells timed side by side, besides dense and its twin; more would stretch a round
BLOCK = 8
#: name of the second dense in the samples, as a control of the clock itself
TWIN = "aa"
#: the scope that every walk has: all that a method does, from pixels on the device to answers
MODEL = "model"
#: the scope of training steps, of walks that have one: forward, backward and a step of the optimiser
TRAIN = "train"

Call = Callable[[int], object]


class Walk(Protocol):
    """One configuration that goes through inputs in turn; a call gets a number, the same for all configurations."""

    @property
    def units(self) -> int:
        """Clips or frames of a call."""

    @property
    def calls(self) -> int:
        """Calls after which the inputs begin anew."""

    @property
    def parts(self) -> Sequence[object]:
        """All whose `timed_as` functions are stages of a call."""

    @property
    def scopes(self) -> Mapping[str, Call]:
        """What is timed: `model`, and parts of it that have times of their own."""

    def macs(self) -> Sequence[int]:
        """Return the multiply-accumulates of each call: as they are known, or by walking through all inputs."""

    def unlike(self) -> Sequence[int]:
        """Return a call of each shape that `macs` has not come by; all have to be made once before warm-up."""


@dataclass(frozen=True)
class Effort:
    """How much is measured: at least so many rounds and seconds, after so many seconds of warm-up, and on what."""

    rounds: int
    seconds: float
    warm_up_s: float
    warm_up_max_s: float
    threads: int
    device: str
    compiled: bool


@dataclass(frozen=True)
class Facts:
    """What is known of one configuration besides its samples; the last two are None in modes that compile nothing."""

    units: int
    #: whether its time had settled before the rounds; None where too few calls fitted in to tell
    settled: bool | None
    macs: tuple[int, ...]
    #: seconds that its first walk through all inputs took longer than its second
    compile_s: float | None = None
    #: graphs compiled during the rounds
    recompiles: int | None = None


@dataclass(frozen=True)
class Around:
    """Cores that others kept busy before and after the rounds, and the processors that these were pinned to."""

    busy_before: float
    busy_after: float
    pinned: tuple[int, ...]


def measure(
    walks: Mapping[str, Walk],
    effort: Effort,
    seed: int,
    keep: Callable[[Sequence[clock.Sample]], None],
    on_round: Callable[[int], None],
    first: int = 0,
) -> tuple[dict[str, Facts], Around]:
    """Time every configuration once per round in random order, after its warm-up; the first one also as `TWIN`.

    `keep` gets the samples as they come; a name with a slash is a configuration and a scope other than `model`.
    `first`: rounds that an earlier process has kept.
    """
    synchronize = clock.synchronizer(effort.device)
    busy_before = machine.busy_cores()
    gpu, _ = gpu_of(effort.device)
    watched = {name: _Watched(walk.scopes[MODEL]) for name, walk in walks.items()} if effort.compiled else {}
    with torch.inference_mode(), affinity.pinned(effort.threads, effort.device) as pinned:
        compile_s = {name: _compile_s(walk, synchronize) for name, walk in walks.items()} if effort.compiled else {}
        macs = {name: tuple(walk.macs()) for name, walk in walks.items()}
        for name, walk in () if effort.compiled else walks.items():
            for number in _unseen(walk, macs[name], effort.device):
                walk.scopes[MODEL](number)
        variants = _variants(walks, watched)
        settled = {
            name: clock.warm_up(
                _same(call), synchronize, min_seconds=effort.warm_up_s, max_seconds=effort.warm_up_max_s
            )
            for name, call in variants.items()
            if name != TWIN  # dense has been warmed up
        }
        for each in watched.values():
            each.compiled = 0
        clock.time_rounds(
            variants,
            effort.rounds,
            np.random.default_rng(seed),
            synchronize,
            min_seconds=effort.seconds,
            device=effort.device,
            on_round=on_round,
            state=None if gpu is None else gpu.state,
            first=first,
            keep=keep,
        )
    facts = {
        name: Facts(
            walk.units,
            settled[name],
            macs[name],
            compile_s.get(name),
            watched[name].compiled if name in watched else None,
        )
        for name, walk in walks.items()
    }
    return facts, Around(busy_before, machine.busy_cores(), pinned)


def split(walks: Mapping[str, Walk], effort: Effort, rounds: int, seed: int) -> dict[str, list[stages.Split]]:
    """Say where the time of every configuration's calls goes, in rounds of their own over the same inputs."""
    parts = {name: walk.parts for name, walk in walks.items()}
    calls = {name: walk.scopes[MODEL] for name, walk in walks.items()}
    synchronize = clock.synchronizer(effort.device)
    with torch.inference_mode(), affinity.pinned(effort.threads, effort.device):
        return stages.time_stages(calls, parts, rounds, np.random.default_rng(seed), synchronize)


class _Watched:
    """A call that counts what is compiled meanwhile (the count takes less than a microsecond)."""

    def __init__(self, call: Call) -> None:
        self.call, self.compiled = call, 0

    def __call__(self, number: int) -> object:
        before = compilations()
        out = self.call(number)
        self.compiled += compilations() - before
        return out


def _variants(walks: Mapping[str, Walk], watched: Mapping[str, _Watched]) -> dict[str, Call]:
    """Name all that is timed: configurations, dense once more, then the other scopes."""
    calls: dict[str, Call] = {name: watched.get(name, walk.scopes[MODEL]) for name, walk in walks.items()}
    dense = next(iter(walks))
    named = {dense: calls[dense], TWIN: calls[dense], **calls}
    return named | {
        f"{name}/{scope}": call for name, walk in walks.items() for scope, call in walk.scopes.items() if scope != MODEL
    }


def _unseen(walk: Walk, macs: Sequence[int], device: str) -> Sequence[int]:
    """Return the calls to make before warm-up: of each shape on an accelerator, of the least and most work on a CPU.

    A CPU prepares nothing for a shape, but its allocator has to have seen the extremes.
    """
    unlike = walk.unlike()
    if device.startswith("cuda") or len(unlike) < 3:
        return unlike
    return [min(unlike, key=lambda number: macs[number]), max(unlike, key=lambda number: macs[number])]


def _same(call: Call) -> Call:
    """Return a call on the first input: what settles must not depend on the clip."""
    return lambda number: call(0)


def _compile_s(walk: Walk, synchronize: Callable[[], None]) -> float:
    """Walk through all inputs twice, and return by how many seconds the first walk took longer."""
    took = []
    for _ in range(2):
        began = time.perf_counter()
        for number in range(walk.calls):
            walk.scopes[MODEL](number)
        synchronize()
        took.append(time.perf_counter() - began)
    return max(0.0, took[0] - took[1])
