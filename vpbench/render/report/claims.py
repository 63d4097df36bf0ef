"""Sentences about one context, each no stronger than the evidence: the summary of a report."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vpbench.render.report.evidence import Evidence, Speed, State, Verdict
from vpbench.render.tables.columns import CAVEAT
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED
from vpbench.rows.kinds import Cell
from vpbench.rows.statistics import controls, pareto, power
from vpbench.rows.statistics.intervals import Interval
from vpbench.rows.statistics.losses import EPSILON_PP

#: names of cells by `config_id`
Named = Mapping[str, str]
#: settings that the answer names, from the one that loses least to the fastest
_STEPS = 4
#: what the columns of a summary are
SUMMARY = ("setting", "speed-up, at least", "loses at most, pp", "against random")
#: random selection wants so many seeds before its curve means more than one draw
RANDOM_SEEDS = 5


@dataclass(frozen=True)
class Claims:
    """What a context allows to say: the answer to "which method?", a line per method, and what is not said.

    front: what lies on it as measured, which is no answer. summary: the lines on methods in a few signs each, as the
    columns of `SUMMARY`.
    """

    answer: list[str]
    front: list[str]
    methods: list[str]
    limits: list[str]
    summary: list[tuple[str, str, str, str]]


def of(cells: Sequence[Cell], judged: Sequence[Evidence]) -> Claims:
    """Word what `judge` found among all cells of one context, failed ones and dense included."""
    named = names(cells)
    chosen = _chosen(judged)
    return Claims(
        _answer(cells, judged, named),
        _front(cells) if any(e.accuracy.state is not State.none for e in judged) else [],
        _methods(chosen, named),
        _limits(cells, judged),
        _summary(chosen, named),
    )


def names(cells: Sequence[Cell]) -> dict[str, str]:
    """Name cells, by `config_id`: method and keep ratio, and what else is needed to tell them apart."""
    shared = Counter((cell["method"], cell["keep_nominal"]) for cell in cells)
    found = {cell["config_id"]: _name(cell, shared[cell["method"], cell["keep_nominal"]] > 1) for cell in cells}
    twins = Counter(found.values())  # the same setting of another version of the code
    return {key: f"{name} [{key[:8]}]" if twins[name] > 1 else name for key, name in found.items()}


def _name(cell: Cell, ambiguous: bool) -> str:
    keep = "" if cell["keep_nominal"] is None else f" at keep {cell['keep_nominal']:g}"
    setting = f" ({cell['setting']})" if cell["setting"] and (ambiguous or not keep) else ""
    return f"{cell['method']}{keep}{setting}"


def quality(cells: Sequence[Cell]) -> str:
    """Name the accuracy of a context's cells."""
    return "mAP50" if any(kinds.detects(cell) for cell in cells) else "top-1"


def verdict(evidence: Evidence) -> str:
    """Say in a few words what is shown of a cell, for its line of the table."""
    speed = {State.better: "faster", State.worse: "slower", State.unclear: "speed unclear", State.none: ""}
    kind = quality([evidence.cell])
    accuracy = {State.better: f"{kind} higher", State.worse: f"{kind} lower"}
    random = {State.better: "beats random", State.worse: "below random", State.unclear: "random unclear"}
    words = [speed[evidence.speed.state], accuracy.get(evidence.accuracy.state, "")]
    words += [_at_most(evidence), random.get(evidence.random.state, "")]
    return ", ".join(word for word in words if word) or "no claim"


def _answer(cells: Sequence[Cell], judged: Sequence[Evidence], named: Named) -> list[str]:
    if not any(cell["status"] in MEASURED for cell in cells):
        return ["Nothing was measured; the reasons are listed below."]
    if not any(cell["status"] in MEASURED and cell["method"] == "dense" for cell in cells):
        return [
            "Dense was not measured here, so nothing is said about speed-up or loss. Measure it with --method dense."
        ]
    if not judged:
        return ["Only dense was measured: there is nothing to compare."]
    fair = [e for e in judged if not e.cell["caveat"] and not controls.is_control(e.cell)]
    return _recommended(fair, quality(cells), named)


