"""What other weights change: the same cells on the same videos, with weights off the shelf and fine-tuned ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vpbench.rows.statistics.intervals import RESAMPLES, TAILS, Floats, Interval

#: whether predictions are right, `[runs, videos]`: a run is a fine-tuning, or a seed
Right = NDArray[np.bool_]


def mean(right: Right) -> Interval:
    """Return the percentage of videos that are right, averaged over runs, with its interval.

    Videos are resampled, and where there are several runs these as well.
    """
    [drawn] = _means([right])
    lo, hi = 100 * np.quantile(drawn, TAILS)
    return Interval(100 * float(right.mean()), float(lo), float(hi))


def gain(before: Right, after: Right) -> Interval:
    """Return by how many points `after` is right more often than `before`, paired by video; runs are not."""
    first, second = _means([before, after])
    lo, hi = 100 * np.quantile(second - first, TAILS)
    return Interval(100 * float(after.mean() - before.mean()), float(lo), float(hi))


def _means(several: Sequence[Right]) -> list[Floats]:
    """Draw means `[resamples]` of each over the same resampled videos, and over resampled runs.

    Videos that are alike in all runs are interchangeable, so that videos are drawn as one multinomial over these kinds.
    """
    rng, every = np.random.default_rng(0), np.concatenate(several)
    kinds, count = np.unique(every, axis=1, return_counts=True)
    videos = every.shape[1]
    by_run = rng.multinomial(videos, count / videos, size=RESAMPLES) @ kinds.T.astype(np.float64) / videos
    found, first = list[Floats](), 0
    for each in several:
        own, first = by_run[:, first : first + len(each)], first + len(each)
        chosen = rng.integers(len(each), size=(RESAMPLES, len(each)))
        found.append(np.take_along_axis(own, chosen, axis=1).mean(axis=1))
    return found
