"""Pareto metrics against arithmetic by hand, and against slow definitions of the same on random points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from vpbench.rows.statistics import pareto
from vpbench.rows.statistics.pareto import (
    Curve,
    bd_cost,
    budget_auc,
    gain_over_random,
    hypervolume,
    iso_accuracy_speedup,
    iso_cost_accuracy,
    measured_at,
    on_front,
)

Pairs = Sequence[tuple[float, float]]
LN2 = math.log(2)


def curve(points: Pairs, dense: float = 80.0) -> Curve:
    """One resample: points of (cost, accuracy)."""
    x, a = np.array(points, np.float64).T
    return Curve(x[None], a[None], np.array([dense]))


#: (0.7, 74) costs more than (0.5, 76) and is worse
FOUR = curve([(1.0, 80.0), (0.5, 76.0), (0.7, 74.0), (0.3, 71.0)])

# costs in hundredths, accuracies in half points around the reference of 70: equal values are frequent
place = st.tuples(st.integers(10, 130).map(lambda x: x / 100), st.integers(120, 170).map(lambda a: a / 2))
places = st.lists(place, min_size=1, max_size=9)


def test_front_by_hand() -> None:
    assert on_front(FOUR).tolist() == [[True, True, False, True]]
    equal = curve([(0.5, 76.0), (0.5, 76.0), (0.5, 75.0), (0.6, 76.0)])
    assert on_front(equal).tolist() == [[True, False, False, False]]


@given(places)
def test_front_is_that_of_rows(points: Pairs) -> None:
    assert np.flatnonzero(on_front(curve(points))[0]).tolist() == sorted(pareto.front(*zip(*points, strict=True)))


def test_hypervolume_by_hand() -> None:
    # a_ref = 80 - 10 = 70; 74 at 0.7 costs more than 76 at 0.5: both count as 75, the wider of the two first:
    # (1 - 0.3)(71 - 70) + (1 - 0.5)(75 - 71) = 0.7 + 2.0; dense has width 1 - 1 = 0
    assert hypervolume(FOUR)[0] == pytest.approx((0.7 + 2.0) / 10)
    # a_ref = 72: the cheapest point lies below and is skipped, (1 - 0.5)(76 - 72)
    assert hypervolume(curve([(0.5, 76.0), (0.3, 71.0)], dense=82.0))[0] == pytest.approx(0.5 * 4 / 10)
    assert hypervolume(curve([(1.0, 80.0), (1.2, 85.0), (0.4, 60.0)]))[0] == 0.0


def pooled(accuracies: Sequence[float]) -> list[float]:
    """Pool neighbours that fall until none does: the textbook's way to the best curve that never falls."""
    blocks: list[list[float]] = []
    for each in accuracies:
        blocks.append([each])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    return [float(np.mean(block)) for block in blocks for _ in block]


@given(places)
def test_hypervolume_is_the_area_of_the_union_of_rectangles(points: Pairs) -> None:
    """Rectangles from each point of the pooled curve to the corner, in strips between their costs."""
    xs = sorted(x for x, _ in points)
    heights = [max(0.0, a - 70) for a in pooled([float(np.mean([a for c, a in points if c == x])) for x in xs])]
    edges = sorted({x for x in xs if x < 1} | {1.0})
    area = sum(
        (right - left) * max((h for x, h in zip(xs, heights, strict=True) if x <= left), default=0.0)
        for left, right in itertools.pairwise(edges)
    )
    assert hypervolume(curve(points))[0] == pytest.approx(area / 10, abs=1e-12)


@given(places, st.integers(0, 8), st.integers(0, 30), st.integers(0, 30))
def test_a_dominated_point_changes_no_front_and_adds_no_hypervolume(points: Pairs, of: int, dx: int, da: int) -> None:
    x, a = points[of % len(points)]
    more = [*points, (x + dx / 100, a - da / 2)]
    assert on_front(curve(more))[0, :-1].tolist() == on_front(curve(points))[0].tolist()
    assert not on_front(curve(more))[0, -1]


