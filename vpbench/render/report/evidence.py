"""What rows show, and what they do not: the rules behind every sentence of a report's summary.

Speed: claimed as "at least": the end of the interval, as far away as all settings of the context at once need, and
discounted by what dense against itself came out as, where that is not 1 to within 2 %. Accuracy: a difference is
claimed where its interval excludes 0 and its p-value, corrected after Holm, is below 5 %; a loss is bounded by
`rows.statistics.losses`, and "no loss" is a bound below `EPSILON_PP`. Where no difference is shown, equality is not
claimed. Controls are references: they are counted apart, and make no claim about a method harder
(docs/measurement.md, sections 6 and 7).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from vpbench.render.tables.cells import mid_p
from vpbench.render.tables.columns import ALPHA
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED
from vpbench.rows.kinds import Cell
from vpbench.rows.schema import Row
from vpbench.rows.statistics import controls, intervals, losses, paired
from vpbench.rows.statistics.intervals import Interval

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
class Speed(Verdict):
    """A comparison of speeds. `at_least`, `at_most`: bounds of the speed-up that hold for all settings at once.

    `discount`: what they allow for, as a factor, since dense against itself came out that far from 1.
    """

    at_least: float = 0.0
    at_most: float = math.inf
    discount: float = 1.0


@dataclass(frozen=True)
class Evidence:
    """What is shown of one cell against dense, and against random selection of as many tokens.

    `loss_bound_pp`: the largest loss that is not ruled out, for all settings at once; None where accuracy is not judged
    or nothing bounds it, negative where a gain is certain.
    """

    cell: Cell
    speed: Speed
    accuracy: Verdict
    loss_bound_pp: float | None
    random: Verdict

    @property
    def no_loss(self) -> bool:
        """A loss of `losses.EPSILON_PP` or more is ruled out."""
        return self.loss_bound_pp is not None and self.loss_bound_pp < losses.EPSILON_PP


@dataclass(frozen=True)
class _Question:
    """One kind of difference: why a cell cannot answer it (or ""), its interval, and its p-value."""

    refuse: Callable[[Cell], str]
    interval: Callable[[Cell], Interval | None]
    p_value: Callable[[Cell, Interval], float]


def judge(cells: Sequence[Cell]) -> list[Evidence]:
    """Judge the measured cells of one context but dense, settings and controls apart; in their order."""
    compared = [cell for cell in cells if cell["status"] in MEASURED and cell["method"] != "dense"]
    found: dict[int, Evidence] = {}
    bounds = losses.bounds_pp(compared)
    for kind in (False, True):
        places = [i for i, cell in enumerate(compared) if controls.is_control(cell) is kind]
        judged = _judged([compared[i] for i in places], [bounds[i] for i in places])
        found |= dict(zip(places, judged, strict=True))
    return [found[i] for i in range(len(compared))]


def _judged(cells: Sequence[Cell], bounds: Sequence[float | None]) -> list[Evidence]:
    """Judge cells that are compared with each other. bounds: of their losses."""
    accuracies, randoms = (_answer(question, cells) for question in (_ACCURACY, _RANDOM))
    timed = sum(not _unsound(cell) for cell in cells)
    return [
        Evidence(cell, _speed(cell, timed), accuracy, None if accuracy.state is State.none else bound, random)
        for cell, accuracy, bound, random in zip(cells, accuracies, bounds, randoms, strict=True)
    ]


def _speed(cell: Cell, among: int) -> Speed:
    """Judge the speed of a cell; a bound that touches 1 does not exclude it."""
    interval = _SPEEDUP(cell)
    if interval is None or (why := _unsound(cell)):
        return Speed(State.none, interval, why if interval is not None else "not timed beside dense")
    processes = cell["n_process"]
    df = None if processes is None or processes < intervals.PROCESSES else processes - 1
    further, discount = intervals.critical(among, df) / intervals.critical(1, df), _discount(cell)
    low = interval.value * (interval.lo / interval.value) ** further / discount
    high = interval.value * (interval.hi / interval.value) ** further * discount
    if interval.lo == interval.hi:  # rounds that were all alike show nothing
        return Speed(State.unclear, interval)
    state = State.better if low > 1 else State.worse if high < 1 else State.unclear
    return Speed(state, interval, at_least=low, at_most=high, discount=discount)


def _answer(question: _Question, cells: Sequence[Cell]) -> list[Verdict]:
    asked = [(question.interval(cell), question.refuse(cell)) for cell in cells]
    tested = {i: interval for i, (interval, why) in enumerate(asked) if interval is not None and not why}
    corrected = paired.holm([question.p_value(cells[i], interval) for i, interval in tested.items()])
    p_values = dict(zip(tested, corrected, strict=True))
    return [
        Verdict(_state(interval, p_values[i]), interval)
        if interval is not None and i in tested
        else Verdict(State.none, interval, why or "not measured")
        for i, (interval, why) in enumerate(asked)
    ]


def _state(interval: Interval, p_value: float) -> State:
    """An end that touches 0 does not exclude it."""
    if p_value < ALPHA and interval.lo > 0:
        return State.better
    return State.worse if p_value < ALPHA and interval.hi < 0 else State.unclear


def _discount(cell: Cell) -> float:
    """Return the factor that a speed-up may be wrong by, as dense against itself shows: 1 where that is sound."""
    lo, hi = cell["aa_ci_lo"], cell["aa_ci_hi"]
    sound = lo <= 1 <= hi and (hi - lo) / 2 <= intervals.AA_HALF_WIDTH
    return 1.0 if sound else max(hi, 1 / lo)


def _unsound(cell: Cell) -> str:
    """Say why nothing is claimed on a cell's speed; dense that differs from itself is no reason, but a discount."""
    if cell["speedup"] is None or cell["speedup_ci_lo"] is None:
        return "not timed beside dense"
    if cell["aa_ci_lo"] is None or cell["aa_ci_hi"] is None:
        return "dense was not timed against itself"
    if cell["noisy"] is None:
        return "not recorded whether the machine was quiet"
    if cell["noisy"] and (_discount(cell) == 1 or _disturbed(cell)):
        return "timed on a noisy machine"
    if cell["n_rounds"] is not None and cell["n_rounds"] < FEWEST_ROUNDS:
        return f"{cell['n_rounds']} rounds are too few for an interval"
    return ""


