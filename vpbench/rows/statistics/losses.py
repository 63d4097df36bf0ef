"""The largest loss that is not ruled out, for all settings that are chosen from at once (docs/measurement.md, 6).

Settings are ranked by it: among many, one whose loss was merely not shown is the one that was measured luckily. Bounds
are Bonferroni's, each at 2.5 % over the number of settings, so that all hold at once with 97.5 %, however the settings'
answers depend on each other, and one setting more never makes any of them smaller.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vpbench.rows.contexts import MEASURED, judged
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls, paired
from vpbench.rows.statistics.intervals import Z, critical

#: "no loss" is shown where the bound of the loss lies below this
EPSILON_PP = 0.5


def comparisons(rows: Sequence[Result]) -> dict[bool, int]:
    """Count what is compared with dense in a context: settings at False, and, apart as references, controls at True."""
    compared = [row for row in rows if row["status"] in MEASURED and row["delta_ci_lo"] is not None]
    kinds = [controls.is_control(row) for row in compared if row["method"] != "dense"]
    return {kind: max(1, kinds.count(kind)) for kind in (False, True)}


def bounds_pp(rows: Sequence[Result]) -> list[float | None]:
    """Return the bound of each row of a context, among what it is compared with; see `bound_pp`."""
    among = comparisons(rows)
    found: dict[int, float | None] = {}
    for kind, number in among.items():
        own = [i for i, row in enumerate(rows) if controls.is_control(row) is kind]
        found |= dict(zip(own, _bounds_pp([rows[i] for i in own], number), strict=True))
    return [found[i] for i in range(len(rows))]


def bound_pp(row: Result, among: int = 1) -> float | None:
    """Return the largest loss of a row against dense that is not ruled out, in points; below 0 where a gain is certain.

    `among`: the settings that are chosen from. The larger of two: the end of the bootstrap's interval, as far away as
    so many settings need, and Tango's score bound, which knows how little it means that few answers differ. Where
    the bootstrap, which keeps the clips of a video together, is wider than independent pairs would be, the score counts
    as many fewer pairs (Rao & Scott 1992). None where the difference or its interval is unknown, and where detectors'
    interval has no width: samples that were all alike bound nothing.
    """
    return _bounds_pp([row], among)[0]


def _bounds_pp(rows: Sequence[Result], among: int) -> list[float | None]:
    away, scores = critical(among), dict[int, tuple[float, float, float]]()
    found: list[Any] = [_stretched(row, away) for row in rows]
    for i, row in enumerate(rows):
        if found[i] is not None and row["disc_b"] is not None and row["disc_c"] is not None and judged(row):
            fewer = _fewer(row)
            scores[i] = (row["disc_b"] / fewer, row["disc_c"] / fewer, judged(row) / fewer)
    if scores:
        lost, gained, pairs = np.array(list(scores.values())).T
        bounds = paired.paired_score_bound(lost, gained, pairs, away)
        for i, bound in zip(scores, bounds.tolist(), strict=True):
            found[i] = max(found[i], -100 * bound)
    return found


def _stretched(row: Result, away: float) -> float | None:
    """Return the loss at the lower end of the bootstrap's interval, moved as far out as so many comparisons need."""
    value, lo, hi = row["delta_pp"], row["delta_ci_lo"], row["delta_ci_hi"]
    if row["method"] == "dense" or value is None or lo is None or hi is None:
        return None
    if row["disc_b"] is None and hi == lo:
        return None
    found: float = (value - lo) * away / Z - value
    return found


def _fewer(row: Result) -> float:
    """Return how many pairs count as one: by how much the bootstrap's variance is above that of independent pairs."""
    b, c, n = row["disc_b"], row["disc_c"], judged(row)
    error = 100 * math.sqrt(max(0.0, (b + c) / n - ((c - b) / n) ** 2) / n)
    seen = (row["delta_ci_hi"] - row["delta_ci_lo"]) / (2 * Z)
    return max(1.0, (seen / error) ** 2) if error else 1.0
