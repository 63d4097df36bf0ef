"""Paired tests: what pruning changed on the same videos (docs/measurement.md, section 6)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpbench.rows.statistics.intervals import _TAILS, RESAMPLES, Floats, Interval, Ints, Z


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
    lo, hi = np.quantile(resampled_means(gain, v, seed, resamples), _TAILS)
    p_exact, p_mid = mcnemar(b, c)
    # max(): rounding may leave -1e-17 where every clip changed in the same direction
    se = math.sqrt(max(0.0, (b + c) / n - delta**2)) / math.sqrt(n)
    interval = Interval(100 * delta, 100 * float(lo), 100 * float(hi))
    return PairedDifference(n, b, c, interval, 100 * se, p_exact, p_mid)


def resampled_means(gain: Ints, videos: NDArray[np.generic], seed: int, resamples: int) -> Floats:
    """Draw the mean gain per clip over resampled videos, `[resamples]`.

    Videos with equal (summed gain, number of clips) are interchangeable, so drawing V videos with replacement is one
    multinomial over those few kinds: the same distribution as drawing videos, without the `[resamples, V]` table.
    """
    _, inverse = np.unique(videos, return_inverse=True)
    per_video = np.stack([np.bincount(inverse, weights=gain), np.bincount(inverse)], axis=1)
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


def paired_score(b: float, c: float, n: float, delta: float) -> float:
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


def paired_score_bound(b: float, c: float, n: float, away: float = Z) -> float:
    """Return the lower end of Tango's interval of `(c - b) / n`, in [-1, 1]: the smallest `delta` not ruled out.

    `away`: how many standard errors rule a difference out; as it is, in a 95 % interval. Raises ValueError as
    `paired_score` does.
    """
    if b == n > 0:
        return -1.0
    low, high = -1.0, (c - b) / n
    for _ in range(60):  # the score falls as delta rises
        middle = (low + high) / 2
        low, high = (middle, high) if paired_score(b, c, n, middle) > away else (low, middle)
    return high
