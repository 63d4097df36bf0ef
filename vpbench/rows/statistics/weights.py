"""What other weights change: the same cells on the same videos, with weights off the shelf and fine-tuned ones."""

import numpy as np
from numpy.typing import NDArray

from vpbench.rows.statistics.intervals import TAILS, Floats, Interval

#: draws of the bootstrap, and how many of them are made at a time
_RESAMPLES, _TOGETHER = 4000, 250


def mean(right: NDArray[np.bool_]) -> Interval:
    """Return the percentage of videos that are right, `right [runs, videos]`, averaged over runs, with its interval.

    Videos are resampled, and where there are several runs (fine-tunings, seeds) these as well.
    """
    lo, hi = 100 * np.quantile(_means(right), TAILS)
    return Interval(100 * float(right.mean()), float(lo), float(hi))


def gain(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Interval:
    """Return by how many points `after [runs, videos]` is right more often than `before`, paired by video."""
    lo, hi = 100 * np.quantile(_means(after) - _means(before), TAILS)
    return Interval(100 * float(after.mean() - before.mean()), float(lo), float(hi))


def _means(right: NDArray[np.bool_]) -> Floats:
    """Draw means over resampled videos, of which each draw has the same ones in every call, and resampled runs."""
    rng, (runs, videos) = np.random.default_rng(0), right.shape
    share, found = right.astype(np.float64), list[Floats]()
    for _ in range(0, _RESAMPLES, _TOGETHER):
        counts = rng.multinomial(videos, np.full(videos, 1 / videos), size=_TOGETHER)
        own = np.random.default_rng(rng.integers(2**63))  # of runs: how many there are moves no draw of videos
        by_run = counts @ share.T / videos
        chosen = own.integers(runs, size=(_TOGETHER, runs))
        found.append(np.take_along_axis(by_run, chosen, axis=1).mean(axis=1))
    return np.concatenate(found)
