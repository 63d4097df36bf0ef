"""Order, synchronisation and the clock itself, with callables of known duration."""

from __future__ import annotations

import gc
import statistics
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from vpbench.measure import clock
from vpbench.measure.clock import Sample, synchronizer, time_rounds, warm_up
from vpbench.measure.gpu import State


class FakeTime:
    """A clock that only advances when told to; takes the place of the time module."""

    def __init__(self) -> None:
        self.now_ns = 0

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def perf_counter(self) -> float:
        return self.now_ns / 1e9

    def work(self, *durations_ms: float) -> Callable[[int], None]:
        """A variant that takes the given times in turn, repeating the last."""

        def variant(number: int) -> None:
            self.now_ns += round(1e6 * durations_ms[min(number, len(durations_ms) - 1)])

        return variant


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(clock, "time", fake)
    return fake


def _nothing() -> None:
    pass


def test_each_variant_once_per_round_in_a_fresh_order() -> None:
    seen: list[tuple[str, int]] = []
    variants = {name: lambda k, name=name: seen.append((name, k)) for name in "abcd"}
    samples = time_rounds(variants, 60, np.random.default_rng(0), _nothing)
    assert [(s.name, s.round) for s in samples] == seen
    orders = []
    for k in range(60):
        of_round = [s for s in samples if s.round == k]
        assert sorted(s.name for s in of_round) == list("abcd")
        assert [s.order for s in of_round] == [0, 1, 2, 3]
        orders.append("".join(s.name for s in of_round))
    assert len(set(orders)) > 12  # of 24 possible
    first = Counter(order[0] for order in orders)
    assert all(5 <= first[name] <= 27 for name in "abcd")
    again = time_rounds(variants, 60, np.random.default_rng(0), _nothing)
    assert [s.name for s in again] == [s.name for s in samples]


def test_planted_difference_is_seen() -> None:
    variants = {"slow": lambda _: time.sleep(0.005), "fast": lambda _: time.sleep(0.001)}
    samples = time_rounds(variants, 15, np.random.default_rng(0), _nothing)
    median = {name: statistics.median(s.wall_ns for s in samples if s.name == name) / 1e6 for name in variants}
    assert 5.0 <= median["slow"] < 7.0
    assert 1.0 <= median["fast"] < 2.0
    assert all(s.gpu_ns is None for s in samples)


def test_queued_work_is_waited_for_before_start_and_before_stop(fake: FakeTime) -> None:
    queued = [7.0]  # left behind by somebody else: must not be charged to the first variant

    def synchronize() -> None:
        fake.now_ns += round(1e6 * sum(queued))
        queued.clear()

    def launch(_: int) -> None:
        fake.now_ns += 1_000_000
        queued.append(3.0)

    samples = time_rounds({"a": launch}, 2, np.random.default_rng(0), synchronize)
    assert samples == [Sample("a", 0, 0, 4_000_000, None), Sample("a", 1, 0, 4_000_000, None)]


def test_freeing_the_output_is_not_timed(fake: FakeTime) -> None:
    class Slow:
        def __del__(self) -> None:
            fake.now_ns += 1_000_000_000

    samples = time_rounds({"a": lambda _: Slow()}, 3, np.random.default_rng(0), _nothing)
    assert [s.wall_ns for s in samples] == [0, 0, 0]


def test_runs_until_both_rounds_and_seconds_are_reached(fake: FakeTime) -> None:
    variants = {"a": fake.work(10.0)}
    assert len(time_rounds(variants, 3, np.random.default_rng(0), _nothing, min_seconds=0.1)) == 10
    assert len(time_rounds(variants, 20, np.random.default_rng(0), _nothing, min_seconds=0.1)) == 20


def test_on_round_runs_after_each_round_and_is_not_timed(fake: FakeTime) -> None:
    done: list[int] = []

    def on_round(number: int) -> None:
        done.append(number)
        fake.now_ns += 50_000_000

    samples = time_rounds({"a": fake.work(2.0)}, 4, np.random.default_rng(0), _nothing, on_round=on_round)
    assert done == [0, 1, 2, 3]
    assert [s.wall_ns for s in samples] == [2_000_000] * 4


