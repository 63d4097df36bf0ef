"""Every statistic against values computed by hand, by brute force, or by simulation."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpbench.rows.statistics.intervals import (
    Interval,
    critical,
    median_interval,
    quantile_interval,
    resampled_medians,
    speedup,
    student_tail,
    wilson,
)
from vpbench.rows.statistics.paired import holm, mcnemar, paired_difference
from vpbench.rows.statistics.pareto import front


def _pairs(b: int, c: int, n: int) -> tuple[list[bool], list[bool]]:
    """n clips of which the first b are lost and the next c gained by the method."""
    dense = [True] * b + [False] * c + [True] * (n - b - c)
    method = [False] * b + [True] * c + [True] * (n - b - c)
    return dense, method


def test_paired_difference_by_hand() -> None:
    found = paired_difference(*_pairs(6, 2, 100), range(100))
    assert (found.n, found.b, found.c) == (100, 6, 2)
    assert found.delta_pp.value == pytest.approx(-4.0)
    assert found.se_pp == pytest.approx(100 * math.sqrt(0.08 - 0.04**2) / 10)
    assert found.p_exact == pytest.approx(2 * (1 + 8 + 28) / 256)
    assert found.p_mid == pytest.approx((2 * (1 + 8 + 28) - 28) / 256)


def test_bootstrap_agrees_with_the_normal_approximation_for_independent_clips() -> None:
    found = paired_difference(*_pairs(60, 20, 1000), range(1000))
    assert found.delta_pp.lo == pytest.approx(-4 - 1.96 * found.se_pp, abs=0.12)
    assert found.delta_pp.hi == pytest.approx(-4 + 1.96 * found.se_pp, abs=0.12)


def test_bootstrap_of_three_uneven_videos_matches_all_resamples() -> None:
    dense = [True, True, False, False, True, False]
    method = [False, True, True, True, True, True]
    videos = ["a", "a", "b", "b", "b", "c"]
    gain, count = {"a": -1, "b": 2, "c": 1}, {"a": 2, "b": 3, "c": 1}
    means = [sum(gain[v] for v in t) / sum(count[v] for v in t) for t in itertools.product("abc", repeat=3)]
    lo, hi = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    found = paired_difference(dense, method, videos).delta_pp
    assert found.value == pytest.approx(100 * 2 / 6)
    assert (found.lo, found.hi) == pytest.approx((100 * lo, 100 * hi), abs=1e-9)


def test_clips_of_one_video_stay_together() -> None:
    dense, method = _pairs(40, 20, 400)
    alone = paired_difference(dense, method, np.arange(400)).delta_pp
    grouped = paired_difference(dense, method, np.arange(400) // 10).delta_pp
    assert grouped.value == alone.value
    assert grouped.hi - grouped.lo > 2 * (alone.hi - alone.lo)


def test_order_of_clips_and_seed() -> None:
    dense, method = (np.array(x) for x in _pairs(7, 3, 60))
    videos, shuffle = np.arange(60) // 3, np.random.default_rng(1).permutation(60)
    once = paired_difference(dense, method, videos, seed=5)
    assert once == paired_difference(dense[shuffle], method[shuffle], videos[shuffle], seed=5)
    assert once == paired_difference(dense, method, [f"v{v:03}" for v in videos], seed=5)


def test_bootstrap_covers_the_true_difference() -> None:
    """Videos of 4 clips that share their fate: ignoring the videos would cover about two thirds of the time."""
    rng, trials, covered = np.random.default_rng(0), 300, 0
    for trial in range(trials):
        lost = np.repeat(rng.random(100) < 0.15, 4)
        gained = ~lost & np.repeat(rng.random(100) < 0.10, 4)
        found = paired_difference(~gained, ~lost, np.arange(400) // 4, seed=trial, resamples=1000).delta_pp
        covered += found.lo <= 100 * (0.85 * 0.10 - 0.15) <= found.hi
    assert 0.91 <= covered / trials <= 0.98


def test_bootstrap_of_500_clips_is_quick() -> None:
    rng = np.random.default_rng(0)
    dense, method, videos = rng.random(500) < 0.7, rng.random(500) < 0.7, rng.integers(200, size=500)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        paired_difference(dense, method, videos)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.15  # about 0.02 on an idle core; drawing all videos one by one takes 0.3


@pytest.mark.parametrize(
    ("dense", "method", "videos", "message"),
    [
        ([True], [True, False], [0], "equal"),
        ([True, True], [True, False], [0], "equal"),
        (np.zeros(0, bool), np.zeros(0, bool), [], "equal"),
        ([True, None], [True, True], [0, 1], "boolean"),
        ([1, 0], [True, True], [0, 1], "boolean"),
    ],
)
def test_paired_difference_refuses(dense: Any, method: Any, videos: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(dense, method, videos)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_matches_integer_arithmetic(b: int, c: int) -> None:
    n, last = b + c, min(b, c)
    doubled = 2 * sum(math.comb(n, i) for i in range(last + 1))
    exact, mid = mcnemar(b, c)
    assert exact == pytest.approx(min(1, doubled / 2**n), rel=1e-9)
    assert mid == pytest.approx(min(1, (doubled - math.comb(n, last)) / 2**n), rel=1e-9)


def test_mcnemar_of_many_pairs_is_finite_and_ordered() -> None:
    exact, mid = mcnemar(9000, 9300)
    z = (300 - 1) / math.sqrt(18300)
    assert exact == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)
    assert mid < exact
    assert mcnemar(0, 0) == (1.0, 1.0)


def test_wilson_by_hand() -> None:
    # 81 of 263: the worked example of Newcombe (1998), method 3: 0.2553 to 0.3662
    assert wilson(81, 263).lo == pytest.approx(0.2553, abs=5e-5)
    assert wilson(81, 263).hi == pytest.approx(0.3662, abs=5e-5)
    assert wilson(0, 20).lo == 0.0
    assert wilson(0, 20).hi == pytest.approx(0.1611, abs=5e-5)  # Newcombe: 0 of 20
    assert wilson(20, 20).hi == pytest.approx(1.0)
    for right, n in [(3, 2), (-1, 2), (0, 0)]:
        with pytest.raises(ValueError, match="right"):
            wilson(right, n)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match="p-values"):
        holm([0.5, math.nan])


def test_speedup_is_the_median_of_ratios_not_the_ratio_of_medians() -> None:
    found = speedup([10, 20, 90], [10, 10, 30], [0, 0, 0])
    assert found.value == 2.0
    assert (found.lo, found.hi) == (1.0, 3.0)
    refused: list[tuple[list[float], list[float]]] = [([1, 2], [1]), ([1, 0], [1, 1]), ([1, math.nan], [1, 1])]
    for dense, method in refused:
        with pytest.raises(ValueError, match="positive"):
            speedup(dense, method, [0] * len(dense))


def _all_two_level_medians(groups: list[list[float]]) -> list[tuple[float, float]]:
    """Every (median, probability) of the two-level bootstrap."""
    found = []
    for chosen in itertools.product(groups, repeat=len(groups)):
        draws = list(itertools.product(*(itertools.product(g, repeat=len(g)) for g in chosen)))
        weight = 1 / len(groups) ** len(groups) / len(draws)
        found += [(float(np.median(sum(draw, ()))), weight) for draw in draws]
    return found


def test_two_level_bootstrap_matches_all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uneven processes too: compares the drawn distribution with the enumerated one."""
    groups = [[1.0, 2.0, 4.0], [8.0, 16.0]]
    drawn: list[Any] = []
    quantile = np.quantile

    def record(values: Any, tails: Any) -> Any:
        drawn.append(values)
        return quantile(values, tails)

    monkeypatch.setattr("vpbench.rows.statistics.intervals.np.quantile", record)
    median_interval([8, 1, 2, 16, 4], [7, 3, 3, 7, 3], resamples=40_000)
    exact = _all_two_level_medians(groups)
    for value in {v for v, _ in exact}:
        probability = sum(w for v, w in exact if v == value)
        assert np.mean(drawn[0] == value) == pytest.approx(probability, abs=0.012)
    assert np.isin(drawn[0], [v for v, _ in exact]).all()


