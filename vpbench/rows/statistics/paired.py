"""Paired tests: what pruning changed on the same videos (docs/measurement.md, section 6)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpbench.rows.statistics.intervals import RESAMPLES, TAILS, Floats, Interval, Z


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
    lo, hi = np.quantile(resampled_means(gain, v, seed, resamples), TAILS)
    p_exact, p_mid = mcnemar(b, c)
    # max(): rounding may leave -1e-17 where every clip changed in the same direction
    se = math.sqrt(max(0.0, (b + c) / n - delta**2)) / math.sqrt(n)
    interval = Interval(100 * delta, 100 * float(lo), 100 * float(hi))
    return PairedDifference(n, b, c, interval, 100 * se, p_exact, p_mid)


def resampled_means(gain: ArrayLike, videos: NDArray[np.generic], seed: int, resamples: int) -> Floats:
    """Draw the mean gain per clip over resampled videos, `[resamples]`.

    Videos with equal (summed gain, number of clips) are interchangeable, so drawing V videos with replacement is one
    multinomial over those few kinds: the same distribution as drawing videos, without the `[resamples, V]` table.
    """
    _, inverse = np.unique(videos, return_inverse=True)
    per_video = np.stack([np.bincount(inverse, weights=np.asarray(gain, np.float64)), np.bincount(inverse)], axis=1)
    kinds, count = np.unique(per_video, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    total = rng.multinomial(len(per_video), count / len(per_video), size=resamples) @ kinds
    return total[:, 0] / total[:, 1]


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


def paired_score(b: ArrayLike, c: ArrayLike, n: ArrayLike, delta: ArrayLike) -> Floats:
    """Return how many standard errors `(c - b) / n` lies above a supposed difference `delta`, in (-1, 1) (Tango 1998).

    b and c of n pairs are discordant, counts or arrays of them; the error is that of the most likely shares given
    `delta`, so it is not 0 where no pair is discordant, as a bootstrap's is: without any, a loss of `Z**2 / (n + Z**2)`
    is not ruled out. Raises ValueError unless b + c <= n, n > 0 and -1 < delta < 1.
    """
    lost, gained, pairs, supposed = (np.asarray(each, np.float64) for each in (b, c, n, delta))
    # fractions, of fewer pairs than there are, may add up to a little more than all
    if not (
        (np.abs(supposed) < 1).all()
        and (pairs > 0).all()
        and np.all((lost >= 0) & (gained >= 0) & (lost + gained <= pairs + 1e-6))
    ):
        raise ValueError(f"need b + c <= n, n > 0 and a difference in (-1, 1), got {b!r}, {c!r}, {n!r} and {delta!r}")
    return _score(lost, gained, pairs, supposed)


def _score(b: Floats, c: Floats, n: Floats, delta: Floats) -> Floats:
    linear = b + c - (2 * n + b - c) * delta
    # the share of pairs that dense alone gets right, which with `delta` is most likely
    share = (linear + np.sqrt(np.maximum(0.0, linear**2 + 8 * n * b * delta * (1 - delta)))) / (4 * n)
    likely = np.maximum(np.maximum(share, -delta), 0.0)
    variance = n * np.maximum(0.0, 2 * likely + delta - delta**2)
    distance = c - b - n * delta
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(distance == 0, 0.0, distance / np.sqrt(variance))[()]
    return found


def paired_score_bound(b: ArrayLike, c: ArrayLike, n: ArrayLike, away: float = Z) -> Floats:
    """Return the lower end of Tango's interval of `(c - b) / n`, in [-1, 1]: the smallest `delta` not ruled out.

    b, c, n: counts or arrays of them. `away`: how many standard errors rule a difference out; as it is, in a 95 %
    interval. Raises ValueError as `paired_score` does.
    """
    paired_score(b, c, n, 0.0)
    lost, gained, pairs = (np.asarray(each, np.float64) for each in (b, c, n))
    high = (gained - lost) / pairs
    low = np.full_like(high, -1.0)
    for _ in range(60):  # the score falls as delta rises
        middle = (low + high) / 2
        beyond = _score(lost, gained, pairs, middle) > away
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    found: Floats = np.where(lost == pairs, -1.0, high)[()]
    return found