def test_collector_is_off_inside_and_restored() -> None:
    states: list[bool] = []
    assert gc.isenabled()
    time_rounds({"a": lambda _: states.append(gc.isenabled())}, 2, np.random.default_rng(0), _nothing)
    assert states == [False, False]
    assert gc.isenabled()


def test_collector_is_restored_after_an_error() -> None:
    def broken(_: int) -> None:
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        time_rounds({"a": broken}, 1, np.random.default_rng(0), _nothing)
    assert gc.isenabled()
    gc.disable()
    try:
        time_rounds({"a": lambda _: None}, 1, np.random.default_rng(0), _nothing)
        assert not gc.isenabled()  # found off, left off
    finally:
        gc.enable()


def _counted(variant: Callable[[int], None]) -> tuple[Callable[[int], None], list[int]]:
    calls: list[int] = []

    def counted(number: int) -> None:
        calls.append(number)
        variant(number)

    return counted, calls


def test_warm_up_waits_for_ten_calls_and_three_seconds(fake: FakeTime) -> None:
    slow, calls = _counted(fake.work(1000.0))
    assert warm_up(slow, _nothing)
    assert calls == list(range(10))
    quick, calls = _counted(fake.work(100.0))
    assert warm_up(quick, _nothing)
    assert len(calls) == 30


def test_warm_up_waits_until_the_time_settles(fake: FakeTime) -> None:
    # blocks of five: 50, 20, 10, 10.3 (3 % more), 10.3 -> settled after the fifth block, not before
    times = [50.0] * 5 + [20.0] * 5 + [10.0] * 5 + [10.3] * 10
    variant, calls = _counted(fake.work(*times))
    assert warm_up(variant, _nothing, min_seconds=0.0)
    assert len(calls) == 25


def test_warm_up_gives_up(fake: FakeTime) -> None:
    variant, calls = _counted(fake.work(*(10.0 * 1.02**k for k in range(1000))))
    assert warm_up(variant, _nothing, min_seconds=0.0, max_seconds=2.0) is False
    assert 2.0 <= fake.perf_counter() < 2.2
    assert len(calls) > 10


def test_calls_of_which_too_few_fit_tell_nothing(fake: FakeTime) -> None:
    variant, calls = _counted(fake.work(500.0))
    assert warm_up(variant, _nothing, min_seconds=0.0, max_seconds=4.4) is None
    assert len(calls) == 9


def test_synchronizer_of_the_cpu_does_nothing() -> None:
    synchronizer("cpu")()


def _states(*pairs: tuple[float, tuple[str, ...]]) -> Callable[[], State]:
    """Give a state before and after each round: the clock and what holds it back, the same for both."""
    each = iter([State(mhz, 50.0, 300.0, reasons) for mhz, reasons in pairs for _ in range(2)])
    return lambda: next(each)


def test_rounds_in_which_the_gpu_was_held_back_are_dropped() -> None:
    rounds = [(1980.0, ())] * 12 + [(1980.0, ("power cap",)), (1800.0, ()), (1900.0, ())]
    samples = time_rounds(
        {"a": lambda _: None, "b": lambda _: None}, 15, np.random.default_rng(0), _nothing, state=_states(*rounds)
    )
    assert {s.round for s in samples if s.dropped} == {12, 13}, "a reason, and less than 95 % of the usual clock"
    assert all(s.held_back == s.dropped for s in samples)
    assert {(s.sm_mhz, s.temp_c) for s in samples if s.round == 14} == {(1900.0, 50.0)}


def test_a_gpu_that_is_always_held_back_keeps_its_rounds_and_says_so() -> None:
    rounds = [(1500.0, ("power cap",))] * 20
    samples = time_rounds({"a": lambda _: None}, 20, np.random.default_rng(0), _nothing, state=_states(*rounds))
    assert all(s.held_back and not s.dropped for s in samples)