def test_columns_share_the_draws_of_their_rounds() -> None:
    """What one configuration sees of a round, those beside it see too; each alone is the same as in the company."""
    rounds, process = np.random.default_rng(0).lognormal(size=30), np.repeat([0, 1, 2], 10)
    both = resampled_medians(np.stack([rounds, 3 * rounds], axis=1), process, np.random.default_rng(1), 500)
    alone = resampled_medians(rounds[:, None], process, np.random.default_rng(1), 500)
    assert both.shape == (500, 2)
    np.testing.assert_allclose(both[:, 1], 3 * both[:, 0])
    np.testing.assert_array_equal(both[:, :1], alone)


def test_processes_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(m, 0.01, 40) for m in (1.0, 1.2, 1.4)])
    together = median_interval(values, np.zeros(120))
    apart = median_interval(values, np.repeat([0, 1, 2], 40))
    assert apart.value == together.value == np.median(values)
    assert apart.lo < 1.02
    assert apart.hi > 1.38
    assert together.lo > 1.1 or together.hi < 1.3


def test_the_interval_of_three_processes_is_students_of_the_logarithms_of_their_medians() -> None:
    """Medians 1.00, 1.02, 1.05; by hand, with 4.302653 for two degrees of freedom."""
    medians = [1.00, 1.02, 1.05]
    values = [m * f for m in medians for f in (0.9, 1.0, 1.2)]
    logs = [math.log(m) for m in medians]
    mean = sum(logs) / 3
    half = 4.302653 * math.sqrt(sum((each - mean) ** 2 for each in logs) / 2) / math.sqrt(3)
    found = median_interval(values, np.repeat([0, 1, 2], 3))
    assert (found.lo, found.hi) == pytest.approx((math.exp(mean - half), math.exp(mean + half)), rel=1e-6)
    assert found.value == 1.02
    # resampled ones have the same tails
    drawn = resampled_medians(np.array(values)[:, None], np.repeat([0, 1, 2], 3), np.random.default_rng(0), 40_000)
    assert np.quantile(drawn, 0.025) == pytest.approx(found.lo, rel=0.01)
    assert np.quantile(drawn, 0.975) == pytest.approx(found.hi, rel=0.01)


