"""Estimates with their intervals (docs/measurement.md, sections 6 and 7)."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
TAILS = (0.025, 0.975)
#: the 97.5 % point of the normal distribution
Z = 1.959963984540054
#: intervals over fewer videos promise too much
FEWEST_VIDEOS = 20
#: from so many processes on an interval comes from what differs between them
PROCESSES = 3
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
    """Return the median of `values [k]`, all positive, with its 95 % interval.

    process: `[k]`. From three processes on it is Student's interval of the logarithms of their medians: a bootstrap of
    three covers 74 to 87 % of the time (benchmarks/bootstrap_coverage.py). Below, processes are resampled and rounds in
    each, and what varies between processes is hardly seen (Kalibera & Jones 2013): the row says `n_process`. Raises
    ValueError for empty, unequal, non-finite or non-positive input.
    """
    x, owner = np.asarray(values, np.float64), np.asarray(process)
    if x.ndim != 1 or x.shape != owner.shape or x.size == 0 or not (np.isfinite(x) & (x > 0)).all():
        raise ValueError(f"need equal, non-zero numbers of finite, positive values, got {x.shape} and {owner.shape}")
    middle = float(np.median(x))
    if len(np.unique(owner)) >= PROCESSES:
        logs = _log_medians(x[:, None], owner)[:, 0]
        half = critical(df=len(logs) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
        lo, hi = (math.exp(float(logs.mean()) + sign * half) for sign in (-1, 1))
        # the median of all rounds need not be the middle of the processes
        return Interval(middle, min(lo, middle), max(hi, middle))
    draws = resampled_medians(x[:, None], owner, np.random.default_rng(seed), resamples)
    lo, hi = np.quantile(draws, TAILS)
    return Interval(middle, float(lo), float(hi))


def critical(comparisons: int = 1, df: int | None = None) -> float:
    """Return by how many standard errors 95 % intervals of so many comparisons reach, so that all hold at once.

    Bonferroni's, which holds however the comparisons depend on each other. df: degrees of freedom of the errors, None
    for many. Raises ValueError without a comparison, or a degree of freedom.
    """
    if comparisons < 1 or (df is not None and df < 1):
        raise ValueError(f"need a comparison and a degree of freedom, got {comparisons} and {df}")
    tail = TAILS[0] / comparisons
    if df is None:
        return Z if comparisons == 1 else NormalDist().inv_cdf(1 - tail)
    low, high = 0.0, 2.0
    while student_tail(high, df) > tail:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, df) > tail else (low, middle)
    return high


def student_tail(t: float, df: int) -> float:
    """Return P(T > t) of Student's distribution for t >= 0 and whole degrees of freedom (Abramowitz & Stegun 26.7)."""
    angle = math.atan2(t, math.sqrt(df))
    term = total = 1.0 if df % 2 == 0 else math.cos(angle)
    for k in range(2 if df % 2 == 0 else 3, df, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    if df % 2 == 0:
        return (1 - math.sin(angle) * total) / 2
    inside = angle + math.sin(angle) * total if df > 1 else angle
    return 0.5 - inside / math.pi


def resampled_medians(
    values: Floats, process: NDArray[np.generic], rng: np.random.Generator, resamples: int = RESAMPLES
) -> Floats:
    """Draw the medians `[resamples, C]` of the columns of `values [k, C]`, which are positive.

    process: `[k]`. All columns see the same draws, as configurations timed in the same rounds do. Below three processes
    they resample processes, then rounds in each; from three on they follow the distribution that `median_interval`
    takes its ends from, for all columns together: the logarithms' mean, and deviations of the processes with normal
    weights over the root of a chi-square.
    """
    _, inverse, sizes = np.unique(process, return_inverse=True, return_counts=True)
    if len(sizes) >= PROCESSES:
        return _student_medians(_log_medians(values, process), rng, resamples)
    by_process = np.ascontiguousarray(values[np.argsort(inverse, kind="stable")].T)
    chunk = max(1, _CHUNK // (len(by_process) * len(sizes) * int(sizes.max())))
    parts = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([_resampled_medians(by_process, sizes, rng, part) for part in parts])


def _log_medians(values: Floats, process: NDArray[np.generic]) -> Floats:
    """Return the logarithm of each process's medians, `[P, C]`, of `values [k, C]`."""
    return np.log(np.stack([np.median(values[process == name], axis=0) for name in np.unique(process)]))


def _student_medians(logs: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Draw medians `[resamples, C]` from the logarithms of those of P processes, `[P, C]`."""
    number = len(logs)
    weights, spread = rng.standard_normal((resamples, number)), np.sqrt(rng.chisquare(number - 1, resamples))
    middle = logs.mean(axis=0)
    # one process after the other: a matrix product may round a column by what stands beside it
    moved = np.zeros((resamples, logs.shape[1]))
    for weight, own in zip(weights.T, logs - middle, strict=True):
        moved += weight[:, None] * own
    medians: Floats = np.exp(middle + moved / spread[:, None] / math.sqrt(number))
    return medians


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
    low = int(np.searchsorted(at_most, TAILS[0], side="right"))
    high = int(np.searchsorted(at_most, TAILS[1], side="left")) + 1
    if low < 1 or high > x.size:
        return None
    return Interval(float(np.quantile(x, q)), float(x[low - 1]), float(x[high - 1]))