def _recommended(fair: Sequence[Evidence], kind: str, named: Named) -> list[str]:
    """Answer with the fastest setting that is shown to lose nothing, or with what each step of speed costs at most."""
    faster = sorted((e for e in fair if e.speed.state is State.better), key=_least_speed, reverse=True)
    if not faster:
        return [f"No setting is shown to be faster than dense{_why([e.speed for e in fair])}."]
    first = faster[0]
    if all(e.accuracy.state is State.none for e in faster):
        fastest = f"Fastest is {_named(first, named)}, {_times(first.speed)}{_rivals(faster, named)}."
        return [fastest, f"Nothing is said about {kind}{_why([e.accuracy for e in faster])}."]
    if spared := [e for e in faster if e.no_loss]:
        line = f"{_named(spared[0], named)} is {_times(spared[0].speed)}, and {_at_most(spared[0])} {kind}"
        return [f"{line} ({_points(spared[0].accuracy)}){_rivals(spared, named)}."]
    answer = [f"For no setting that is faster than dense is a loss of {EPSILON_PP:g} pp {kind} or more ruled out."]
    losing = sum(e.accuracy.state is State.worse for e in faster)
    return (
        answer
        + _steps(faster, kind, named)
        + [f"{losing} of the {len(faster)} faster settings lose {kind}."] * (losing > 0)
    )


def _steps(faster: Sequence[Evidence], kind: str, named: Named) -> list[str]:
    """Name settings from the one whose loss is bounded best on, each shown to be faster than by the one before it."""
    steps: list[Evidence] = []
    for each in sorted((e for e in faster if e.loss_bound_pp is not None), key=_loss):
        if not steps or each.speed.at_least > steps[-1].speed.at_least:
            steps.append(each)
    if len(steps) > _STEPS:
        steps = [steps[round(k * (len(steps) - 1) / (_STEPS - 1))] for k in range(_STEPS)]
    said = [f"{_named(e, named)} {_at_most(e)} and is at least {_floor(e.speed)} as fast" for e in steps]
    return [f"What is shown of {kind} and speed: {'; '.join(said)}."] if said else []


def _rivals(ranked: Sequence[Evidence], named: Named) -> str:
    """Name the settings whose speed-ups overlap that of the first: it is not shown to be faster than they are."""
    first = ranked[0].speed.interval
    if first is None:
        return ""
    near = [e for e in ranked[1:] if e.speed.interval is not None and e.speed.interval.hi >= first.lo]
    if not near:
        return ""
    more = f" and {len(near) - 3} more" if len(near) > 3 else ""
    return f"; not shown to be slower: {', '.join(_named(e, named) for e in near[:3])}{more}"


def _front(cells: Sequence[Cell]) -> list[str]:
    """Name what no other setting beats in both accuracy and operations, as measured; it is no test."""
    kind: Literal["map50", "top1"] = "map50" if quality(cells) == "mAP50" else "top1"
    fair = [
        c for c in cells if c["status"] in MEASURED and not c["caveat"] and c["gmacs_executed"] and c[kind] is not None
    ]
    if len({c["method"] for c in fair}) < 2:
        return []
    front = pareto.front([c["gmacs_executed"] for c in fair], [c[kind] for c in fair])
    by_method: dict[str, list[str]] = {}
    for i in front:
        keep = fair[i]["keep_nominal"]
        by_method.setdefault(fair[i]["method"], []).append("" if keep is None else f"{keep:g}")
    members = [f"{method}{_keeps(keeps)}" for method, keeps in by_method.items()]
    return [f"On the front of {quality(cells)} against GMACs, as measured and without a test: {', '.join(members)}."]


def _keeps(keeps: Sequence[str]) -> str:
    known = list(dict.fromkeys(keep for keep in keeps if keep))
    return f" (keep {', '.join(known)})" if known else ""


def _chosen(judged: Sequence[Evidence]) -> list[tuple[Evidence, str]]:
    """Return one setting of each method, controls last, and how it was picked; nothing is said where it is alone."""
    by_method: dict[str, list[Evidence]] = {}
    for evidence in sorted(judged, key=lambda each: controls.is_control(each.cell)):
        by_method.setdefault(evidence.cell["method"], []).append(evidence)
    picked = [(own, *_representative(own)) for own in by_method.values()]
    return [(evidence, which if len(own) > 1 else "") for own, evidence, which in picked]


def _methods(chosen: Sequence[tuple[Evidence, str]], named: Named) -> list[str]:
    """Return a sentence per method about one of its settings."""
    lines = []
    for evidence, which in chosen:
        parts = [_speed_words(evidence), _accuracy_words(evidence)]
        if not controls.is_control(evidence.cell):
            parts.append(_random_words(evidence))
        which = f" ({which})" if which else ""
        caveat = f" Not to be compared: {evidence.cell['caveat']}." if evidence.cell["caveat"] else ""
        lines.append(f"{_named(evidence, named)}{which}: {'; '.join(parts)}.{caveat}")
    return lines


