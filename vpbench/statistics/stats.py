"""Intervals, paired tests and the Pareto front (measurement protocol, sections 6 and 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
_TAILS = (0.025, 0.975)
#: the 97.5 % point of the normal distribution
Z = 1.959963984540054
#: an A/A interval wider than this, or one that excludes 1, spoils the block it was timed in (protocol, section 7)
AA_HALF_WIDTH = 0.02
_CHUNK = 4_000_000  # values drawn at once: 32 MB, so a long run does not need gigabytes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % confidence interval, all three in the unit of the estimate."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of a method less that of dense on the same `n` clips.

    `b`: clips that dense gets right and the method wrong; `c`: the reverse. `delta_pp` and `se_pp` are in percentage
    points; the interval resamples source videos. `p_exact` and `p_mid` are McNemar's, which takes clips as independent.
    """

    n: int
    b: int
    c: int
    delta_pp: Interval
    se_pp: float
    p_exact: float
    p_mid: float


def paired_difference(
    dense: ArrayLike, method: ArrayLike, videos: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> PairedDifference:
    """Compare the correctness of two models clip by clip.

    dense, method: bool `[n]`, is the prediction right; videos: `[n]`, the source video of each clip. With b and c the
    two kinds of disagreement: `delta = (c - b) / n`, `SE = sqrt((b + c) / n - delta^2) / sqrt(n)`; the interval is a
    percentile bootstrap over videos, the clips of one video staying together. Raises ValueError for empty input,
    unequal lengths and anything but booleans (an unknown label is not a wrong prediction).
    """
    d, m, v = np.asarray(dense), np.asarray(method), np.asarray(videos)
    if d.dtype != np.bool_ or m.dtype != np.bool_:
        raise ValueError(f"correctness must be boolean, got {d.dtype} and {m.dtype}")
    if d.ndim != 1 or d.shape != m.shape or d.shape != v.shape or d.size == 0:
        raise ValueError(f"need equal, non-zero numbers of clips, got {d.shape}, {m.shape}, {v.shape}")
    n, b, c = d.size, int(np.sum(d & ~m)), int(np.sum(m & ~d))
    delta = (c - b) / n
    gain = m.astype(np.int64) - d.astype(np.int64)
    lo, hi = np.quantile(_resampled_means(gain, v, seed, resamples), _TAILS)
    p_exact, p_mid = mcnemar(b, c)
    # max(): rounding may leave -1e-17 where every clip changed in the same direction
    se = math.sqrt(max(0.0, (b + c) / n - delta**2)) / math.sqrt(n)
    interval = Interval(100 * delta, 100 * float(lo), 100 * float(hi))
    return PairedDifference(n, b, c, interval, 100 * se, p_exact, p_mid)


def _resampled_means(gain: Ints, videos: NDArray[np.generic], seed: int, resamples: int) -> Floats:
    """Draw the mean gain per clip over resampled videos, `[resamples]`.

    Videos with equal (summed gain, number of clips) are interchangeable, so drawing V videos with replacement is one
    multinomial over those few kinds: the same distribution as drawing videos, without the `[resamples, V]` table.
    """
    _, inverse = np.unique(videos, return_inverse=True)
    per_video = np.stack([np.bincount(inverse, weights=gain), np.bincount(inverse)], axis=1)
    kinds, count = np.unique(per_video, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    total = rng.multinomial(len(per_video), count / len(per_video), size=resamples) @ kinds
    means: Floats = total[:, 0] / total[:, 1]
    return means


def mcnemar(b: int, c: int) -> tuple[float, float]:
    """Return McNemar's exact two-sided p-value and its mid-p variant for b and c discordant pairs.

    `p = min(1, 2 * sum_{i=0}^{min(b,c)} C(b+c, i) 2^-(b+c))`; mid-p subtracts the last term once from the doubled sum.
    Without any discordant pair both are 1.
    """
    n, last = b + c, min(b, c)
    constant = math.lgamma(n + 1) - n * math.log(2)
    terms = [math.exp(constant - math.lgamma(i + 1) - math.lgamma(n - i + 1)) for i in range(last + 1)]
    doubled = 2 * math.fsum(terms)
    return min(1.0, doubled), min(1.0, doubled - terms[-1])


def wilson(right: int, n: int) -> Interval:
    """Return the share right/n, in [0, 1], with Wilson's interval (Wilson 1927), taking clips as independent.

    Raises ValueError unless 0 <= right <= n and n > 0.
    """
    if not 0 <= right <= n or n == 0:
        raise ValueError(f"need 0 <= right <= n and n > 0, got {right} of {n}")
    share, z2 = right / n, Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for a family of comparisons (Holm 1979), in the order given.

    `q_(i) = max_{j<=i} min(1, (m - j + 1) p_(j))` over ascending p. Raises ValueError for a value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):  # also refuses NaN
        raise ValueError(f"p-values must lie in [0, 1], got {list(p_values)}")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def speedup(
    dense: ArrayLike, method: ArrayLike, process: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return `median_k t_dense,k / t_method,k` over rounds k, with a two-level bootstrap interval.

    dense, method: `[k]` times of the same rounds in any common unit; process: `[k]`, the process each round ran in.
    Raises ValueError for unequal lengths and for times that are not positive.
    """
    d, m = np.asarray(dense, np.float64), np.asarray(method, np.float64)
    if d.shape != m.shape or not (np.all(d > 0) and np.all(m > 0)):
        raise ValueError(f"need positive times of the same rounds, got {d.shape} and {m.shape}")
    return median_interval(d / m, process, seed=seed, resamples=resamples)


def no_loss(delta_pp: Interval, epsilon_pp: float = 0.5) -> bool:
    """Say whether a method is shown not to be worse by `epsilon_pp` percentage points or more (non-inferiority).

    True where the lower end of the 95 % interval of `method - dense` lies above -epsilon_pp. False is no proof of a
    loss. Raises ValueError unless `epsilon_pp` is positive and the interval's end finite.
    """
    if not (epsilon_pp > 0 and math.isfinite(epsilon_pp) and math.isfinite(delta_pp.lo)):
        raise ValueError(f"need a positive margin and a finite interval, got {epsilon_pp} and {delta_pp}")
    return delta_pp.lo > -epsilon_pp


def paired_score(b: int, c: int, n: int, delta: float) -> float:
    """Return how many standard errors `(c - b) / n` lies above a supposed difference `delta`, in (-1, 1) (Tango 1998).

    b and c of n pairs are discordant; the error is that of the most likely shares given `delta`, so it is not 0 where
    no pair is discordant, as a bootstrap's is: without any, a loss of `Z**2 / (n + Z**2)` is not ruled out. Raises
    ValueError unless b + c <= n, n > 0 and -1 < delta < 1.
    """
    if b < 0 or c < 0 or n <= 0 or b + c > n or not -1 < delta < 1:
        raise ValueError(f"need b + c <= n, n > 0 and a difference in (-1, 1), got {b}, {c}, {n} and {delta}")
    linear = b + c - (2 * n + b - c) * delta
    # the share of pairs that dense alone gets right, which with `delta` is most likely
    share = (linear + math.sqrt(max(0.0, linear**2 + 8 * n * b * delta * (1 - delta)))) / (4 * n)
    variance = n * max(0.0, 2 * max(share, -delta, 0.0) + delta - delta**2)
    distance = c - b - n * delta
    if variance == 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def paired_score_bound(b: int, c: int, n: int) -> float:
    """Return the lower end of Tango's 95 % interval of `(c - b) / n`, in [-1, 1]: the smallest `delta` not ruled out.

    Raises ValueError as `paired_score` does.
    """
    if b == n > 0:
        return -1.0
    low, high = -1.0, (c - b) / n
    for _ in range(60):  # the score falls as delta rises
        middle = (low + high) / 2
        low, high = (middle, high) if paired_score(b, c, n, middle) > Z else (low, middle)
    return high


def median_interval(values: ArrayLike, process: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return the median of `values [k]` with a percentile interval that resamples processes, then rounds in each.

    process: `[k]`. With a single process only rounds are resampled, and what varies between processes stays unseen
    (Kalibera & Jones 2013): the row must say `n_process=1`. Raises ValueError for empty, unequal or non-finite input.
    """
    x, owner = np.asarray(values, np.float64), np.asarray(process)
    if x.ndim != 1 or x.shape != owner.shape or x.size == 0 or not np.all(np.isfinite(x)):
        raise ValueError(f"need equal, non-zero numbers of finite values, got {x.shape} and {owner.shape}")
    draws = resampled_medians(x[:, None], owner, np.random.default_rng(seed), resamples)
    lo, hi = np.quantile(draws, _TAILS)
    return Interval(float(np.median(x)), float(lo), float(hi))


def resampled_medians(
    values: Floats, process: NDArray[np.generic], rng: np.random.Generator, resamples: int = RESAMPLES
) -> Floats:
    """Draw the medians `[resamples, C]` of the columns of `values [k, C]`: processes, then rounds in each.

    process: `[k]`. All columns see the same draws, as configurations timed in the same rounds do.
    """
    _, inverse, sizes = np.unique(process, return_inverse=True, return_counts=True)
    by_process = np.ascontiguousarray(values[np.argsort(inverse, kind="stable")].T)
    chunk = max(1, _CHUNK // (len(by_process) * len(sizes) * int(sizes.max())))
    parts = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([_resampled_medians(by_process, sizes, rng, part) for part in parts])


def _resampled_medians(values: Floats, sizes: Ints, rng: np.random.Generator, resamples: int) -> Floats:
    """Draw medians `[resamples, C]`; `values [C, k]` by process, of which `sizes [P]` says how many each."""
    first = np.cumsum(sizes) - sizes
    chosen = rng.integers(len(sizes), size=(resamples, len(sizes), 1))
    length = sizes[chosen]
    slot = np.arange(sizes.max())
    index = first[chosen] + rng.integers(length, size=(resamples, len(sizes), len(slot)))
    # processes may differ in length (dropped rounds): unused slots sort behind everything
    drawn = np.where(slot < length, values[:, index], np.inf).reshape(len(values), resamples, -1)
    drawn.sort(axis=-1)
    used, row = length.sum(axis=(1, 2)), np.arange(resamples)
    medians: Floats = (drawn[:, row, (used - 1) // 2] + drawn[:, row, used // 2]) / 2
    return medians.T


def quantile_interval(values: ArrayLike, q: float) -> Interval | None:
    """Return a quantile of `values [k]` with a 95 % interval from order statistics, whatever their distribution.

    The number of values below the true quantile is binomial(k, q), so the interval runs between the values whose ranks
    leave at most 2.5 % on either side (David & Nagaraja 2003, section 7.1). None where k values are too few for that:
    below 368 for q = 0.99. Raises ValueError for values that are not finite, and for q outside (0, 1).
    """
    x = np.sort(np.asarray(values, np.float64))
    if x.ndim != 1 or not np.isfinite(x).all() or not 0 < q < 1:
        raise ValueError(f"need finite values and a share in (0, 1), got {x.shape} and {q}")
    k = np.arange(x.size + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, x.size + 1)))])
    terms = log_factorial[-1] - log_factorial[k] - log_factorial[::-1][k] + k * math.log(q) + k[::-1] * math.log1p(-q)
    at_most = np.cumsum(np.exp(terms))
    # the value of rank i (from 1) exceeds the quantile with probability P(fewer than i below) = at_most[i - 1]
    low = int(np.searchsorted(at_most, _TAILS[0], side="right"))
    high = int(np.searchsorted(at_most, _TAILS[1], side="left")) + 1
    if low < 1 or high > x.size:
        return None
    return Interval(float(np.quantile(x, q)), float(x[low - 1]), float(x[high - 1]))


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