def test_what_is_luckier_than_what_costs_more_is_not_taken_at_its_word() -> None:
    """Of two settings of equal worth, either may come out better; the front takes the better one, the mean does not."""
    rng = np.random.default_rng(0)
    a = np.concatenate([80 + rng.normal(0, 1, (4000, 6)), np.full((4000, 1), 80.0)], axis=1)
    x = np.tile([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0], (4000, 1))
    volumes = hypervolume(Curve(x, a, np.full(4000, 80.0)))
    assert volumes.mean() == pytest.approx(0.7, abs=0.02)  # (1 - 0.3) x 10 / 10


def test_budget_auc_by_hand() -> None:
    halves = curve([(0.25, 60.0), (0.5, 70.0), (1.0, 80.0)])
    # both pieces are ln 2 wide, with means 65 and 75
    assert budget_auc(halves, 0.25, 1.0)[0] == pytest.approx(70.0)
    assert budget_auc(halves, 0.5, 1.0)[0] == pytest.approx(75.0)
    # [0.3, 1]: a(0.3) = 60 + 10 ln(0.3 / 0.25) / ln 2; its piece is ln(0.5 / 0.3) wide
    start = 60 + 10 * math.log(0.3 / 0.25) / LN2
    area = math.log(0.5 / 0.3) * (start + 70) / 2 + LN2 * 75
    assert budget_auc(halves)[0] == pytest.approx(area / math.log(1 / 0.3))


def test_budget_auc_counts_points_off_the_front() -> None:
    # ln x: 0.25 | 0.5 | 1; a point that is worse though it costs more pulls the mean down
    assert budget_auc(curve([(0.25, 70.0), (0.5, 60.0), (1.0, 80.0)]), 0.25, 1.0)[0] == pytest.approx((65 + 70) / 2)


def test_budget_auc_is_null_unless_the_points_span_the_budgets() -> None:
    assert np.isnan(budget_auc(curve([(0.31, 60.0), (1.0, 80.0)]))[0])
    assert np.isnan(budget_auc(curve([(0.2, 60.0), (0.99, 80.0)]))[0])
    assert np.isnan(budget_auc(curve([(0.5, 60.0)]))[0])
    assert budget_auc(curve([(0.3, 60.0), (1.0, 80.0)]))[0] == pytest.approx(70.0)
    for low, high in [(0.0, 1.0), (0.5, 0.5), (1.0, 0.3), (math.nan, 1.0)]:
        with pytest.raises(ValueError, match="low"):
            budget_auc(FOUR, low, high)


def _trapezoids(u: ArrayLike, v: ArrayLike) -> float:
    widths, heights = np.diff(np.asarray(u)), np.asarray(v)
    return float(np.sum(widths * (heights[1:] + heights[:-1]) / 2))


def _a(points: Pairs, x: float) -> float:
    """a(x) by definition; points of equal cost count as their mean."""
    costs = sorted({p[0] for p in points})
    means = [float(np.mean([p[1] for p in points if p[0] == cost])) for cost in costs]
    return float(np.interp(math.log(x), np.log(costs), means))


@given(places)
def test_budget_auc_is_the_integral_of_the_interpolated_accuracy(points: Pairs) -> None:
    spanning = [*points, (0.1, 61.0), (1.3, 84.0)]
    knots = {x for x, _ in spanning if 0.3 < x < 1.0} | {0.3, 1.0}
    # between knots a(x) is linear in ln x, so the trapezoidal rule is exact
    u = np.log(sorted(knots))
    area = _trapezoids(u, [_a(spanning, math.exp(v)) for v in u])
    assert budget_auc(curve(spanning))[0] == pytest.approx(area / math.log(1 / 0.3), rel=1e-9)


