"""Time callables side by side, in interleaved rounds (docs/measurement.md, section 3)."""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from vpbench.measure.gpu import State

Variant = Callable[[int], object]
BLOCK = 5
#: a round at less than this share of the run's median clock does not count
CLOCK_SHARE = 0.95
#: where fewer rounds would be left none is dropped: such a GPU is held back all the time, and its rows must say so
LEAST_LEFT = 10
#: samples are given away no later than after this share of what was done since the start
KEEP_SHARE = 0.1


@dataclass(frozen=True)
class Sample:
    """One timed call: `order` is its place within the round, `process` where it ran; times in nanoseconds.

    `sm_mhz`, `temp_c`: clock and heat of the GPU when its round ended, if it has one that says so; `held_back`: the GPU
    lowered its clocks during the round, or ran slower than in others; `dropped`: the round does not count for that.
    """

    name: str
    round: int
    order: int
    wall_ns: int
    gpu_ns: int | None
    process: int = 0
    sm_mhz: float | None = None
    temp_c: float | None = None
    held_back: bool = False
    dropped: bool = False


class _DeviceClock:
    """Two events on the stream that a cuda device works on."""

    def __init__(self, device: str) -> None:
        import torch

        self._stream = torch.cuda.current_stream(device)
        self._first = torch.cuda.Event(enable_timing=True)
        self._last = torch.cuda.Event(enable_timing=True)

    def start(self) -> None:
        self._first.record(self._stream)

    def stop(self) -> None:
        self._last.record(self._stream)

    def ns(self) -> int:
        milliseconds: float = self._first.elapsed_time(self._last)
        return round(milliseconds * 1e6)


def synchronizer(device: str) -> Callable[[], None]:
    """Return what waits until `device` ('cpu', 'cuda', 'cuda:1') has finished its queued work."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return lambda: torch.cuda.synchronize(device)


def time_rounds(
    variants: Mapping[str, Variant],
    rounds: int,
    rng: np.random.Generator,
    synchronize: Callable[[], None],
    *,
    min_seconds: float = 0.0,
    device: str = "cpu",
    on_round: Callable[[int], None] | None = None,
    state: Callable[[], State] | None = None,
    first: int = 0,
    keep: Callable[[Sequence[Sample]], None] | None = None,
    keep_s: float = 20.0,
) -> list[Sample]:
    """Time every variant once per round, in a fresh random order, and return all raw samples.

    A variant gets the number of the round, the same for all, and may choose its clip by it. Runs at least `rounds`
    rounds and at least `min_seconds`. The host's monotonic clock is primary: `synchronize` runs before the start is
    read and before the stop is read. On a cuda device `gpu_ns` is the time between two events on its current stream:
    idle gaps between kernels are part of it. `state` reads the GPU before and after each round; rounds in which it was
    held back are marked. `on_round` runs after each round, outside every timed region; so does `keep`, with the samples
    that came since it ran last, every `keep_s` seconds and at the end (sooner at first, without `state`): what it has,
    a kill cannot take. `first`: the number of the first round, where earlier ones were kept. An exception of a variant
    ends the measurement; the garbage collector is left as it was found.
    """
    names, samples, states, number = list(variants), list[Sample](), list[tuple[State, State]](), first
    kept, done = 0, list[Sample]()
    began = at = time.perf_counter()

    def settle() -> None:
        nonlocal kept, at
        done.extend(_marked(samples[kept:], states) if states else samples[kept:])
        if keep is not None and len(samples) > kept:
            keep(done[kept:])
        kept, at = len(samples), time.perf_counter()
        states.clear()

    try:
        while number < first + rounds or time.perf_counter() - began < min_seconds:
            timed, before = [], state() if state else None
            for which in rng.permutation(len(names)).tolist():
                device_clock = _DeviceClock(device) if device.startswith("cuda") else None
                wall_ns = _time(variants[names[which]], number, synchronize, device_clock)
                timed.append((names[which], wall_ns, device_clock))
            # events are read once the round is over: reading one costs host time that would shift the next call
            for order, (name, wall_ns, device_clock) in enumerate(timed):
                samples.append(Sample(name, number, order, wall_ns, device_clock.ns() if device_clock else None))
            if state is not None and before is not None:
                states.append((before, state()))
            if on_round is not None:
                on_round(number)
            number += 1
            now = time.perf_counter()
            # with a GPU a round is judged by the clocks of those around it, which takes some
            after = keep_s if state else min(keep_s, KEEP_SHARE * (now - began))
            if keep is not None and now - at > after:
                settle()
    except KeyboardInterrupt:
        settle()  # whole rounds stay
        raise
    settle()
    return done


def _marked(samples: Sequence[Sample], states: Sequence[tuple[State, State]]) -> list[Sample]:
    """Write into each sample how the GPU was in its round, and drop rounds in which it was held back."""
    first = samples[0].round
    usual = statistics.median(after.sm_mhz for _, after in states)
    held = [bool(before.throttled or after.throttled) or after.sm_mhz < CLOCK_SHARE * usual for before, after in states]
    drop = len(held) - sum(held) >= min(LEAST_LEFT, len(held))
    return [
        dataclasses.replace(
            sample,
            sm_mhz=states[sample.round - first][1].sm_mhz,
            temp_c=states[sample.round - first][1].temp_c,
            held_back=held[sample.round - first],
            dropped=drop and held[sample.round - first],
        )
        for sample in samples
    ]


def warm_up(
    variant: Variant, synchronize: Callable[[], None], *, min_seconds: float = 3.0, max_seconds: float = 30.0
) -> bool | None:
    """Call `variant(0)`, `variant(1)`, ... until its time has settled; return whether it has, None if nothing tells.

    Settled: at least 10 calls, at least `min_seconds`, and the medians of the last two blocks of 5 calls differ by
    less than 2 %. Gives up after `max_seconds`, whatever the number of calls; fewer than 10 tell nothing. To judge
    settling, a variant whose work depends on the clip should run the same clip every time.
    """
    times: list[int] = []
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < max_seconds:
        if len(times) % BLOCK == 0 and elapsed >= min_seconds and _settled(times):
            return True
        times.append(_time(variant, len(times), synchronize, None))
    return None if len(times) < 2 * BLOCK else False


def _settled(times: list[int]) -> bool:
    if len(times) < 2 * BLOCK:
        return False
    before, last = statistics.median(times[-2 * BLOCK : -BLOCK]), statistics.median(times[-BLOCK:])
    return abs(last - before) < 0.02 * before


def _time(variant: Variant, number: int, synchronize: Callable[[], None], device_clock: _DeviceClock | None) -> int:
    """Return the wall time of one call in nanoseconds."""
    with collector_off():
        synchronize()
        start = time.perf_counter_ns()
        if device_clock:
            device_clock.start()
        output = variant(number)
        if device_clock:
            device_clock.stop()
        synchronize()
        stop = time.perf_counter_ns()
    del output  # held until here, so that freeing it is not timed
    return stop - start


@contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector from running; it is left as it was found."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
