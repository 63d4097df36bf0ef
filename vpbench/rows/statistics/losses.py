"""The largest loss that is not ruled out, for all settings that are chosen from at once (docs/measurement.md, 6).

Settings are ranked by it: among many, one whose loss was merely not shown is the one that was measured luckily. Bounds
are Bonferroni's, each at 2.5 % over the number of settings, so that all hold at once with 97.5 %, however the settings'
answers depend on each other, and one setting more never makes any of them smaller.
"""

import math
from collections.abc import Sequence

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
    """Return the bound of each row of a context, among what it is compared with."""
    among = comparisons(rows)
    return [bound_pp(row, among[controls.is_control(row)]) for row in rows]


def bound_pp(row: Result, among: int = 1) -> float | None:
    """Return the largest loss of a row against dense that is not ruled out, in points; below 0 where a gain is certain.

    `among`: the settings that are chosen from. The larger of two: the end of the bootstrap's interval, as far away as
    so many settings need, and Tango's score bound, which knows how little it means that few answers differ. Where
    the bootstrap, which keeps the clips of a video together, is wider than independent pairs would be, the score counts
    as many fewer pairs (Rao & Scott 1992). None where the difference or its interval is unknown, and where detectors'
    interval has no width: samples that were all alike bound nothing.
    """
    value, lo, hi = row["delta_pp"], row["delta_ci_lo"], row["delta_ci_hi"]
    if row["method"] == "dense" or value is None or lo is None or hi is None:
        return None
    away = critical(among)
    stretched = (value - lo) * away / Z - value
    b, c, n = row["disc_b"], row["disc_c"], judged(row)
    if b is None or c is None or not n:
        return None if hi == lo else stretched
    fewer = max(1.0, ((hi - lo) / (2 * Z)) ** 2 / error**2) if (error := _error_pp(b, c, n)) else 1.0
    return max(stretched, -100 * paired.paired_score_bound(b / fewer, c / fewer, n / fewer, away))


def _error_pp(b: int, c: int, n: int) -> float:
    """Return the standard error of `(c - b) / n` of independent pairs, in points."""
    return 100 * math.sqrt(max(0.0, (b + c) / n - ((c - b) / n) ** 2) / n)
