"""More frames pruned harder, or fewer frames dense: rows of one budget of tokens over clips of different lengths.

A budget is what was asked for: the keep ratio times the tokens of the dense clip. Dense has the budget of its clip.
Rows of different lengths are contexts of their own; here those are joined that differ in nothing else but whether their
positions were interpolated or recomputed for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from vpbench.errors import NothingMeasured
from vpbench.rows.answers import Answers
from vpbench.rows.contexts import CONTEXT, MEASURED, plain
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls
from vpbench.rows.statistics.intervals import FEWEST_VIDEOS
from vpbench.rows.statistics.paired import PairedDifference, holm

#: what rows of one budget may differ in
LENGTH = ("frames", "positions")


@dataclass(frozen=True)
class Spent:
    """A row at a budget of `tokens`. `difference`: to dense with exactly these tokens, on the same videos.

    `p_holm`: McNemar's mid-p of that, after Holm over the settings, or the controls, of all budgets together.
    """

    tokens: int
    row: Result
    difference: PairedDifference | None
    p_holm: float | None = None


def joined(results: pd.DataFrame) -> list[list[Result]]:
    """Return the measured rows of each group that has clips of several lengths."""
    rows = results[results["status"].isin(MEASURED) & results["top1"].notna()]
    if rows.empty:
        return []
    groups = rows.groupby([name for name in CONTEXT if name not in LENGTH], dropna=False, sort=True)
    return [plain(group) for _, group in groups if group["frames"].nunique() > 1]


def budget(row: Result) -> int | None:
    """Return the tokens that a row was asked to leave of a clip; None where it was asked for something else."""
    if row["method"] == "dense":
        return row["tokens_dense"]
    return None if row["keep_nominal"] is None else round(row["keep_nominal"] * row["tokens_dense"])


def of(rows: Sequence[Result], videos: pd.DataFrame) -> list[Spent]:
    """Return the rows of one group by budget, for budgets that were spent on clips of several lengths.

    Raises NothingMeasured where there is no such budget, and below `FEWEST_VIDEOS` videos.
    """
    by_budget: dict[int, list[Result]] = {}
    for row in rows:
        if (tokens := budget(row)) is not None:
            by_budget.setdefault(tokens, []).append(row)
    shared = {tokens: own for tokens, own in sorted(by_budget.items()) if len({row["frames"] for row in own}) > 1}
    if not shared:
        raise NothingMeasured("no budget of tokens was spent on clips of several lengths; sweep with --budget-tokens")
    answers = Answers([row["config_id"] for own in shared.values() for row in own], videos)
    if len(answers.ids) < FEWEST_VIDEOS:
        raise NothingMeasured(f"{len(answers.ids)} videos are too few, {FEWEST_VIDEOS} are the fewest")
    found = [each for tokens, own in shared.items() for each in _of(tokens, own, answers)]
    return _corrected(found)


def _of(tokens: int, rows: Sequence[Result], answers: Answers) -> list[Spent]:
    whole = [row for row in rows if row["method"] == "dense"]
    newest = max(whole, key=lambda row: row["timestamp_utc"], default=None)
    ordered = sorted((row for row in rows if row["method"] != "dense"), key=_order)
    found = [] if newest is None else [Spent(tokens, newest, None)]
    for row in ordered:
        paired = None if newest is None else answers.paired(newest["config_id"], row["config_id"])
        found.append(Spent(tokens, row, paired))
    return found


def _order(row: Result) -> tuple[bool, str, int, str, int]:
    return not controls.is_random(row), row["method"], row["frames"], row["method_params"], row["seed"]


def _corrected(found: Sequence[Spent]) -> list[Spent]:
    p_values: dict[int, float] = {}
    for kind in (False, True):
        own = {
            i: each.difference.p_mid
            for i, each in enumerate(found)
            if each.difference is not None and controls.is_control(each.row) is kind
        }
        p_values |= dict(zip(own, holm(list(own.values())), strict=True))
    return [Spent(each.tokens, each.row, each.difference, p_values.get(i)) for i, each in enumerate(found)]
