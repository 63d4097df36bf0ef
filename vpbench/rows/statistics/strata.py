"""Where rows lose: accuracy against dense, video by video, within groups of videos by what they show.

Groups are classes, thirds by motion, and thirds by how long places stand still; the latter two are properties of the
pixels that were stored with the predictions, the same for all rows. Two questions, each corrected over all rows:

- Which group loses? The paired difference in each group, with Tango's interval at Bonferroni's level over all groups
  of all settings (or controls) at once, and McNemar's mid-p after Holm over the same.
- Do groups differ? `sum_g n_g (d_g - d)^2` over the differences `d_g` of groups of `n_g` videos, against random
  assignments of the same videos to groups of these sizes; after Holm over rows. A row that loses in one group alone is
  not thereby shown to lose more there than elsewhere: this is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpbench.errors import NothingMeasured
from vpbench.rows.answers import UNKNOWN, Answers, answered
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls
from vpbench.rows.statistics.intervals import FEWEST_VIDEOS, Floats, Interval, Ints, critical
from vpbench.rows.statistics.paired import holm, mcnemar, paired_score_bound

#: random assignments of videos to groups
SHUFFLES = 2000
Right = NDArray[np.int8]
#: groups by motion, and by how long places stand still, with the least first
THIRDS = ("least", "middle", "most")


@dataclass(frozen=True)
class Groups:
    """Groups of videos: `names [G]`, and `of [V]`, the group of each of `videos [V]`; -1 for one of no group."""

    kind: str
    names: list[str]
    videos: list[str]
    of: Ints


@dataclass(frozen=True)
class Group:
    """A row in one group: videos, dense's accuracy in percent, videos lost and gained, and the difference in points.

    The interval holds for all groups and rows at once (95 %); `p_holm` likewise.
    """

    videos: int
    dense: float
    lost: int
    gained: int
    difference: Interval
    p_holm: float = 1.0


@dataclass(frozen=True)
class Where:
    """A row by groups, None where a group has too few videos; `p_holm`: that groups do not differ."""

    row: Result
    groups: list[Group | None]
    p_holm: float = 1.0


def classes(videos: pd.DataFrame) -> Groups:
    """Group videos by their class, by name where rows have names.

    videos: rows of the videos table with `video_id`, `label` and `label_name`, of one configuration.
    """
    known = videos[videos["label"].notna()]
    names = known["label_name"].fillna("class " + known["label"].astype(str)).astype(str)
    of, found = pd.factorize(names, sort=True)
    return Groups("class", found.tolist(), known["video_id"].astype(str).tolist(), of.astype(np.int64))


def thirds(clips: pd.DataFrame, column: str) -> Groups:
    """Group videos into thirds by the mean over their views of `motion` or `still` of the clips table.

    Raises NothingMeasured where rows do not have it, or all videos are alike.
    """
    known = clips[clips[column].notna()]
    if known.empty:
        raise NothingMeasured(f"{column} of the clips is not stored with these rows; newer runs store it (--force)")
    each = known.groupby("video_id")[column].mean().astype(float)
    values = each.to_numpy()
    cuts = np.quantile(values, (1 / 3, 2 / 3))
    of = np.searchsorted(cuts, values, side="left")
    if len(np.unique(of)) < len(THIRDS):
        raise NothingMeasured(f"{column} is alike in most of the videos: there are no thirds")
    ends = (values.min(), *cuts, values.max())
    spans = zip(THIRDS, ends[:-1], ends[1:], strict=True)
    names = [f"{name} ({low:.2g} to {high:.2g})" for name, low, high in spans]
    return Groups(column, names, each.index.astype(str).tolist(), of.astype(np.int64))


def of(rows: Sequence[Result], videos: pd.DataFrame, groups: Groups) -> list[Where]:
    """Return each row of a context but dense by groups, in their order.

    Raises NothingMeasured where labels or dense are missing, and where fewer than two groups have at
    least `FEWEST_VIDEOS` videos.
    """
    measured, dense = answered(rows)
    pruned = [row for row in measured if row["method"] != "dense"]
    if not pruned:
        raise NothingMeasured("nothing was measured beside dense")
    answers = Answers([row["config_id"] for row in measured], videos)
    of_video = dict(zip(groups.videos, groups.of.tolist(), strict=True))
    group = np.array([of_video.get(name, -1) for name in answers.ids.tolist()], np.int64)
    largest = np.bincount(group[group >= 0], minlength=len(groups.names))
    if (largest >= FEWEST_VIDEOS).sum() < 2:
        raise NothingMeasured(f"{largest.max(initial=0)} videos in a group are too few, {FEWEST_VIDEOS} are the fewest")
    whole, found = answers.of(dense["config_id"]), dict[int, Where]()
    for kind in (False, True):
        places = [i for i, row in enumerate(pruned) if controls.is_control(row) is kind]
        own = [(pruned[i], answers.of(pruned[i]["config_id"])) for i in places]
        lines = [_Line(row, whole, right, group, len(groups.names)) for row, right in own]
        found |= dict(zip(places, _judged(lines), strict=False))
    return [found[i] for i in sorted(found)]


class _Line:
    """A row on the videos that it and dense answered, and that have a group.

    `n`, `right`, `lost`, `gained` `[G]`: videos, right answers of dense, and of those that changed, by group.
    """

    def __init__(self, row: Result, dense: Right, own: Right, group: Ints, groups: int) -> None:
        both = (dense != UNKNOWN) & (own != UNKNOWN) & (group >= 0)
        gain = own[both].astype(np.int64) - dense[both]
        parts = (np.ones_like(gain), dense[both] == 1, gain < 0, gain > 0)
        counts = [np.bincount(group[both][part.astype(bool)], minlength=groups) for part in parts]
        self.row = row
        self.n, self.right, self.lost, self.gained = (each.astype(np.int64) for each in counts)

    def p_alike(self, rng: np.random.Generator) -> float:
        """Return how often groups differ by chance as much as they do: videos assigned to groups at random."""
        lost = _dealt(np.tile(self.n, (SHUFFLES, 1)), int(self.lost.sum()), rng)
        gained = _dealt(self.n - lost, int(self.gained.sum()), rng)
        seen, chance = self._apart(self.gained - self.lost), self._apart(gained - lost)
        return float((1 + (chance >= seen - 1e-9).sum()) / (1 + SHUFFLES))

    def _apart(self, gain: Ints) -> Floats:
        """Return how far groups are apart, but for what is the same for all assignments; gain: `[..., G]`."""
        some = self.n > 0
        apart: Floats = (gain[..., some] ** 2 / self.n[some]).sum(axis=-1)
        return apart


def _dealt(sizes: Ints, number: int, rng: np.random.Generator) -> Ints:
    """Deal so many to the places of groups of these sizes, `[D, G]`, at random; returns how many each gets."""
    left, rest = np.full(len(sizes), number), sizes.sum(axis=1)
    found = np.zeros_like(sizes)
    for group in range(sizes.shape[1]):
        rest = rest - sizes[:, group]
        found[:, group] = rng.hypergeometric(sizes[:, group], rest, left)
        left = left - found[:, group]
    return found


def _judged(lines: Sequence[_Line]) -> Iterator[Where]:
    """Judge rows that are compared with each other."""
    tested = [(i, g) for i, line in enumerate(lines) for g in np.flatnonzero(line.n >= FEWEST_VIDEOS).tolist()]
    if not tested:
        return
    n, lost, gained = (np.array([getattr(lines[i], name)[g] for i, g in tested]) for name in ("n", "lost", "gained"))
    away = critical(len(tested))
    low, high = paired_score_bound(lost, gained, n, away), -paired_score_bound(gained, lost, n, away)
    p_values = holm([mcnemar(b, c)[1] for b, c in zip(lost.tolist(), gained.tolist(), strict=True)])
    found: dict[tuple[int, int], Group] = {}
    for at, (i, g) in enumerate(tested):
        ends = Interval(100 * (gained[at] - lost[at]) / n[at], 100 * float(low[at]), 100 * float(high[at]))
        dense = 100 * lines[i].right[g] / n[at]
        found[i, g] = Group(int(n[at]), float(dense), int(lost[at]), int(gained[at]), ends, p_values[at])
    rng = np.random.default_rng(0)
    alike = holm([line.p_alike(rng) for line in lines])
    for i, line in enumerate(lines):
        yield Where(line.row, [found.get((i, g)) for g in range(len(line.n))], alike[i])
