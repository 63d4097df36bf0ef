"""A method beside random selection of as many tokens, and beside its own controls, video by video."""

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from vpbench.rows.answers import UNKNOWN, Answers
from vpbench.rows.kinds import Cell
from vpbench.rows.names import Names, own_params
from vpbench.rows.schema import Result
from vpbench.rows.statistics import paired as statistics_paired
from vpbench.rows.statistics.intervals import RESAMPLES, TAILS
from vpbench.rows.statistics.rounds import StoredRounds

#: a control is "at the same token count" up to this share
SAME_COUNT = 0.01
#: `<method>_random` and `<method>_uniform` select like `<method>`, without looking; for all others there is `random`
KINDS = ("random", "uniform")
_NOTHING: Cell = {
    "vs_random_pp": None, "vs_random_pp_lo": None, "vs_random_pp_hi": None, "vs_random_interpolated": None,
    "vs_random_p_mid": None, "vs_random_gmacs": None, "vs_random_speedup": None, "vs_random_speedup_lo": None,
    "vs_random_speedup_hi": None,
}  # fmt: skip


def beside_random(
    rows: Sequence[Result | None], videos: pd.DataFrame, rounds: StoredRounds | None = None
) -> list[Cell]:
    """Compare with random selection: paired where a cell of equal token count exists, else with its interpolated curve.

    Returns for each row, all null for None: `vs_random_pp`, the difference of top-1, with its 95 % interval (of an
    interpolated one, both curves on the same resampled videos; costs are as measured), `vs_random_interpolated`, and of
    the paired control McNemar's mid-p, the share of its GMACs that the row executes, and the speed-up over it with its
    95 % interval (where `rounds` has both, timed side by side).
    """
    measured = [row for row in rows if row is not None and row["top1"] is not None]
    answers = Answers([row["config_id"] for row in measured], videos)
    controls, curves = _Controls(measured), _Curves(measured)
    found = []
    for row in rows:
        if row is None or row["top1"] is None or row["method"] == "dense" or is_random(row):
            found.append(_NOTHING)
            continue
        names = ("random", f"{row['method']}_random")
        twin = controls.same_count(row, names)
        paired = None if twin is None else answers.paired(twin["config_id"], row["config_id"])
        if twin is not None and paired is not None:
            found.append(_beside(row, twin, paired, rounds))
        else:
            found.append(_interpolated(row, curves.at(row["gmacs_executed"], names), answers))
    return found


def _beside(row: Result, twin: Result, paired: statistics_paired.PairedDifference, rounds: StoredRounds | None) -> Cell:
    delta, gain = paired.delta_pp, None if rounds is None else rounds.speedup(row, twin)
    found = _NOTHING | {"vs_random_pp": delta.value, "vs_random_pp_lo": delta.lo, "vs_random_pp_hi": delta.hi}
    found |= {"vs_random_interpolated": False, "vs_random_p_mid": paired.p_mid}
    found |= {"vs_random_gmacs": row["gmacs_executed"] / twin["gmacs_executed"]}
    if gain is None:
        return found
    return found | {"vs_random_speedup": gain.value, "vs_random_speedup_lo": gain.lo, "vs_random_speedup_hi": gain.hi}


def _interpolated(row: Result, parts: Sequence[tuple[Result, float]], answers: Answers) -> Cell:
    """Compare with a mean of random cells, of which `parts` gives rows and weights; video by video, as it is linear."""
    if not parts:
        return _NOTHING
    expected = sum(weight * other["top1"] for other, weight in parts)
    found = _NOTHING | {"vs_random_pp": row["top1"] - expected, "vs_random_interpolated": True}
    seen = np.stack([answers.of(each["config_id"]) for each in (row, *(other for other, _ in parts))])
    both = (seen != UNKNOWN).all(axis=0)
    if not both.any():
        return found
    gain = seen[0, both] - np.array([weight for _, weight in parts]) @ seen[1:, both]
    drawn = statistics_paired.resampled_means(gain, answers.ids[both], 0, RESAMPLES)
    lo, hi = (100 * float(end) for end in np.quantile(drawn, TAILS))
    return found | {"vs_random_pp": 100 * float(gain.mean()), "vs_random_pp_lo": lo, "vs_random_pp_hi": hi}


