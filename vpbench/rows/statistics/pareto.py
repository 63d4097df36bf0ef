"""Metrics of accuracy against cost, for many resamples at a time (docs/measurement.md, section 7).

Each metric takes a `Curve` and returns one value per resample, `[S]`, NaN where it is not defined. Cost is a share of
dense (lower is better), accuracy is in percentage points (higher is better). `rows.statistics.bootstrap` makes
such curves from measurements, and intervals from such values.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpbench.rows.statistics.intervals import critical
from vpbench.rows.statistics.paired import paired_score

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: the corner that hypervolumes are measured from: the cost of dense, and this many points below its accuracy
HV_COST, HV_SPAN_PP = 1.0, 10.0
#: budgets that the area under the curve covers at most, as shares of dense, and where it must begin at the latest
BUDGETS = (0.3, 1.0)
LATEST = 0.8
#: budgets at which accuracy is read off
ISO_COSTS = (0.75, 0.5, 0.35)
#: losses against dense that the speed-up may come with, in percentage points
ISO_LOSSES_PP = (1.0, 3.0)
#: a comparison of costs at equal accuracy needs this many points on either front ...
BD_POINTS = 4
#: ... and an overlap of this share of either range of accuracies
BD_OVERLAP = 0.5
#: sums of the same numbers in another order may differ by this much
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Curve:
    """The P configurations of one method, in each of S resamples, and dense beside them.

    cost: `[S, P]`, own over dense; accuracy: `[S, P]` and dense: `[S]`, in percentage points. lost: `[S, P]`, the share
    of clips that dense gets right and a point does not, out of clips `[P]` independent ones; `iso_accuracy_speedup`
    alone needs these. The order of the points is free. Raises ValueError for shapes that disagree, no points, costs
    that are not positive, and NaN.
    """

    cost: Floats
    accuracy: Floats
    dense: Floats
    lost: Floats | None = None
    clips: Floats | None = None

    def __post_init__(self) -> None:
        if self.cost.ndim != 2 or self.cost.shape != self.accuracy.shape or self.dense.shape != self.cost.shape[:1]:
            raise ValueError(
                f"need cost [S, P], accuracy [S, P], dense [S]; got {self.cost.shape}, {self.accuracy.shape}, "
                f"{self.dense.shape}"
            )
        finite = all(np.isfinite(values).all() for values in (self.cost, self.accuracy, self.dense))
        if self.cost.size == 0 or not finite or not (self.cost > 0).all():
            raise ValueError("need at least one point, finite values, and positive costs")


def on_front(curve: Curve) -> Bools:
    """Say which points no other one beats in both: `[S, P]`. Of equal points the first counts.

    Sorted by cost, both costs and accuracies of what is on the front strictly increase.
    """
    order, _, front = _sorted_front(curve)
    found = np.zeros_like(front)
    np.put_along_axis(found, order, front, axis=1)
    return found


def hypervolume(curve: Curve) -> Floats:
    """Return `sum_i (x_ref - x_i)(a_i - a_{i-1}) / 10`, `[S]`, with `a_0 = a_ref`, by cost (Zitzler & Thiele).

    x_ref = 1 and a_ref = a_dense - 10: 1 would be dense accuracy at no cost, and what lies outside that corner adds
    nothing. The accuracies are those of the best curve that nowhere falls with cost: points below a cheaper one are
    averaged with it, and points of equal cost count as their mean. The front in their place would be made of the
    luckiest points, and so be too large (benchmarks/bootstrap_coverage.py).
    """
    x, a = _by_cost(curve)
    start = curve.dense[:, None] - HV_SPAN_PP
    # beyond x_ref the width is 0, below a_ref the height
    levels = np.maximum(np.concatenate([start, _rising(a)], axis=1), start)
    volume: Floats = (np.maximum(HV_COST - x, 0) * np.diff(levels, axis=1)).sum(axis=1)
    return volume / HV_SPAN_PP


def _rising(values: Floats) -> Floats:
    """Return the least-squares fit to each row of `values [S, P]` that never falls (Ayer et al. 1955).

    At each place it is the largest, over all beginnings before it, of the smallest mean up to any end behind it.
    """
    sums, found = np.cumsum(values, axis=1), np.full_like(values, -np.inf)
    for first in range(values.shape[1]):
        before = sums[:, first - 1 : first] if first else 0.0
        means = (sums[:, first:] - before) / np.arange(1, values.shape[1] - first + 1)
        least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        found[:, first:] = np.maximum(found[:, first:], least)
    return found


def budget_auc(curve: Curve, low: float | Floats = BUDGETS[0], high: float = BUDGETS[1]) -> Floats:
    """Return the mean accuracy over the logarithm of the budget, `1/ln(h/l) * integral_l^h a(x) dln x`, `[S]`, in pp.

    low: one, or one for each resample. a(x) runs through all points, not the front alone, linear in ln x; points of
    equal cost count as their mean. NaN where the points do not span [low, high]. Raises ValueError unless
    0 < low < high.
    """
    if not (np.min(low) > 0 and np.max(low) < high):
        raise ValueError(f"need 0 < low < high, got {low} and {high}")
    x, a = _by_cost(curve)
    lo, hi = np.broadcast_to(np.log(low), len(x)).astype(np.float64), np.full(len(x), np.log(high))
    area = _integral(np.log(x), a, lo, hi) / (hi - lo)
    return np.where((x[:, 0] <= low) & (x[:, -1] >= high), area, np.nan)


def shared_low(curves: Sequence[Curve]) -> Floats:
    """Return from which budget on all curves have points, in each resample, `[S]`: at least `BUDGETS[0]`."""
    return np.max([np.full(len(curves[0].dense), BUDGETS[0]), *(curve.cost.min(axis=1) for curve in curves)], axis=0)


def gain_over_random(curve: Curve, random: Curve) -> Floats:
    """Return by how many pp the budget AUC of `curve` exceeds that of random selection, `[S]`; NaN where either is.

    From where both curves have points: `shared_low` of the two. NaN where that lies above `LATEST` as measured.
    Both curves must come from the same resamples; raises ValueError where their numbers differ.
    """
    _same_resamples(curve, random)
    low = shared_low([curve, random])
    if low[0] > LATEST:
        return np.full(len(low), np.nan)
    low = np.minimum(low, (1 + LATEST) / 2)  # a resample may not leave them less than half of the shortest span
    return budget_auc(curve, low) - budget_auc(random, low)


def iso_accuracy_speedup(curve: Curve, loss_pp: float) -> Floats:
    """Return the largest `1 / x` over the points that are shown to lose less than `loss_pp`, `[S]`; NaN if none is.

    Shown by the score test, for as many points at once as the curve has besides dense, in each resample anew; dense
    itself, equal in cost and answers, needs no proof. Nothing is interpolated. Raises ValueError unless the loss is
    positive, and for a curve without `lost` and `clips`.
    """
    if not loss_pp > 0:
        raise ValueError(f"the loss that is allowed must be positive, got {loss_pp}")
    best = np.where(shown(curve, loss_pp), 1 / curve.cost, -np.inf).max(axis=1)
    return np.where(np.isfinite(best), best, np.nan)


def shown(curve: Curve, loss_pp: float) -> Bools:
    """Say which points are shown to lose less than `loss_pp` points, `[S, P]`; see `iso_accuracy_speedup`."""
    if curve.lost is None or curve.clips is None:
        raise ValueError("need the shares of clips that were lost, and of how many")
    itself = (curve.cost == 1) & (curve.accuracy == curve.dense[:, None]) & (curve.lost == 0)
    among = max(1, int((~itself[0]).sum()))
    gained = np.maximum(0.0, (curve.accuracy - curve.dense[:, None]) / 100 + curve.lost)
    score = paired_score(curve.lost * curve.clips, gained * curve.clips, curve.clips, -loss_pp / 100)
    return itself | (score > critical(among))


def iso_cost_accuracy(curve: Curve, budget: float) -> Floats:
    """Return a(x) in pp at x = `budget`, `[S]`, with a(x) as in `budget_auc`; NaN outside the measured costs.

    `measured_at` tells measured values from interpolated ones. Raises ValueError unless the budget is positive.
    """
    if not budget > 0:
        raise ValueError(f"a budget is a positive share of dense, got {budget}")
    x, a = _by_cost(curve)
    after = (x < budget).sum(axis=1)  # of the first point that costs as much or more
    row, last = np.arange(len(x)), np.minimum(after, x.shape[1] - 1)
    before = np.maximum(after - 1, 0)
    width = np.log(x[row, last] / x[row, before])
    share = np.where(width > 0, np.log(budget / x[row, before]) / np.where(width > 0, width, 1), 1)
    between = a[row, before] + share * (a[row, last] - a[row, before])
    return np.where((x[:, 0] <= budget) & (x[:, -1] >= budget), between, np.nan)


def measured_at(curve: Curve, budget: float) -> Bools:
    """Say where some point costs exactly `budget`, `[S]`: elsewhere `iso_cost_accuracy` is interpolated."""
    return (curve.cost == budget).any(axis=1)


def bd_cost(curve: Curve, reference: Curve) -> Floats:
    """Return by what share `curve` costs more than `reference` at equal accuracy, on average, `[S]` (Bjontegaard 2001).

    `exp(1/(H-L) * integral_L^H [ln x_curve(a) - ln x_reference(a)] da) - 1` over the accuracies [L, H] that both fronts
    have, ln x linear in a; -0.2 means a fifth cheaper. NaN with fewer than 4 points on either front, and where [L, H]
    is less than half of either range. Averages over data sets are averages of these values, never of curves. Raises
    ValueError for curves of different numbers of resamples.
    """
    _same_resamples(curve, reference)
    own, other = _front_by_accuracy(curve), _front_by_accuracy(reference)
    low = np.maximum(own[0][:, 0], other[0][:, 0])
    high = np.minimum(own[0][:, -1], other[0][:, -1])
    widest = np.maximum(own[0][:, -1] - own[0][:, 0], other[0][:, -1] - other[0][:, 0])
    defined = (high > low) & (high - low >= BD_OVERLAP * widest)
    defined &= (own[2] >= BD_POINTS) & (other[2] >= BD_POINTS)
    area = _integral(own[0], own[1], low, high) - _integral(other[0], other[1], low, high)
    return np.where(defined, np.expm1(area / np.where(defined, high - low, 1)), np.nan)


def _same_resamples(curve: Curve, other: Curve) -> None:
    if len(curve.dense) != len(other.dense):
        raise ValueError(f"curves of {len(curve.dense)} and {len(other.dense)} resamples cannot be compared")


def _sorted_front(curve: Curve) -> tuple[NDArray[np.intp], Floats, Bools]:
    """Return the order by cost `[S, P]`, the highest accuracy up to each place, and which places are on the front."""
    order = np.lexsort((-curve.accuracy, curve.cost), axis=-1)
    highest = np.maximum.accumulate(np.take_along_axis(curve.accuracy, order, axis=1), axis=1)
    first = np.ones((len(order), 1), bool)
    return order, highest, np.concatenate([first, np.diff(highest, axis=1) > 0], axis=1)


def _front_by_accuracy(curve: Curve) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """Return accuracies and ln x of the fronts, both `[S, P]` ascending, and how many points each front has, `[S]`.

    Places of points off the front repeat the point before them, which adds nothing to an integral.
    """
    order, highest, front = _sorted_front(curve)
    last = np.maximum.accumulate(np.where(front, np.arange(order.shape[1]), 0), axis=1)
    cost = np.take_along_axis(curve.cost, np.take_along_axis(order, last, axis=1), axis=1)
    return highest, np.log(cost), front.sum(axis=1)


def _by_cost(curve: Curve) -> tuple[Floats, Floats]:
    """Sort the points by cost and give those of equal cost their mean accuracy; both `[S, P]`."""
    order = np.argsort(curve.cost, axis=1, kind="stable")
    x, a = (np.take_along_axis(values, order, axis=1) for values in (curve.cost, curve.accuracy))
    rows, points = x.shape
    step = np.concatenate([np.zeros((rows, 1), bool), np.diff(x, axis=1) > 0], axis=1)
    place = np.cumsum(step, axis=1) + points * np.arange(rows)[:, None]
    total = np.bincount(place.ravel(), weights=a.ravel(), minlength=x.size)
    count = np.bincount(place.ravel(), minlength=x.size)
    return x, (total / np.maximum(count, 1))[place]


def _integral(u: Floats, v: Floats, low: Floats, high: Floats) -> Floats:
    """Integrate over [low, high] `[S]` what runs linearly from point to point of `u [S, P]`, ascending, and `v`.

    Nothing outside the points counts. A piece of width 0, between points of equal u, adds nothing.
    """
    left, right = u[:, :-1], u[:, 1:]
    start, stop = np.maximum(left, low[:, None]), np.minimum(right, high[:, None])
    width = np.maximum(stop - start, 0)
    full = np.where(right > left, right - left, 1)
    middle = v[:, :-1] + ((start + stop) / 2 - left) / full * (v[:, 1:] - v[:, :-1])
    return (width * middle).sum(axis=1)


def front(x: ArrayLike, y: ArrayLike) -> list[int]:
    """Return the indices of the Pareto front by ascending x, where lower x and higher y are better.

    Along the result both x and y strictly increase; of equal points the first is kept. Raises ValueError for unequal
    lengths and for values that are not finite (drop rows without a value before asking).
    """
    cost, quality = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if cost.ndim != 1 or cost.shape != quality.shape or not (np.isfinite(cost).all() and np.isfinite(quality).all()):
        raise ValueError(f"need equal numbers of finite values, got {cost.shape} and {quality.shape}")
    kept: list[int] = []
    for i in np.lexsort((-quality, cost)).tolist():
        if not kept or quality[i] > quality[kept[-1]]:
            kept.append(i)
    return kept