def _summary(chosen: Sequence[tuple[Evidence, str]], named: Named) -> list[tuple[str, str, str, str]]:
    """Return the same as a table, in which nothing stands for what is not claimed."""
    random = {State.better: "better", State.worse: "worse", State.unclear: "unclear", State.none: ""}
    lines = []
    for evidence, _ in chosen:
        speed, bound = evidence.speed, _points_at_most(evidence)
        floor = {State.better: _floor(speed), State.worse: "slower", State.unclear: "unclear", State.none: ""}
        name = _named(evidence, named) + (CAVEAT if evidence.cell["caveat"] else "")
        against = "" if controls.is_control(evidence.cell) else random[evidence.random.state]
        lines.append((name, floor[speed.state], "" if bound is None else bound.removesuffix(" pp"), against))
    return lines


def _representative(own: Sequence[Evidence]) -> tuple[Evidence, str]:
    """Pick a method's fastest setting shown to lose nothing, else the faster one whose loss is bounded best.

    Where nothing is claimed of some speed, the one with the fewest operations takes the place of the fastest.
    """
    if any(e.speed.state is State.none for e in own):
        ranked, first = sorted(own, key=_operations), "the fewest GMACs"
    else:
        ranked, first = sorted(own, key=_least_speed, reverse=True), "the fastest"
    if spared := [e for e in ranked if e.no_loss]:
        return spared[0], f"of its settings that lose less than {EPSILON_PP:g} pp, {first}"
    faster = [e for e in ranked if e.speed.state is State.better]
    if bounded := [e for e in faster or ranked if e.loss_bound_pp is not None]:
        whose = "of its settings faster than dense, the one" if faster else "its setting"
        return min(bounded, key=_loss), f"{whose} whose loss is bounded best"
    return ranked[0], f"of its settings, {first}"


def _speed_words(evidence: Evidence) -> str:
    speed = evidence.speed
    if speed.state is State.none:
        return f"no claim on speed ({speed.why})"
    if speed.state is State.unclear:
        return f"not shown to differ in speed from dense ({_ratio(speed.interval)})"
    return _times(speed)


def _times(speed: Speed) -> str:
    """Say by how much a setting is faster or slower, at least; and what of it dense against itself takes away."""
    less = (
        "" if speed.discount == 1 else f", less the {100 * (speed.discount - 1):.1f} % that dense differs from itself"
    )
    if speed.state is State.worse:
        return f"slower than dense: at most {_floor(speed)} as fast ({_ratio(speed.interval)}{less})"
    return f"at least {_floor(speed)} as fast as dense ({_ratio(speed.interval)}{less})"


def _floor(speed: Speed) -> str:
    """Write a bound of a speed-up, never beyond itself, with as many digits as tell it from 1."""
    up, bound = speed.state is State.worse, speed.at_most if speed.state is State.worse else speed.at_least
    for digits in range(2, 6):
        shown = (math.ceil if up else math.floor)(bound * 10**digits) / 10**digits
        if shown != 1:
            return f"{shown:.{digits}f}x"
    return f"{bound:g}x"


def _ratio(interval: Interval | None) -> str:
    if interval is None:
        return "unknown"
    form = f".{_digits(interval, 1, 2)}f"
    return f"{interval.value:{form}}x [{interval.lo:{form}}, {interval.hi:{form}}]"


def _digits(interval: Interval, equal: float, fewest: int) -> int:
    """Return how many digits show on which side of `equal` the ends lie, or a claim would look like a contradiction."""
    ends = [end for end in (interval.lo, interval.hi) if end != equal]
    return next((n for n in range(fewest, fewest + 3) if all(round(end, n) != equal for end in ends)), fewest)


def _accuracy_words(evidence: Evidence) -> str:
    accuracy, kind = evidence.accuracy, quality([evidence.cell])
    if accuracy.state is State.none:
        return f"no claim on {kind} ({accuracy.why}){_agreement(evidence.cell)}"
    if accuracy.state is State.better:
        return f"gains {kind}, {_points(accuracy)}"
    if accuracy.state is State.worse:
        return f"loses {kind}, {_points(accuracy)}" + (
            "" if (bound := _points_at_most(evidence)) is None else f", at most {bound}"
        )
    shown = _at_most(evidence)
    return (
        f"{shown} {kind} ({_points(accuracy)})" if shown else f"nothing bounds its loss of {kind} ({_points(accuracy)})"
    )