def test_intervals_of_few_processes_cover() -> None:
    rng = np.random.default_rng(0)
    for processes in (3, 5, 10):
        owner, covered = np.repeat(np.arange(processes), 5), 0
        for _ in range(600):
            values = 2 * np.exp(rng.normal(0, 0.01, processes)[owner] + rng.normal(0, 0.01, len(owner)))
            found = median_interval(values, owner)
            covered += found.lo <= 2 <= found.hi
        assert 0.925 <= covered / 600 <= 0.975


@pytest.mark.parametrize(
    ("df", "point"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (4, 2.77645), (9, 2.26216), (30, 2.04227)]
)
def test_students_points_are_those_of_tables(df: int, point: float) -> None:
    assert critical(df=df) == pytest.approx(point, rel=1e-5)
    assert student_tail(point, df) == pytest.approx(0.025, rel=1e-4)


def test_several_comparisons_share_the_tail() -> None:
    assert critical() == pytest.approx(1.959964)
    assert critical(20) == pytest.approx(3.023341)  # the 99.875 % point
    assert critical(20, 2) == pytest.approx(19.9625, rel=1e-5)
    assert critical(1, 10_000) == pytest.approx(1.960, abs=1e-3)
    for refused in ((0, None), (1, 0)):
        with pytest.raises(ValueError, match="need"):
            critical(*refused)


def test_interval_of_a_median_covers_it() -> None:
    rng = np.random.default_rng(3)
    found = [median_interval(rng.lognormal(size=40), np.zeros(40), seed=i, resamples=500) for i in range(400)]
    assert 0.91 <= np.mean([i.lo <= 1.0 <= i.hi for i in found]) <= 0.985


def test_chunks_do_not_change_the_number_of_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values, process = np.arange(1.0, 31.0), np.repeat([0, 1, 2], 10)
    whole = median_interval(values, process)
    monkeypatch.setattr("vpbench.rows.statistics.intervals._CHUNK", 1000)
    chunked = median_interval(values, process)
    assert chunked.value == whole.value
    assert (chunked.lo, chunked.hi) == pytest.approx((whole.lo, whole.hi), abs=1.0)
    assert median_interval([5.0], [0]) == Interval(5.0, 5.0, 5.0)


@pytest.mark.parametrize(("values", "process"), [([], []), ([1, math.nan], [0, 0]), ([1, 2], [0])])
def test_median_interval_refuses(values: list[float], process: list[int]) -> None:
    with pytest.raises(ValueError, match="finite"):
        median_interval(values, process)


def test_front_by_hand() -> None:
    x = [1.0, 0.5, 0.5, 0.7, 0.3, 0.5]
    y = [80.0, 75.0, 76.0, 70.0, 60.0, 76.0]
    assert front(x, y) == [4, 2, 0]
    assert front([], []) == []
    with pytest.raises(ValueError, match="finite"):
        front([1.0], [math.nan])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_front_matches_the_definition(points: list[tuple[int, int]]) -> None:
    def beaten(p: tuple[int, int]) -> bool:
        return any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)

    kept = [points[i] for i in front([p[0] for p in points], [p[1] for p in points])]
    assert kept == sorted({p for p in points if not beaten(p)})


def test_a_seed_repeats_its_interval() -> None:
    values = np.random.default_rng(0).random(39)
    first, again, other = (median_interval(values, np.zeros(39), seed=s, resamples=200) for s in (1, 1, 2))
    assert first == again != other


def test_quantile_interval_covers_as_often_as_it_says() -> None:
    rng, true = np.random.default_rng(0), -np.log(0.01)
    found = [quantile_interval(rng.exponential(size=1000), 0.99) for _ in range(400)]
    covered = [each is not None and each.lo <= true <= each.hi for each in found]
    assert 0.93 <= np.mean(covered) <= 0.995  # at least 95 %, since ranks are whole


def test_quantile_interval_by_counting_every_outcome() -> None:
    k, q = 100, 0.9
    found = quantile_interval(np.arange(1.0, k + 1), q)
    assert found is not None
    chance = [math.comb(k, i) * q**i * (1 - q) ** (k - i) for i in range(k + 1)]
    below, above = sum(chance[: int(found.lo)]), sum(chance[int(found.hi) :])
    assert below <= 0.025 < below + chance[int(found.lo)]
    assert above <= 0.025 < above + chance[int(found.hi) - 1]


def test_no_quantile_interval_from_too_few_values() -> None:
    assert quantile_interval(np.arange(367.0), 0.99) is None
    assert quantile_interval(np.arange(368.0), 0.99) is not None
    with pytest.raises(ValueError, match="finite"):
        quantile_interval([1.0, math.nan], 0.5)