@given(places, st.integers(1, 300).map(lambda x: x / 100))
def test_iso_cost_accuracy_matches_interpolation(points: Pairs, budget: float) -> None:
    costs = [x for x, _ in points]
    found = iso_cost_accuracy(curve(points), budget)[0]
    if min(costs) <= budget <= max(costs):
        assert found == pytest.approx(_a(points, budget), rel=1e-9)
    else:
        assert np.isnan(found)
    assert measured_at(curve(points), budget)[0] == (budget in costs)


def test_iso_cost_accuracy_by_hand() -> None:
    # ln(0.5 / 0.25) is half of ln(1 / 0.25)
    two = curve([(1.0, 80.0), (0.25, 70.0)])
    assert iso_cost_accuracy(two, 0.5)[0] == pytest.approx(75.0)
    assert iso_cost_accuracy(two, 0.25)[0] == 70.0
    assert np.isnan(iso_cost_accuracy(two, 0.2)[0])
    assert measured_at(two, 0.25)[0]
    assert not measured_at(two, 0.5)[0]
    for budget in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="budget"):
            iso_cost_accuracy(two, budget)


def counted(points: Sequence[tuple[float, int, int]], clips: int = 1000) -> Curve:
    """One resample: cost, clips lost and clips gained; dense gets 80 % right, and ends the curve."""
    x, b, c = np.array([*points, (1.0, 0, 0)], np.float64).T
    accuracy = 80 + 100 * (c - b) / clips
    return Curve(x[None], accuracy[None], np.array([80.0]), b[None] / clips, np.full(len(x), float(clips)))


def test_iso_accuracy_speedup_by_hand() -> None:
    # z = 2.241 for two settings: no changed answer of 1,000 rules out a loss of 5.02 / 1005.02 = 0.50 %, and more
    assert iso_accuracy_speedup(counted([(0.5, 0, 0), (0.25, 40, 0)]), 0.51)[0] == 2.0
    assert iso_accuracy_speedup(counted([(0.5, 0, 0), (0.25, 40, 0)]), 0.49)[0] == 1.0, "dense itself"
    # 4 points lost, 0.62 the standard error: a loss of 6 is ruled out, one of 5 is not
    assert iso_accuracy_speedup(counted([(0.5, 0, 0), (0.25, 40, 0)]), 6.0)[0] == 4.0
    assert iso_accuracy_speedup(counted([(0.5, 0, 0), (0.25, 40, 0)]), 5.0)[0] == 2.0
    for loss in (-0.5, 0.0, math.nan):
        with pytest.raises(ValueError, match="loss"):
            iso_accuracy_speedup(counted([(0.5, 0, 0)]), loss)
    with pytest.raises(ValueError, match="lost"):
        iso_accuracy_speedup(FOUR, 1.0)


def test_more_settings_make_no_setting_count_that_did_not() -> None:
    few = counted([(0.5, 6, 5)])
    many = counted([(0.5, 6, 5), *((x / 100, 6, 5) for x in range(60, 95))])
    assert iso_accuracy_speedup(few, 1.0)[0] == 2.0
    assert iso_accuracy_speedup(many, 1.0)[0] == 1.0