def _at_most(evidence: Evidence) -> str:
    """Say which loss is ruled out; nothing where none is bounded."""
    bound = _points_at_most(evidence)
    return "" if bound is None else f"loses at most {bound}"


def _points_at_most(evidence: Evidence) -> str | None:
    """Write the bound of a loss, never below itself; 0 where a gain is certain."""
    if (bound := evidence.loss_bound_pp) is None:
        return None
    digits = 2 if bound < 1 else 1
    return f"{max(0.0, math.ceil(bound * 10**digits - 1e-9) / 10**digits):.{digits}f} pp"


def _agreement(cell: Cell) -> str:
    return "" if cell["agree"] is None else f", agrees with dense on {100 * cell['agree']:.1f} %"


def _points(verdict: Verdict) -> str:
    interval = verdict.interval
    if interval is None:
        return ""
    form = f"+.{_digits(interval, 0, 1)}f"
    return f"{interval.value:{form}} pp [{interval.lo:{form}}, {interval.hi:{form}}]"


def _random_words(evidence: Evidence) -> str:
    random = evidence.random
    if random.state is State.none:
        return f"not tested against random selection ({random.why})"
    words = {State.better: "better than", State.worse: "worse than", State.unclear: "not shown to differ from"}
    many = "GMACs, interpolated" if evidence.cell["vs_random_interpolated"] else "tokens"
    return f"{words[random.state]} random selection of as many {many} ({_points(random)})"


def _limits(cells: Sequence[Cell], judged: Sequence[Evidence]) -> list[str]:
    good = [cell for cell in cells if cell["status"] in MEASURED]
    lines = []
    if silent := Counter(e.speed.why for e in judged if e.speed.state is State.none):
        lines += [f"No claim on the speed of {n} of {len(judged)} settings: {why}." for why, n in silent.items()]
    if silent := Counter(e.accuracy.why for e in judged if e.accuracy.state is State.none):
        kind = quality(good)
        lines += [f"No claim on the {kind} of {n} of {len(judged)} settings: {why}." for why, n in silent.items()]
    if judged:
        lines += [*_random_lines(good), *_process_line(good)]
        lines += [*_bounds_line(judged), *_resolution_line(good)]
    failed = sum(cell["status"] not in MEASURED for cell in cells)
    return lines + [f"No result for {failed} of {len(cells)} settings; the reasons are listed below."] * bool(failed)


def _random_lines(good: Sequence[Cell]) -> list[str]:
    seeds = {cell["seed"] for cell in good if controls.is_random(cell)}
    if not seeds:
        return ["Random selection was not measured: whether a method selects better than chance is not known here."]
    if len(seeds) >= RANDOM_SEEDS:
        return []
    drawn = f"{len(seeds)} seed{'s' * (len(seeds) != 1)}"
    return [f"Random selection was drawn with {drawn}: how much depends on the draw is not in its intervals."]


def _process_line(good: Sequence[Cell]) -> list[str]:
    if any(cell["n_process"] == 1 for cell in good):
        return ["Timed in a single process: what differs from one start to the next is not in the intervals of speed."]
    if any(cell["n_process"] == 2 for cell in good):
        return ["Timed in two processes: what differs from one start to the next is hardly in the intervals of speed."]
    return []


def _bounds_line(judged: Sequence[Evidence]) -> list[str]:
    if len(judged) < 2:
        return []
    settings = sum(not controls.is_control(e.cell) for e in judged)
    return [
        f'"At least" and "at most" hold for all {settings} settings at once (Bonferroni, of 95 % intervals), for speed '
        "and loss apart; controls are references, counted by themselves. Intervals in brackets are 95 % each."
    ]


def _resolution_line(good: Sequence[Cell]) -> list[str]:
    found = power.line(good)
    return [] if found is None else [f"{found[0].upper()}{found[1:]}."]


def _why(verdicts: Sequence[Verdict]) -> str:
    reasons = list(dict.fromkeys(v.why for v in verdicts if v.state is State.none))
    return f": {'; '.join(reasons[:3])}" if reasons else ""


def _least_speed(evidence: Evidence) -> float:
    return evidence.speed.at_least


def _operations(evidence: Evidence) -> float:
    counted: float | None = evidence.cell["gmacs_executed"]
    return math.inf if counted is None else counted


def _loss(evidence: Evidence) -> float:
    return math.inf if evidence.loss_bound_pp is None else evidence.loss_bound_pp


def _named(evidence: Evidence, named: Named) -> str:
    return named[evidence.cell["config_id"]]
