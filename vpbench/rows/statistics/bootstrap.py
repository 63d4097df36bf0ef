"""From measured configurations to resampled curves, from metrics to 95 % intervals (docs/measurement.md, section 7).

    curves = resample({"sta": sta_points, "random": random_points}, dense_right, video_ids)
    estimate(gain_over_random(curves["sta"], curves["random"]))

Videos and rounds are resampled independently of each other, and once for all points of all curves: what two curves
have in common, hard clips and slow rounds, cancels in their difference.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpbench.rows.statistics import pareto
from vpbench.rows.statistics.intervals import RESAMPLES, resampled_medians
from vpbench.rows.statistics.pareto import Curve, Floats

#: a metric that is undefined in a larger share of the resamples has no interval
NULL_SHARE = 0.05
_CHUNK = 4_000_000  # videos x resamples drawn at once: 32 MB
_DECIMALS_PP, _DECIMALS_COST = 9, 12  # equal values stay equal in whatever order they were summed


@dataclass(frozen=True)
class Rounds:
    """A cost that was timed: the point's is `1 / median_k ratio_k`, resampled over processes, then rounds in each.

    ratio: `[k]`, dense over own in the same round; process: `[k]`, the one each round ran in. Points with equal
    `process` share their draws: right for those timed side by side, harmless for others.
    """

    ratio: Floats
    process: NDArray[np.generic]


@dataclass(frozen=True)
class PerClip:
    """A cost that was counted: the point's is `sum own / sum dense` over the resampled clips.

    own, dense: `[n]` in one unit (multiply-accumulates; joules; a peak of memory, the same for all clips).
    """

    own: Floats
    dense: Floats


@dataclass(frozen=True)
class Point:
    """One configuration: `quality [n]` in [0, 1] per clip, and its cost.

    The quality is 1 for a clip that is right (or, without labels, agrees with dense), 0 for one that is not, and the
    mean of these over the seeds of a random control. Dense itself is the point with dense quality and a ratio of 1:
    add it to curves that end there.
    """

    quality: Floats
    cost: Rounds | PerClip


@dataclass(frozen=True)
class Estimate:
    """A metric as measured, with its 95 % percentile interval; None where undefined.

    `nulls`: share of the resamples in which the metric is undefined. Up to 5 % the interval is that of the others, so
    it supposes that the metric exists; above, there is none.
    """

    value: float | None
    lo: float | None
    hi: float | None
    nulls: float


def resample(
    curves: Mapping[str, Sequence[Point]],
    dense: Floats,
    videos: NDArray[np.generic],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Curve]:
    """Recompute every point in every resample: curves whose row 0 is as measured, with `resamples` rows after it.

    dense: `[n]`, the quality of dense on the same clips; videos: `[n]`, the source video of each, whose clips stay
    together. The points of one curve must share one kind of cost. Raises ValueError for empty input, unequal numbers
    of clips or rounds, qualities outside [0, 1], and costs that are not positive and finite.
    """
    points = [point for name in curves for point in curves[name]]
    _check(curves, points, np.asarray(dense, np.float64), videos)
    whole = np.asarray(dense, np.float64)
    gains = [np.asarray(point.quality, np.float64) - whole for point in points]
    columns = [whole, np.ones(len(videos)), *_clip_columns(points), *(np.maximum(0, -gain) for gain in gains)]
    sums = _resampled_sums(np.stack(columns, axis=1), videos, np.random.default_rng([seed, 0]), resamples)
    share = np.round(100 * sums[:, [0, *range(2, 2 + len(points))]] / sums[:, 1:2], _DECIMALS_PP)
    lost = np.round(sums[:, -len(points) :] / sums[:, 1:2], _DECIMALS_COST)
    cost = np.round(_costs(points, sums[:, 2 + len(points) : -len(points)], seed, resamples), _DECIMALS_COST)
    clips = _independent(share[:, 1:] - share[:, :1], lost[0], len(videos))
    found, first = {}, 0
    for name, own in curves.items():
        part = slice(first, first := first + len(own))
        found[name] = Curve(cost[:, part], share[:, 1:][:, part], share[:, 0], lost[:, part], clips[part])
    return found


def _independent(gain_pp: Floats, lost: Floats, clips: int) -> Floats:
    """Return how many independent clips the difference of each point rests on, `[P]`: fewer where videos have several.

    gain_pp: `[1 + resamples, P]`, against dense, whose variance over resamples tells (Rao & Scott 1992); lost: `[P]`.
    """
    gain = gain_pp[0] / 100
    alone = np.maximum(0.0, (2 * lost + gain - gain**2) / clips)
    seen = np.var(gain_pp[1:] / 100, axis=0)
    fewer = np.where(alone > 0, seen / np.where(alone > 0, alone, 1), 1)
    # the variance of 10,000 resamples of single clips is known to 3 %
    return clips / np.where(fewer > 1.1, fewer, 1.0)


def estimate(values: Floats) -> Estimate:
    """Turn a metric's values, row 0 as measured and the others from resamples, into an estimate with its interval.

    values: `[1 + resamples]`, NaN where undefined. Raises ValueError where there is no resample.
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"need the measured value and at least one resample, got shape {values.shape}")
    undefined = np.isnan(values[1:])
    drawn, nulls = values[1:][~undefined], float(undefined.mean())
    if np.isnan(values[0]):
        return Estimate(None, None, None, nulls)
    if nulls > NULL_SHARE:
        return Estimate(float(values[0]), None, None, nulls)
    lo, hi = np.quantile(drawn, (0.025, 0.975))
    return Estimate(float(values[0]), float(lo), float(hi), nulls)


