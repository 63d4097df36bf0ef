"""When a GPU waits for its host: told by the time of its kernels, as a stand-in for torch's profiler gives them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vpbench.measure import busy

Span = tuple[float, float]


def event(first: float, last: float, device: str = "CUDA", annotation: bool = False) -> Any:
    span = SimpleNamespace(start=first, end=last)
    return SimpleNamespace(device_type=SimpleNamespace(name=device), time_range=span, is_user_annotation=annotation)


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the profiler is to have seen."""
    events: list[Any] = []

    class Profile:
        def __init__(self, activities: list[Any]) -> None:
            assert [activity.name for activity in activities] == ["CUDA"]

        def __enter__(self) -> Profile:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def events(self) -> list[Any]:
            return events

    monkeypatch.setattr(torch.profiler, "profile", Profile)
    return events


@pytest.mark.parametrize(
    ("spans", "length"),
    [
        ([], 0),
        ([(0, 10), (10, 15)], 15),
        ([(20, 25), (0, 10)], 15),  # a gap is no work, whatever the order
        ([(0, 10), (5, 12)], 12),  # two streams
        ([(0, 10), (2, 3), (9, 11)], 11),
    ],
)
def test_overlapping_work_counts_once_and_gaps_do_not(spans: list[Span], length: float) -> None:
    assert busy.covered(spans) == length


def kernels(gap_us: float) -> list[Any]:
    """Return 100 kernels of 90 us each, with a gap after each, and what the host did meanwhile."""
    step = 90 + gap_us
    found = [event(n * step, n * step + 90) for n in range(100)]
    return [*found, event(0, 1e6, "CPU"), event(0, 100 * step, annotation=True)]


@pytest.mark.parametrize(("gap_us", "bound"), [(2, False), (60, True)])
def test_a_gpu_that_idles_between_kernels_is_launch_bound(profiled: list[Any], gap_us: float, bound: bool) -> None:
    """Two calls of 50 kernels: their events would span the gaps too, and never tell."""
    profiled += kernels(gap_us)
    calls = list[int]()
    found = busy.busy_ms(calls.append, 2, lambda: None)
    assert calls == [0, 1]
    assert found == pytest.approx(50 * 0.09)
    assert busy.launch_bound(50 * (90 + gap_us) / 1e3, found) is bound


@pytest.mark.parametrize(("calls", "watched"), [(1, [0]), (4, [0, 1, 2, 3]), (40, list(range(0, 40, 4)))])
def test_calls_are_spread_over_the_inputs(profiled: list[Any], calls: int, watched: list[int]) -> None:
    profiled.append(event(0, 3000))
    seen = list[int]()
    assert busy.busy_ms(seen.append, calls, lambda: None) == pytest.approx(3 / len(watched))
    assert seen == watched


def test_where_no_kernel_is_seen_nothing_is_said(profiled: list[Any]) -> None:
    profiled.append(event(0, 10, "CPU"))
    assert busy.busy_ms(lambda _: None, 1, lambda: None) is None
    assert busy.launch_bound(1.0, None) is None
