"""Time callables side by side, in interleaved rounds (measurement protocol, section 3)."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Variant = Callable[[int], object]
BLOCK = 5


@dataclass(frozen=True)
class Sample:
    """One timed call: `order` is its place within the round; times in nanoseconds."""

    name: str
    round: int
    order: int
    wall_ns: int
    gpu_ns: int | None


class _Event(Protocol):
    def record(self) -> None: ...
    def elapsed_time(self, end: _Event) -> float: ...


@dataclass(frozen=True)
class _Raw:
    """A timed call whose device events have not been read yet."""

    name: str
    wall_ns: int
    events: tuple[_Event, _Event] | None


def synchronizer(device: str) -> Callable[[], None]:
    """Return what waits until `device` ('cpu', 'cuda', 'cuda:1') has finished its queued work."""
    if not device.startswith("cuda"):
        return _nothing
    import torch

    return lambda: torch.cuda.synchronize(device)


def _nothing() -> None:
    """The CPU has no queue to wait for."""


def time_rounds(
    variants: Mapping[str, Variant],
    rounds: int,
    rng: np.random.Generator,
    synchronize: Callable[[], None],
    *,
    min_seconds: float = 0.0,
    device: str = "cpu",
    on_round: Callable[[int], None] | None = None,
) -> list[Sample]:
    """Time every variant once per round, in a fresh random order, and return all raw samples.

    A variant gets the number of the round, the same for all, and may choose its clip by it. Runs at least `rounds`
    rounds and at least `min_seconds`. The host's monotonic clock is primary: `synchronize` runs before the start is
    read and before the stop is read. On a cuda device `gpu_ns` is the time between two events on its current stream:
    idle gaps between kernels are part of it. `on_round` runs after each round, outside every timed region. An
    exception of a variant ends the measurement; the garbage collector is left as it was found.
    """
    names, samples, number = list(variants), list[Sample](), 0
    began = time.perf_counter()
    while number < rounds or time.perf_counter() - began < min_seconds:
        raws = []
        for which in rng.permutation(len(names)).tolist():
            events = _events(device)
            raws.append(_time(names[which], variants[names[which]], number, synchronize, events))
        # events are read once the round is over: reading one costs host time that would shift the next call
        samples += [Sample(raw.name, number, i, raw.wall_ns, _gpu_ns(raw)) for i, raw in enumerate(raws)]
        if on_round is not None:
            on_round(number)
        number += 1
    return samples


def warm_up(
    variant: Variant, synchronize: Callable[[], None], *, min_seconds: float = 3.0, max_seconds: float = 30.0
) -> bool:
    """Call `variant(0)`, `variant(1)`, ... until its time has settled, and return whether it has.

    Settled: at least 10 calls, at least `min_seconds`, and the medians of the last two blocks of 5 calls differ by
    less than 2 %. Gives up after `max_seconds`, whatever the number of calls. To judge settling, a variant whose work
    depends on the clip should run the same clip every time.
    """
    times: list[int] = []
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < max_seconds:
        if len(times) % BLOCK == 0 and elapsed >= min_seconds and _settled(times):
            return True
        times.append(_time("", variant, len(times), synchronize, None).wall_ns)
    return False


def _settled(times: list[int]) -> bool:
    if len(times) < 2 * BLOCK:
        return False
    before, last = statistics.median(times[-2 * BLOCK : -BLOCK]), statistics.median(times[-BLOCK:])
    return abs(last - before) < 0.02 * before


def _time(
    name: str, variant: Variant, number: int, synchronize: Callable[[], None], events: tuple[_Event, _Event] | None
) -> _Raw:
    with _collector_off():
        synchronize()
        start = time.perf_counter_ns()
        if events:
            events[0].record()
        output = variant(number)
        if events:
            events[1].record()
        synchronize()
        stop = time.perf_counter_ns()
    del output  # held until here, so that freeing it is not timed
    return _Raw(name, stop - start, events)


@contextmanager
def _collector_off() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _events(device: str) -> tuple[_Event, _Event] | None:
    if not device.startswith("cuda"):
        return None
    import torch

    with torch.cuda.device(device):
        return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def _gpu_ns(raw: _Raw) -> int | None:
    return None if raw.events is None else round(raw.events[0].elapsed_time(raw.events[1]) * 1e6)