def is_random(row: Result) -> bool:
    """Say whether a row is itself a random control."""
    method: str = row["method"]
    return method == "random" or method.endswith("_random")


def is_control(row: Result) -> bool:
    """Say whether a row is a reference and not a method to choose: random, a method's own control, or seeing less."""
    method: str = row["method"]
    return is_random(row) or method.endswith(tuple(f"_{kind}" for kind in KINDS)) or row["notes"] == "control"


def control_lines(rows: Sequence[Result], videos: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each row whose method has controls of its own: by how much it is better, if that is shown."""
    measured = {row["method"] for row in rows}
    own = [row for row in rows if any(f"{row['method']}_{kind}" in measured for kind in KINDS)]
    if not own:
        return
    controls, names = _Controls(rows), Names(rows)
    answers = Answers([row["config_id"] for row in rows], videos)
    for row in own:
        found = []
        for kind in KINDS:
            twin = controls.same_count(row, (f"{row['method']}_{kind}",))
            known = twin is not None and row["top1"] is not None
            paired = answers.paired(twin["config_id"], row["config_id"]) if twin is not None and known else None
            if paired is not None:
                by = paired.delta_pp
                verdict = "better" if by.lo > 0 else "worse" if by.hi < 0 else "not shown to be better"
                found.append(f"{verdict} than {kind} ({by.value:+.1f} [{by.lo:+.1f}, {by.hi:+.1f}] pp)")
        if found:
            keep = "" if row["keep_nominal"] is None else f" keep={row['keep_nominal']:g}"
            yield f"{row['method']}{keep} {names.setting(row)} at the same count: {', '.join(found)}"


class _Controls:
    """Finds the control that was made for a row, or one of the same nominal keep."""

    def __init__(self, rows: Iterable[Result]) -> None:
        self._made_for: dict[tuple[str, str], list[Result]] = {}
        self._at_keep: dict[tuple[str, float | None], list[Result]] = {}
        for row in rows:
            if row["matched_to"] is None:
                self._at_keep.setdefault((row["method"], row["keep_nominal"]), []).append(row)
            else:
                self._made_for.setdefault((row["method"], row["matched_to"]), []).append(row)

    def same_count(self, row: Result, names: Sequence[str]) -> Result | None:
        """Pick the best control of these names with the row's token count; same parameters and seed go first."""
        candidates: list[Result] = []
        for name in names:
            candidates += self._made_for.get((name, row["config_id"]), [])
            candidates += self._at_keep.get((name, row["keep_nominal"]), [])
        kept = row["tokens_kept_mean"]
        close = [r for r in candidates if abs(r["tokens_kept_mean"] - kept) <= SAME_COUNT * kept]
        own = own_params(row)
        return min(
            close,
            key=lambda r: (r["matched_to"] is None, own_params(r) != own, r["seed"] != row["seed"], r["seed"]),
            default=None,
        )


class _Curves:
    """Random selection over its cost; random that drops nothing is dense."""

    def __init__(self, rows: Iterable[Result]) -> None:
        self._rows: dict[str, list[Result]] = {}
        for row in rows:
            self._rows.setdefault(row["method"], []).append(row)
        self._known: dict[tuple[str, ...], dict[float, list[Result]]] = {}

    def at(self, gmacs: float, names: tuple[str, ...]) -> list[tuple[Result, float]]:
        """Return the rows of these, with their weights, whose mean is accuracy at a cost, linear in its logarithm.

        Rows of equal cost share their weight; none outside the measured range.
        """
        if names not in self._known:
            self._known[names] = self._by_cost(names)
        points = self._known[names]
        costs = list(points)
        if len(costs) < 2 or not costs[0] <= gmacs <= costs[-1]:
            return []
        after = max(1, bisect.bisect_left(costs, gmacs))
        before, behind = costs[after - 1], costs[after]
        share = math.log(gmacs / before) / math.log(behind / before)
        weights = {before: 1 - share, behind: share}
        return [(row, part / len(points[cost])) for cost, part in weights.items() if part for row in points[cost]]

    def _by_cost(self, names: tuple[str, ...]) -> dict[float, list[Result]]:
        found: dict[float, list[Result]] = {}
        for name in (*names, "dense"):
            for row in self._rows.get(name, []):
                found.setdefault(row["gmacs_executed"], []).append(row)
        return dict(sorted(found.items()))