@given(st.lists(st.tuples(st.integers(10, 99), st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=8))
def test_who_allows_more_loss_gets_no_less_speed(points: list[tuple[int, int, int]]) -> None:
    made = counted([(x / 100, b, c) for x, b, c in points])
    speeds = [iso_accuracy_speedup(made, loss)[0] for loss in (0.1, 0.5, 1.0, 5.0, 30.0)]
    assert speeds == sorted(speeds)
    assert speeds[-1] == pytest.approx(100 / min(x for x, *_ in points))


def _line(first: float, factor: float, accuracies: Sequence[float]) -> Curve:
    """Costs that grow by `factor` from one accuracy to the next."""
    return curve([(first * factor**i, a) for i, a in enumerate(accuracies)])


def test_bd_cost_by_hand() -> None:
    reference = _line(0.1, 2.0, [60, 65, 70, 75])
    # the same accuracies at half the cost, everywhere
    assert bd_cost(_line(0.05, 2.0, [60, 65, 70, 75]), reference)[0] == pytest.approx(-0.5)
    assert bd_cost(reference, _line(0.05, 2.0, [60, 65, 70, 75]))[0] == pytest.approx(1.0)
    # ln x_reference = ln 0.1 + (a - 60) ln 2 / 5; ln x = ln 0.1 + (a - 60) ln 4 / 5: apart by (a - 60) ln 2 / 5 over
    # [60, 75], in the middle of it by 7.5 / 5 = 1.5 times ln 2
    assert bd_cost(_line(0.1, 4.0, [60, 65, 70, 75]), reference)[0] == pytest.approx(2**1.5 - 1)
    # shared accuracies [65, 75] only, two thirds of either range; there ln x = ln 0.1 + (a - 65) ln 2 / 5: one less
    assert bd_cost(_line(0.1, 2.0, [65, 70, 75, 80]), reference)[0] == pytest.approx(-0.5)


def test_bd_cost_is_null_for_short_fronts_and_little_overlap() -> None:
    reference = _line(0.1, 2.0, [60, 65, 70, 76])
    assert np.isnan(bd_cost(_line(0.1, 2.0, [60, 65, 70]), reference)[0])
    # four points, three on the front: the last costs more and is worse
    assert np.isnan(bd_cost(curve([(0.1, 60.0), (0.2, 65.0), (0.4, 70.0), (0.8, 69.0)]), reference)[0])
    # of 16 points each: 8 shared is half, 7 is less
    assert not np.isnan(bd_cost(_line(0.1, 2.0, [68, 72, 76, 84]), reference)[0])
    assert np.isnan(bd_cost(_line(0.1, 2.0, [69, 72, 76, 85]), reference)[0])
    # all of a short range lies in a long one, of which it is under half
    assert np.isnan(bd_cost(_line(0.1, 2.0, [62, 63, 64, 65]), reference)[0])
    assert np.isnan(bd_cost(_line(0.1, 2.0, [80, 81, 82, 83]), reference)[0])


def _bd(own: Pairs, other: Pairs) -> float:
    """BD-cost by definition."""
    fronts = [[points[i] for i in pareto.front(*zip(*points, strict=True))] for points in (own, other)]
    if min(len(f) for f in fronts) < 4:
        return math.nan
    low, high = max(f[0][1] for f in fronts), min(f[-1][1] for f in fronts)
    if high <= low or high - low < max(f[-1][1] - f[0][1] for f in fronts) / 2:
        return math.nan
    knots = sorted({a for f in fronts for _, a in f if low < a < high} | {low, high})
    logs = [np.interp(knots, [a for _, a in f], np.log([x for x, _ in f])) for f in fronts]
    return math.exp(_trapezoids(knots, logs[0] - logs[1]) / (high - low)) - 1


many = st.lists(place, min_size=8, max_size=30)


@given(many, many)
def test_bd_cost_matches_the_definition(own: Pairs, other: Pairs) -> None:
    # a rising line under the noise, or fronts would rarely have four points
    own, other = ([*points, *((x / 10, 58.0 + 2 * x) for x in (2, 4, 6, 8, 10))] for points in (own, other))
    assert bd_cost(curve(own), curve(other))[0] == pytest.approx(_bd(own, other), rel=1e-9, abs=1e-12, nan_ok=True)


@given(places, st.randoms(use_true_random=False))
def test_the_order_of_points_changes_nothing(points: Pairs, random: Random) -> None:
    points = [*points, (0.2, 62.0), (0.3, 66.0), (0.5, 70.0), (1.0, 79.0)]
    shuffled = list(points)
    random.shuffle(shuffled)
    reference = _line(0.1, 2.0, [60, 65, 70, 80])
    for metric in (hypervolume, budget_auc, lambda c: iso_cost_accuracy(c, 0.5), lambda c: bd_cost(c, reference)):
        assert metric(curve(shuffled)) == pytest.approx(metric(curve(points)), rel=1e-9, nan_ok=True)


def test_resamples_do_not_see_each_other() -> None:
    """All metrics of 50 rows at once are those of each row by itself, undefined ones among them."""
    rng = np.random.default_rng(0)
    x, a, dense = rng.uniform(0.2, 1.1, (50, 9)), rng.uniform(60, 82, (50, 9)), rng.uniform(76, 82, 50)
    a = a + 15 * x
    lost, clips = rng.uniform(0, 0.1, (50, 9)), np.full(9, 2000.0)
    lost = np.maximum(lost, np.maximum(0, (dense[:, None] - a) / 100))
    together, reference = Curve(x, a, dense, lost, clips), Curve(x[::-1].copy(), a[::-1].copy(), dense)
    own = [Curve(x[i : i + 1], a[i : i + 1], dense[i : i + 1], lost[i : i + 1], clips) for i in range(50)]
    other = [own[-1 - i] for i in range(50)]
    for metric, alone in (
        (hypervolume(together), [hypervolume(c)[0] for c in own]),
        (budget_auc(together, 0.4, 0.9), [budget_auc(c, 0.4, 0.9)[0] for c in own]),
        (iso_accuracy_speedup(together, 5.0), [iso_accuracy_speedup(c, 5.0)[0] for c in own]),
        (iso_cost_accuracy(together, 0.3), [iso_cost_accuracy(c, 0.3)[0] for c in own]),
        (bd_cost(together, reference), [bd_cost(c, d)[0] for c, d in zip(own, other, strict=True)]),
    ):
        np.testing.assert_allclose(metric, alone, rtol=1e-12)
        assert np.isfinite(metric).sum() > 0


def test_gain_over_random_is_a_difference_of_areas() -> None:
    random = curve([(0.3, 50.0), (1.0, 80.0)])
    # both lines in ln x: means 75 and 65
    assert gain_over_random(curve([(0.3, 70.0), (1.0, 80.0)]), random)[0] == pytest.approx(10.0)
    # from 0.6 on, where both have points: random has 80 - 30 ln(1 / 0.6) / ln(1 / 0.3) there
    shorter = gain_over_random(curve([(0.6, 70.0), (1.0, 80.0)]), random)[0]
    assert shorter == pytest.approx((70 - (80 - 30 * math.log(1 / 0.6) / math.log(1 / 0.3))) / 2)
    assert pareto.shared_low([curve([(0.6, 70.0), (1.0, 80.0)]), random]) == [0.6]
    assert pareto.shared_low([curve([(0.1, 70.0), (1.0, 80.0)])]) == [0.3]
    assert np.isnan(gain_over_random(curve([(0.85, 70.0), (1.0, 80.0)]), random)[0])
    two = Curve(np.ones((2, 1)), np.ones((2, 1)), np.ones(2))
    for compare in (gain_over_random, bd_cost):
        with pytest.raises(ValueError, match="resamples"):
            compare(two, random)


@pytest.mark.parametrize(
    ("cost", "accuracy", "dense"),
    [
        ([[]], [[]], [80.0]),
        ([[0.5, 1.0]], [[70.0]], [80.0]),
        ([[0.5]], [[70.0]], [80.0, 80.0]),
        ([0.5], [70.0], [80.0]),
        ([[math.nan]], [[70.0]], [80.0]),
        ([[0.5]], [[math.nan]], [80.0]),
        ([[0.5]], [[70.0]], [math.nan]),
        ([[math.inf]], [[70.0]], [80.0]),
        ([[0.0]], [[70.0]], [80.0]),
        ([[-0.5]], [[70.0]], [80.0]),
    ],
)
def test_curves_refuse(cost: list[float], accuracy: list[float], dense: list[float]) -> None:
    with pytest.raises(ValueError, match="need"):
        Curve(np.array(cost), np.array(accuracy), np.array(dense))
