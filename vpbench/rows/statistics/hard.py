"""Accuracy on hard videos: those that the cheapest way to spend as little gets wrong.

Seeing smaller or fewer frames, or dropping tokens at random, answers most videos; methods differ on the rest. A row's
hard videos are those that one control with as many tokens gets wrong, so all is conditional on that control's errors:

- the control itself is never right there, so it has no line;
- another draw of it is right there by luck alone, and says how much of being hard is luck (`luck`);
- whatever answers like the control is low there by construction. Rows with the same control are judged on the same
  videos, and dense on each row's, so they compare with each other and with dense, but not with accuracy on all videos.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpbench.errors import NothingMeasured
from vpbench.rows.answers import UNKNOWN, Answers, answered
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls
from vpbench.rows.statistics.intervals import FEWEST_VIDEOS, Interval, wilson
from vpbench.rows.statistics.paired import PairedDifference, holm, paired_difference

#: controls, the cheapest first: smaller frames, fewer frames, tokens at random
CHEAPEST = ("downsample", "frame_stride", "random")
#: a control has as many tokens as a row up to this share: sides of frames come in steps
NEAR = 0.1


@dataclass(frozen=True)
class Side:
    """Some of the videos: accuracy there in percent with Wilson's interval, dense's, and the paired difference."""

    videos: int
    top1: Interval
    dense: Interval
    difference: PairedDifference


@dataclass(frozen=True)
class Hard:
    """A row on the videos that `control` gets wrong (`hard`) and right (`easy`, None where there is none).

    `luck`: the row is another draw of its control. `p_holm`: McNemar's mid-p of the difference to dense on the hard
    videos, corrected after Holm over the settings, or the controls, of the context.
    """

    row: Result
    control: Result
    hard: Side
    easy: Side | None
    luck: bool
    p_holm: float = 1.0


def of(rows: Sequence[Result], videos: pd.DataFrame) -> list[Hard]:
    """Return each row of a context but dense on its hard videos, in their order.

    Raises NothingMeasured where no row has hard videos, or at least `FEWEST_VIDEOS` of them.
    """
    measured, dense = answered(rows)
    answers = Answers([row["config_id"] for row in measured], videos)
    found, most = list[Hard](), -1
    for row in measured:
        control = None if row["method"] == "dense" else cheapest(row, measured)
        if control is None:
            continue
        each, hard = _of(row, control, dense, answers)
        most = max(most, hard)
        found += [] if each is None else [each]
    if most < 0:
        raise NothingMeasured(f"no {', '.join(CHEAPEST)} with as many tokens as a method (within {NEAR:.0%})")
    if not found:
        raise NothingMeasured(f"{most} hard videos are too few, {FEWEST_VIDEOS} are the fewest")
    return list(_corrected(found))


def cheapest(row: Result, rows: Sequence[Result]) -> Result | None:
    """Return the cheapest control with as many tokens as a row; of several draws that of its seed. None without any."""
    kept = row["tokens_kept_mean"]
    for kind in CHEAPEST:
        near = [
            other
            for other in rows
            if other["method"] == kind
            and other["config_id"] != row["config_id"]
            and abs(other["tokens_kept_mean"] - kept) <= NEAR * kept
        ]
        if near:
            return min(near, key=lambda other: _distance(row, other))
    return None


def _distance(row: Result, other: Result) -> tuple[bool, float, bool, int]:
    made_for = other["matched_to"] == row["config_id"]
    apart = abs(other["tokens_kept_mean"] - row["tokens_kept_mean"])
    return not made_for, apart, other["seed"] != row["seed"], other["seed"]


def _of(row: Result, control: Result, dense: Result, answers: Answers) -> tuple[Hard | None, int]:
    """Return a row on the videos that all three answered, None where too few are hard, and how many are."""
    own, whole, chosen = (answers.of(each["config_id"]) for each in (row, dense, control))
    known = (own != UNKNOWN) & (whole != UNKNOWN) & (chosen != UNKNOWN)
    hard, easy = known & (chosen == 0), known & (chosen == 1)
    if hard.sum() < FEWEST_VIDEOS:
        return None, int(hard.sum())
    sides = [_side(whole[each] == 1, own[each] == 1) if each.any() else None for each in (hard, easy)]
    assert sides[0] is not None
    luck = row["method"] == control["method"] or (controls.is_random(row) and controls.is_random(control))
    return Hard(row, control, sides[0], sides[1], luck), int(hard.sum())


def _side(dense: NDArray[np.bool_], own: NDArray[np.bool_]) -> Side:
    mine, theirs = (_percent(wilson(int(right.sum()), len(right))) for right in (own, dense))
    return Side(len(own), mine, theirs, paired_difference(dense, own, np.arange(len(own))))


def _percent(share: Interval) -> Interval:
    return Interval(100 * share.value, 100 * share.lo, 100 * share.hi)


def _corrected(found: Sequence[Hard]) -> Iterator[Hard]:
    p_values: dict[int, float] = {}
    for kind in (False, True):
        own = {i: each.hard.difference.p_mid for i, each in enumerate(found) if controls.is_control(each.row) is kind}
        p_values |= dict(zip(own, holm(list(own.values())), strict=True))
    return (replace(each, p_holm=p_values[i]) for i, each in enumerate(found))
