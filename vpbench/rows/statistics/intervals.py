"""Estimates with their intervals (docs/measurement.md, sections 6 and 7)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
_TAILS = (0.025, 0.975)
#: the 97.5 % point of the normal distribution
Z = 1.959963984540054
#: an A/A interval wider than this, or one that excludes 1, spoils its block (docs/measurement.md, section 3)
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
