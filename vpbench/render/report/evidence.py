"""What rows show, and what they do not: the rules behind every sentence of a report's summary.

Speed: claimed where the machine was quiet, dense against itself came out equal (its interval holds 1 and is at most 2 %
wide to either side), the interval of the speed-up excludes 1, and that survives Holm's correction over the settings of
the context. Accuracy: a difference is claimed where its interval excludes 0 and its p-value, corrected in the same way,
is below 5 %; "no loss" where both the bootstrap interval and Tango's score test rule out a loss of `EPSILON_PP`. Where
no difference is shown, equality is not claimed (docs/measurement.md, sections 6 and 7).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vpbench.render.tables.cells import EPSILON_PP, mid_p
from vpbench.render.tables.columns import ALPHA
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED, judged
from vpbench.rows.kinds import Cell
from vpbench.rows.schema import Row
from vpbench.rows.statistics import controls, intervals, paired
from vpbench.rows.statistics.intervals import Interval

#: intervals over fewer videos promise too much
FEWEST_VIDEOS = 20
#: the smallest number of rounds whose extremes enclose the median with 95 %
FEWEST_ROUNDS = 6


class State(StrEnum):
    """How a comparison came out."""

    better = "better"
    worse = "worse"
    unclear = "not shown to differ"
    none = "no claim"


@dataclass(frozen=True)
class Verdict:
    """A comparison: how it came out, its estimate with the 95 % interval, and why nothing is claimed where `none`."""

    state: State
    interval: Interval | None = None
    why: str = ""


@dataclass(frozen=True)
class Evidence:
    """What is shown of one cell against dense, and against random selection of as many tokens.

    `no_loss`: a loss of `EPSILON_PP` or more is ruled out. `loss_bound_pp`: the largest loss that is not ruled out;
    None where accuracy is not judged, negative where a gain is certain.
    """

    cell: Cell
    speed: Verdict
    accuracy: Verdict
    no_loss: bool
    loss_bound_pp: float | None
    random: Verdict


@dataclass(frozen=True)
class _Question:
    """One kind of comparison: why a cell cannot answer it (or ""), its interval, its p-value, and what is equal."""

    refuse: Callable[[Cell], str]
    interval: Callable[[Cell], Interval | None]
    p_value: Callable[[Cell, Interval], float]
    equal: float


def judge(cells: Sequence[Cell]) -> list[Evidence]:
    """Judge the measured cells of one context but dense; corrections for several comparisons span all of them."""
    compared = [cell for cell in cells if cell["status"] in MEASURED and cell["method"] != "dense"]
    speeds, accuracies, randoms = (_answer(question, compared) for question in (_SPEED, _ACCURACY, _RANDOM))
    spared = _no_loss(compared, accuracies)
    return [
        Evidence(cell, speed, accuracy, no_loss, _loss_bound(cell, accuracy), random)
        for cell, speed, accuracy, no_loss, random in zip(compared, speeds, accuracies, spared, randoms, strict=True)
    ]


def _answer(question: _Question, cells: Sequence[Cell]) -> list[Verdict]:
    asked = [(question.interval(cell), question.refuse(cell)) for cell in cells]
    tested = {i: interval for i, (interval, why) in enumerate(asked) if interval is not None and not why}
    corrected = paired.holm([question.p_value(cells[i], interval) for i, interval in tested.items()])
    p_values = dict(zip(tested, corrected, strict=True))
    return [
        Verdict(_state(interval, p_values[i], question.equal), interval)
        if interval is not None and i in tested
        else Verdict(State.none, interval, why or "not measured")
        for i, (interval, why) in enumerate(asked)
    ]


def _state(interval: Interval, p_value: float, equal: float) -> State:
    """An end that touches `equal` does not exclude it."""
    if p_value < ALPHA and interval.lo > equal:
        return State.better
    return State.worse if p_value < ALPHA and interval.hi < equal else State.unclear


def _control_fault(row: Cell) -> str:
    """Say what is wrong with the A/A control (dense timed against itself) of a row's block; empty if nothing is."""
    lo, hi = row["aa_ci_lo"], row["aa_ci_hi"]
    if lo is None or hi is None:
        return "dense was not timed against itself"
    found = f"{row['aa_ratio']:.3f} [{lo:.3f}, {hi:.3f}]"
    if not lo <= 1 <= hi:
        return f"dense against itself came out as {found}, not 1"
    if (hi - lo) / 2 > intervals.AA_HALF_WIDTH:
        return f"dense against itself is known to {100 * (hi - lo) / 2:.1f} % only: {found}"
    return ""