def _disturbed(cell: Cell) -> bool:
    """Say whether a noisy row had more wrong with it than dense that differs from itself, as far as rows tell."""
    busy, threads = cell["load_before"], cell["n_threads"]
    return bool(cell["recompiles"] or cell["throttled"] or (busy is not None and busy > 0.2 * (threads or 1)))


def _unjudged(cell: Cell) -> str:
    if cell["weights_kind"] == "random":
        return "the weights are random"
    if cell["delta_pp"] is None or cell["delta_ci_lo"] is None:
        return "no accuracy beside that of dense"
    if cell["status"] == "incomplete":
        return f"{cell['n_failed']} of {cell['n_expected']} {kinds.judged_unit(cell)}s could not be read"
    if cell["videos"] is None:
        return "not known how many videos it rests on"
    if cell["videos"] < intervals.FEWEST_VIDEOS:
        return f"{cell['videos']} video{'s are' if cell['videos'] != 1 else ' is'} too few for an interval"
    return ""


def _unmatched(cell: Cell) -> str:
    if controls.is_control(cell):
        return "a control itself"
    if cell["vs_random_pp"] is None:
        return "no random cell to compare with"
    if cell["vs_random_pp_lo"] is None:
        return "no random cell with as many tokens"
    return _unjudged(cell)


def _triple(value: str, lo: str, hi: str) -> Callable[[Cell], Interval | None]:
    def read(cell: Row) -> Interval | None:
        return None if cell[lo] is None or cell[hi] is None else Interval(cell[value], cell[lo], cell[hi])

    return read


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
    error = (interval.hi - interval.lo) / (2 * intervals.Z)
    return 1.0 if error == 0 else math.erfc(abs(interval.value) / error / math.sqrt(2))


_SPEEDUP = _triple("speedup", "speedup_ci_lo", "speedup_ci_hi")
_ACCURACY = _Question(_unjudged, _triple("delta_pp", "delta_ci_lo", "delta_ci_hi"), _accuracy_p)
_RANDOM = _Question(_unmatched, _triple("vs_random_pp", "vs_random_pp_lo", "vs_random_pp_hi"), _random_p)