def summary(curve: Curve, random: Curve | None = None, low: float | Floats = pareto.BUDGETS[0]) -> dict[str, Estimate]:
    """Return every metric of one curve at its usual settings, those against random only where it is given.

    low: where the budget AUC begins. Those at a loss only of curves that know which clips were lost.
    Keys: `hypervolume`, `budget_auc`, `speedup_at_<loss>pp`, `accuracy_at_<budget>`, `gain_over_random`, `bd_cost`.
    """
    found = {"hypervolume": pareto.hypervolume(curve), "budget_auc": pareto.budget_auc(curve, low)}
    losses = () if curve.lost is None else pareto.ISO_LOSSES_PP
    found |= {f"speedup_at_{loss:g}pp": pareto.iso_accuracy_speedup(curve, loss) for loss in losses}
    found |= {f"accuracy_at_{budget:g}": pareto.iso_cost_accuracy(curve, budget) for budget in pareto.ISO_COSTS}
    if random is not None:
        found |= {"gain_over_random": pareto.gain_over_random(curve, random), "bd_cost": pareto.bd_cost(curve, random)}
    return {name: estimate(values) for name, values in found.items()}


def _clip_columns(points: Iterable[Point]) -> Iterator[Floats]:
    """Give what is summed over clips: each point's quality, then own and dense costs of those that were counted."""
    counted = []
    for point in points:
        yield np.asarray(point.quality, np.float64)
        counted += [point.cost.own, point.cost.dense] if isinstance(point.cost, PerClip) else []
    for column in counted:
        yield np.asarray(column, np.float64)


def _resampled_sums(values: Floats, videos: NDArray[np.generic], rng: np.random.Generator, resamples: int) -> Floats:
    """Sum the columns of `values [n, C]` over all clips (row 0), then over resampled videos: `[1 + resamples, C]`."""
    _, inverse = np.unique(videos, return_inverse=True)
    number = int(inverse.max()) + 1
    per_video = np.stack([np.bincount(inverse, weights=column, minlength=number) for column in values.T], axis=1)
    chunk, parts = max(1, _CHUNK // number), [per_video.sum(axis=0, keepdims=True)]
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number)
        parts.append(times.astype(np.float64) @ per_video)
    return np.concatenate(parts)


def _costs(points: Sequence[Point], sums: Floats, seed: int, resamples: int) -> Floats:
    """Return costs over dense, `[1 + resamples, P]`; `sums`: own and dense of each counted point, in turn."""
    found, counted = np.empty((1 + resamples, len(points))), 0
    together: dict[bytes, list[int]] = {}
    for i, point in enumerate(points):
        if isinstance(point.cost, PerClip):
            found[:, i] = sums[:, counted] / sums[:, counted + 1]
            counted += 2
        else:
            together.setdefault(_processes(point.cost).tobytes(), []).append(i)
    for key, numbers in together.items():
        timed = [cost for i in numbers if isinstance(cost := points[i].cost, Rounds)]
        ratio = np.stack([np.asarray(cost.ratio, np.float64) for cost in timed], axis=1)
        # seeded by what the points share, so that neither their order nor other points change an interval
        rng = np.random.default_rng([seed, 1, zlib.crc32(key)])
        medians = resampled_medians(ratio, _processes(timed[0]), rng, resamples)
        found[:, numbers] = 1 / np.concatenate([np.median(ratio, axis=0, keepdims=True), medians])
    return found


def _processes(cost: Rounds) -> NDArray[np.intp]:
    return np.unique(cost.process, return_inverse=True)[1]


def _check(
    curves: Mapping[str, Sequence[Point]], points: Sequence[Point], dense: Floats, videos: NDArray[np.generic]
) -> None:
    if not points or not all(curves.values()) or len(videos) == 0:
        raise ValueError("need at least one clip, one curve, and one point of each curve")
    for quality in (dense, *(np.asarray(point.quality, np.float64) for point in points)):
        if quality.shape != (len(videos),):
            raise ValueError(f"need one quality for each of {len(videos)} clips, got {quality.shape}")
        if not ((quality >= 0) & (quality <= 1)).all():  # also refuses NaN: an unknown label is not a wrong prediction
            raise ValueError("a quality lies in [0, 1]")
    for name, own in curves.items():
        if len({type(point.cost) for point in own}) > 1:
            raise ValueError(f"{name!r} mixes costs that were timed with costs that were counted")
    for point in points:
        _check_cost(point.cost, len(videos))


def _check_cost(cost: Rounds | PerClip, clips: int) -> None:
    values = (cost.ratio,) if isinstance(cost, Rounds) else (cost.own, cost.dense)
    wanted = np.shape(cost.process) if isinstance(cost, Rounds) else (clips,)
    if len(wanted) != 1 or wanted == (0,) or any(np.shape(part) != wanted for part in values):
        raise ValueError(f"need one cost per clip or round, got {[np.shape(part) for part in values]} for {wanted}")
    if not all(((np.asarray(part) > 0) & np.isfinite(part)).all() for part in values):
        raise ValueError("costs must be positive and finite")