def _unsound(cell: Cell) -> str:
    if cell["speedup"] is None or cell["speedup_ci_lo"] is None:
        return "not timed beside dense"
    if fault := _control_fault(cell):
        return fault
    if cell["noisy"] is None:
        return "not recorded whether the machine was quiet"
    if cell["noisy"]:
        return "timed on a noisy machine"
    if cell["n_rounds"] is not None and cell["n_rounds"] < FEWEST_ROUNDS:
        return f"{cell['n_rounds']} rounds are too few for an interval"
    return ""


def _unjudged(cell: Cell) -> str:
    if cell["weights_kind"] == "random":
        return "the weights are random"
    if cell["delta_pp"] is None or cell["delta_ci_lo"] is None:
        return "no accuracy beside that of dense"
    if cell["status"] == "incomplete":
        return f"{cell['n_failed']} of {cell['n_expected']} {kinds.judged_unit(cell)}s could not be read"
    if cell["videos"] is None:
        return "not known how many videos it rests on"
    if cell["videos"] < FEWEST_VIDEOS:
        return f"{cell['videos']} video{'s are' if cell['videos'] != 1 else ' is'} too few for an interval"
    return ""


def _unmatched(cell: Cell) -> str:
    if controls.is_random(cell):
        return "random itself"
    if cell["vs_random_pp"] is None:
        return "no random cell to compare with"
    if cell["vs_random_pp_lo"] is None:
        return "no random cell with as many tokens"
    return _unjudged(cell)


def _triple(value: str, lo: str, hi: str) -> Callable[[Cell], Interval | None]:
    def read(cell: Row) -> Interval | None:
        return None if cell[lo] is None or cell[hi] is None else Interval(cell[value], cell[lo], cell[hi])

    return read


def _ratio_p(cell: Cell, interval: Interval) -> float:
    return _p_around(Interval(*(math.log(end) for end in (interval.value, interval.lo, interval.hi))))


def _accuracy_p(cell: Cell, interval: Interval) -> float:
    known = mid_p(cell)
    return _p_around(interval) if known is None else known


def _random_p(cell: Cell, interval: Interval) -> float:
    known: float | None = cell["vs_random_p_mid"]
    return _p_around(interval) if known is None else known


def _p_around(interval: Interval) -> float:
    """Return the two-sided p-value of "it is 0" that a normal estimate with this 95 % interval has.

    An interval without width comes from samples that were all alike: it shows nothing.
    """
    error = _standard_error(interval)
    return 1.0 if error == 0 else math.erfc(abs(interval.value) / error / math.sqrt(2))


def _standard_error(interval: Interval) -> float:
    return (interval.hi - interval.lo) / (2 * intervals.Z)


_SPEED = _Question(_unsound, _triple("speedup", "speedup_ci_lo", "speedup_ci_hi"), _ratio_p, equal=1)
_ACCURACY = _Question(_unjudged, _triple("delta_pp", "delta_ci_lo", "delta_ci_hi"), _accuracy_p, equal=0)
_RANDOM = _Question(_unmatched, _triple("vs_random_pp", "vs_random_pp_lo", "vs_random_pp_hi"), _random_p, equal=0)


def _no_loss(cells: Sequence[Cell], accuracies: Sequence[Verdict]) -> list[bool]:
    """Say of which cells a loss of `EPSILON_PP` is ruled out, with Holm's correction over all that were judged."""
    tested = {i: v.interval for i, v in enumerate(accuracies) if v.state is not State.none and v.interval is not None}
    corrected = paired.holm([_loss_p(cells[i], interval) for i, interval in tested.items()])
    p_values = dict(zip(tested, corrected, strict=True))
    return [
        i in tested and paired.no_loss(tested[i], EPSILON_PP) and p_values[i] < ALPHA / 2 for i in range(len(cells))
    ]


def _loss_p(cell: Cell, interval: Interval) -> float:
    """Return the one-sided p-value of "it loses `EPSILON_PP` or more"."""
    if cell["disc_b"] is not None and cell["disc_c"] is not None:
        z = paired.paired_score(cell["disc_b"], cell["disc_c"], judged(cell), -EPSILON_PP / 100)
    elif error := _standard_error(interval):
        z = (interval.value + EPSILON_PP) / error
    else:
        return 1.0
    return math.erfc(z / math.sqrt(2)) / 2


def _loss_bound(cell: Cell, accuracy: Verdict) -> float | None:
    if accuracy.state is State.none or accuracy.interval is None:
        return None
    if cell["disc_b"] is None or cell["disc_c"] is None:
        return -accuracy.interval.lo
    score = 100 * paired.paired_score_bound(cell["disc_b"], cell["disc_c"], judged(cell))
    return -min(accuracy.interval.lo, score)
