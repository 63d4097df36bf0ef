"""Whether pruning costs as much when many views of a video are averaged as on one view of it.

What is stored says exactly how accurate a single view is, on average over the views (`clips`), and how accurate their
averaged scores are (`videos`). Scores of single views are not stored, so in between are votes: the most frequent answer
of k views, where answers tie each to the same part. That does without the confidence of the views, and comes out below
what averaging the scores of k views would give; the difference at all views is told by both being there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpbench.errors import NothingMeasured
from vpbench.rows.answers import answered
from vpbench.rows.schema import Result
from vpbench.rows.statistics.intervals import FEWEST_VIDEOS, RESAMPLES, TAILS, Floats, Interval
from vpbench.rows.statistics.paired import resampled_means

#: orders in which views are taken, the same for all rows
ORDERS = 16


@dataclass(frozen=True)
class Ensemble:
    """A row over views: accuracy in percent of votes of `counts` views, of a single one first, and of averaged scores.

    `single`, `averaged`: the row's, with the differences to dense in points; `shift`: the latter less the former, by
    how much less (above 0) or more pruning costs where all views are averaged. Intervals are 95 %, over videos.
    """

    row: Result
    counts: list[int]
    votes: list[float]
    single: Interval
    averaged: Interval
    single_pp: Interval | None
    averaged_pp: Interval | None
    shift_pp: Interval | None


def of(rows: Sequence[Result], clips: pd.DataFrame, videos: pd.DataFrame) -> list[Ensemble]:
    """Return each row of a context, dense first, on the videos that dense and it have all views of.

    clips: rows of the clips table with `video_id`, `view`, `pred` and `correct`. Raises NothingMeasured
    where there is one view, where labels or dense are missing, and below `FEWEST_VIDEOS` videos.
    """
    views = max((row["views"] for row in rows), default=1)
    if views < 2:
        raise NothingMeasured("one view of each video was taken: there is nothing to average")
    measured, dense = answered(rows)
    seen = {row["config_id"]: _Seen(row["config_id"], views, clips, videos) for row in measured}
    whole = seen[dense["config_id"]]
    if len(whole.ids) < FEWEST_VIDEOS:
        raise NothingMeasured(f"{len(whole.ids)} videos with all views are too few, {FEWEST_VIDEOS} are the fewest")
    pruned = [row for row in measured if row["method"] != "dense"]
    return [_of(row, seen[row["config_id"]], whole, views) for row in (dense, *pruned)]


class _Seen:
    """Videos `ids [n]` of which all views of a row are stored: `pred`, `right` `[n, V]`, `averaged [n]`."""

    def __init__(self, config_id: str, views: int, clips: pd.DataFrame, videos: pd.DataFrame) -> None:
        own = clips[(clips["config_id"] == config_id) & clips["correct"].notna()].sort_values(["video_id", "view"])
        own = own.drop_duplicates(["video_id", "view"], keep="last")
        whole = own.groupby("video_id")["view"].transform("size") == views
        answered = videos[(videos["config_id"] == config_id) & videos["correct"].notna()]
        together = answered.drop_duplicates("video_id", keep="last").set_index("video_id")["correct"]
        own = own[whole & own["video_id"].isin(together.index)]
        self.ids: NDArray[np.str_] = own["video_id"].to_numpy(dtype=str)[::views]
        self.pred = own["pred"].to_numpy(dtype=np.int64).reshape(-1, views)
        self.right = own["correct"].to_numpy(dtype=bool).reshape(-1, views)
        self.averaged = together.loc[self.ids.tolist()].to_numpy(dtype=bool)

    def among(self, ids: NDArray[np.str_]) -> NDArray[np.bool_]:
        return np.isin(self.ids, ids)


def _of(row: Result, own: _Seen, dense: _Seen, views: int) -> Ensemble:
    mine, theirs = own.among(dense.ids), dense.among(own.ids)  # both in the order of the ids
    single, averaged = own.right[mine].mean(axis=1), own.averaged[mine].astype(np.float64)
    counts = _counts(views)
    votes = [100 * votes_right(own.pred[mine], own.right[mine], count) for count in counts]
    one, all_views = _resampled(single), _resampled(averaged)
    if row["method"] == "dense":
        return Ensemble(row, counts, votes, one, all_views, None, None, None)
    lost_one, lost_all = single - dense.right[theirs].mean(axis=1), averaged - dense.averaged[theirs]
    shift = _resampled(lost_all - lost_one)
    return Ensemble(row, counts, votes, one, all_views, _resampled(lost_one), _resampled(lost_all), shift)


def _counts(views: int) -> list[int]:
    """Return 1, 2, 3, 5, 10, ... views, and all."""
    return sorted({count for count in (1, 2, 3, 5, 10, 20, 30) if count < views} | {views})


def votes_right(pred: NDArray[np.int64], right: NDArray[np.bool_], count: int) -> float:
    """Return how often `count` of the views vote for the right answer, on average over `ORDERS` choices of them.

    pred, right: `[n, V]`. Where k answers have the most votes, one of them is right in 1 of k cases.
    """
    if count == 1:
        return float(right.mean())  # all of them, no choice
    rng, found = np.random.default_rng(0), 0.0
    orders = [rng.permutation(pred.shape[1]) for _ in range(ORDERS)]
    if count == pred.shape[1]:
        orders = orders[:1]
    for order in orders:
        own, hits = pred[:, order[:count]], right[:, order[:count]]
        votes = (own[:, :, None] == own[:, None, :]).sum(axis=2)
        most = votes.max(axis=1)
        tied = np.where(votes == most[:, None], 1 / votes, 0).sum(axis=1)
        found += float(np.where(hits.sum(axis=1) == most, 1 / tied, 0).mean())
    return found / len(orders)


def _resampled(values: Floats) -> Interval:
    """Return the mean in percent with its 95 % interval over videos."""
    lo, hi = np.quantile(resampled_means(values, np.arange(len(values)), 0, RESAMPLES), TAILS)
    return Interval(100 * float(values.mean()), 100 * float(lo), 100 * float(hi))
