"""Peak memory of forwards whose need is known."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
import torch

from vpbench.errors import VpbenchError
from vpbench.measure.memory import max_batch, measure_peak

MB = 1_000_000


def _holding(weights_mb: int, forward_mb: int, build_mb: int = 0) -> Callable[[], object]:
    """Keep `weights_mb`; each call needs `forward_mb` for a moment; building needed `build_mb` for a moment."""
    torch.set_num_threads(1)
    weights = torch.ones(weights_mb * MB // 4)
    torch.ones(build_mb * MB // 4)

    def forward() -> object:
        parts = [torch.ones(MB // 4) for _ in range(forward_mb)]
        return weights[0] + parts[-1][0]

    return forward


def _large_layer(tokens: int) -> Callable[[], object]:
    """One float32 matrix product with an output of 4 * 1000 * tokens bytes."""
    torch.set_num_threads(1)
    layer, x = torch.nn.Linear(8, 1000), torch.ones(tokens, 8)
    return lambda: layer(x).sum()


def _leaves_threads_alone() -> Callable[[], object]:
    torch.set_num_threads(2)
    x = torch.ones(512, 512)
    return lambda: x @ x


def _raises() -> Callable[[], object]:
    raise ValueError("planted")


def _dies() -> Callable[[], object]:
    os._exit(7)


def _sleeps() -> Callable[[], object]:
    return lambda: time.sleep(60)


@pytest.mark.parametrize("forward_mb", [20, 200])
def test_known_allocation(forward_mb: int) -> None:
    found = measure_peak(_holding, 100, forward_mb, name="known")
    assert found.peak_mb == pytest.approx(forward_mb, rel=0.05)
    assert 100 <= found.weights_mb < 115  # code first used while building is in it
    assert found.peak_rss_mb > found.peak_mb + found.weights_mb


def test_what_building_needed_for_a_moment_does_not_count() -> None:
    found = measure_peak(_holding, 10, 40, 300, name="hungry build")
    assert found.peak_mb == pytest.approx(40, rel=0.05)
    assert 10 <= found.weights_mb < 25


def test_pages_that_the_allocator_kept_do_not_hide_the_need() -> None:
    # freeing 16 MB teaches glibc to serve smaller blocks from its heap and to keep up to 32 MB of them
    assert measure_peak(_holding, 1, 20, 16, name="kept pages").peak_mb == pytest.approx(20, rel=0.1)


def test_a_layer_needs_its_output() -> None:
    assert measure_peak(_large_layer, 50_000, name="layer").peak_mb == pytest.approx(200, rel=0.05)


def test_threads_of_the_parent_do_no_harm() -> None:
    torch.ones(512, 512) @ torch.ones(512, 512)  # starts this process's thread pool
    assert measure_peak(_leaves_threads_alone, name="threads", deadline_s=60).peak_mb < 10


def test_configurations_after_the_first_are_cheap() -> None:
    measure_peak(_holding, 1, 1, name="first")
    took = []
    for _ in range(6):  # the fastest: a test beside it takes turns on the cores
        start = time.perf_counter()
        measure_peak(_holding, 1, 1, name="next")
        took.append(time.perf_counter() - start)
    assert min(took) < 1.0


def test_failures_are_named() -> None:
    with pytest.raises(VpbenchError, match=r"memory of tome at 0\.5: ValueError: planted"):
        measure_peak(_raises, name="tome at 0.5")
    with pytest.raises(VpbenchError, match=r"memory of tome: .* exit code 7"):
        measure_peak(_dies, name="tome")
    start = time.perf_counter()
    with pytest.raises(VpbenchError, match="memory of tome: no result after 1 s"):
        measure_peak(_sleeps, name="tome", deadline_s=1.0)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("largest", [1, 2, 3, 7, 8, 100, 129, 4096])
def test_the_largest_batch_is_found(largest: int) -> None:
    asked: list[int] = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return batch <= largest

    assert max_batch(fits) == largest
    assert max(asked) <= 2 * largest, "not far beyond what fits"
    assert len(asked) <= 2 * largest.bit_length() + 2


def test_not_even_one_clip_may_fit() -> None:
    assert max_batch(lambda batch: False) is None
    assert max_batch(lambda batch: True, most=100) == 100
