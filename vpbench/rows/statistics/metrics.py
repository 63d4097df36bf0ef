"""Pareto metrics of each method, from stored rows, with 95 % intervals (docs/measurement.md, section 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from vpbench.errors import NothingMeasured
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED, contexts, records
from vpbench.rows.schema import Result
from vpbench.rows.statistics import bootstrap, pareto
from vpbench.rows.statistics.bootstrap import Estimate, Point
from vpbench.rows.statistics.curves import Cost, Line, Stored, lines
from vpbench.rows.statistics.pareto import Curve

#: what cost can be: counted, or timed at the batch of the context
COSTS: dict[Cost, str] = {"gmacs": "executed GMACs", "time": "time"}
#: what dense can do instead of pruning: see less
ALTERNATIVES = ("frame_stride", "downsample")
#: notes of metrics that compare a curve with itself
IS_RANDOM, IS_THAT = "it is random selection itself", "it is that itself"
#: name of each metric and the unit of its value
METRICS: dict[str, tuple[str, str]] = {
    "hypervolume": ("hypervolume", ""),
    "budget_auc": ("mean accuracy over the budgets that the curves share", "%"),
    "gain_over_random": ("mean accuracy above random selection, over the budgets that both have", "pp"),
    **{
        f"speedup_at_{loss:g}pp": (f"cost of dense over its own, shown to lose less than {loss:g} pp", "x")
        for loss in pareto.ISO_LOSSES_PP
    },
    **{f"accuracy_at_{share:g}": (f"accuracy at {share:g} of dense's cost", "%") for share in pareto.ISO_COSTS},
    **{
        f"bd_cost_vs_{name}": (f"cost at equal accuracy, against {name}", "share") for name in ("random", *ALTERNATIVES)
    },
}


@dataclass(frozen=True)
class Metric:
    """A value with its 95 % interval, in the unit that `METRICS` gives; None where undefined.

    `interpolated`: between two measured settings. `note`: why there is no value or interval, or what the value is.
    `low`: the share of dense's cost that a mean over budgets begins at; it ends at 1.
    """

    value: float | None
    lo: float | None
    hi: float | None
    interpolated: bool = False
    note: str = ""
    low: float | None = None


@dataclass(frozen=True)
class MethodMetrics:
    """All metrics of one curve in one context, against one kind of cost.

    `context`: the label of `rows.contexts.contexts`; `name`: of the curve, the method and what tells its variants
    apart. `quality`: `top1`, `agree` (with dense, where there are no labels or no trained weights) or `map50`.
    `settings`: how many the curve has, besides dense, where every curve ends. `videos`: what it rests on. `resamples`:
    how many its intervals come from. `noisy`: some times were taken on a noisy machine. `values`: by the names of
    `METRICS`.
    """

    context: str
    name: str
    method: str
    cost: Cost
    batch_size: int
    quality: str
    settings: int
    videos: int
    resamples: int
    noisy: bool
    caveat: str | None
    values: Mapping[str, Metric]


def of(
    results: pd.DataFrame, videos: pd.DataFrame, samples: pd.DataFrame, clips: pd.DataFrame | None = None
) -> list[MethodMetrics]:
    """Return the metrics of every method of every context, for both kinds of cost; sorted by context, name and cost.

    results: one row per cell, as `store.latest` gives; videos, samples, clips: of these cells and others. Without
    clips the counted cost of a method that follows the content is taken as known: of clips only `config_id`,
    `video_id` and `macs` are read. What cannot be computed is there all the same, with the reason.
    """
    found: list[MethodMetrics] = []
    for label, group in contexts(results):
        rows = [row for row in records(group) if row["status"] in MEASURED and row["gmacs_executed"] is not None]
        pruned = lines(rows)
        if not pruned:
            continue
        if kinds.detects(rows[0]):
            found += _of_detectors(label, pruned, rows)
            continue
        try:
            stored = Stored(rows, videos, samples, clips)
        except NothingMeasured as reason:
            found += [_nothing(label, line, cost, str(reason)) for line in pruned for cost in COSTS]
            continue
        found += _of_context(label, stored)
    return found


def _of_context(label: str, stored: Stored) -> list[MethodMetrics]:
    pruned = lines(stored.rows)
    curves = _curves(pruned, stored)
    return [_of_line(label, line, cost, pruned, curves, stored) for line in pruned for cost in COSTS]


def _curves(pruned: Sequence[Line], stored: Stored) -> dict[str, Curve]:
    """Return all curves and the random references, by cost and name; those that lack the samples of a point are not."""
    points: dict[str, list[Point]] = {}
    for cost in COSTS:
        for line in pruned:
            own = [stored.point(seeds, cost) for seeds in line.settings]
            complete = [point for point in own if point is not None]
            if len(complete) == len(own):
                points[f"{cost} {line.name}"] = [*complete, stored.end(cost)]
        for names in {_random_names(line, pruned) for line in pruned}:
            both = [p for each in pruned if each.method in names for p in points.get(f"{cost} {each.name}", [])]
            if both:
                points[f"{cost} {names}"] = both
    return stored.resampled(points)


def _of_line(
    label: str, line: Line, cost: Cost, pruned: Sequence[Line], curves: Mapping[str, Curve], stored: Stored
) -> MethodMetrics:
    own = curves.get(f"{cost} {line.name}")
    if own is None:
        return _nothing(label, line, cost, "the samples of its rounds are not stored")
    random = curves.get(f"{cost} {_random_names(line, pruned)}")
    others = {name: curves[f"{cost} {name}"] for name in ALTERNATIVES if f"{cost} {name}" in curves}
    budget = [each for n in pruned if (each := curves.get(f"{cost} {n.name}")) is not None]
    values = _values(line, own, random, others, _low(budget))
    return _described(label, line, cost, values, stored.quality, len(stored.videos), len(own.dense) - 1)


def _random_names(line: Line, pruned: Sequence[Line]) -> tuple[str, ...]:
    """Name the controls that a curve is compared with: `random`, and a method's own."""
    present = {each.method for each in pruned}
    return tuple(name for name in ("random", f"{line.method}_random") if name in present)


def _low(curves: Sequence[Curve]) -> pareto.Floats:
    """Return the budget from which all curves of a context have points, `[S]`; one that begins too late is left out."""
    early = [curve for curve in curves if curve.cost[0].min() <= pareto.LATEST]
    return np.minimum(pareto.shared_low(early or curves), (1 + pareto.LATEST) / 2)


def _values(
    line: Line, curve: Curve, random: Curve | None, others: Mapping[str, Curve], low: pareto.Floats
) -> dict[str, Metric]:
    itself = line.method == "random" or line.method.endswith("_random")
    reference = None if itself else random
    missing = Metric(None, None, None, note=IS_RANDOM if itself else "random selection was not measured")
    summary = bootstrap.summary(curve, reference, low)
    begins = {"budget_auc": float(low[0])}
    if reference is not None:
        begins["gain_over_random"] = float(pareto.shared_low([curve, reference])[0])
    found = {
        name: replace(_metric(name, each, curve, reference), low=None if each.value is None else begins.get(name))
        for name, each in summary.items()
        if name != "bd_cost"
    }
    found.setdefault("gain_over_random", missing)
    found["bd_cost_vs_random"] = (
        missing if reference is None else _bd(summary["bd_cost"], curve, reference, "random selection")
    )
    for name in ALTERNATIVES:
        if name == line.method:
            found[f"bd_cost_vs_{name}"] = Metric(None, None, None, note=IS_THAT)
        elif name not in others:
            found[f"bd_cost_vs_{name}"] = Metric(None, None, None, note=f"{name} was not measured")
        else:
            estimate = bootstrap.estimate(pareto.bd_cost(curve, others[name]))
            found[f"bd_cost_vs_{name}"] = _bd(estimate, curve, others[name], name)
    unproven = Metric(None, None, None, note="of detections no clips are counted that were lost: no loss is bounded")
    return {name: found.get(name, unproven) for name in METRICS}


def _metric(name: str, found: Estimate, curve: Curve, random: Curve | None) -> Metric:
    note = _why(name, curve, random) if found.value is None else _unsure(found)
    interpolated = False
    kind, _, at = name.partition("_at_")
    if kind == "accuracy" and found.value is not None:
        interpolated = not bool(pareto.measured_at(curve, float(at))[0])
    if kind == "speedup" and found.value == 1.0 and _only_dense(curve, float(at.removesuffix("pp"))):
        loss = at.removesuffix("pp")
        note = f"no setting is shown to lose less than {loss} pp at less than dense's cost: it is dense itself"
    return Metric(found.value, found.lo, found.hi, interpolated, note)


def _only_dense(curve: Curve, loss_pp: float) -> bool:
    return not bool((pareto.shown(curve, loss_pp)[0] & (curve.cost[0] < 1)).any())


def _unsure(found: Estimate) -> str:
    return f"no interval: undefined in {100 * found.nulls:.0f} % of the resamples" if found.lo is None else ""


def _why(name: str, curve: Curve, random: Curve | None) -> str:
    """Say why a metric of a curve has no value."""
    own = curve.cost[0].min()
    if name == "gain_over_random" and random is not None and own <= pareto.LATEST:
        return f"random selection begins at {random.cost[0].min():.2f} of dense's cost, above {pareto.LATEST:g}"
    if name in ("budget_auc", "gain_over_random"):
        return f"its settings begin at {own:.2f} of dense's cost, above {pareto.LATEST:g}"
    return f"outside its settings, which span {own:.2f} to {curve.cost[0].max():.2f} of dense's cost"


def _bd(found: Estimate, curve: Curve, reference: Curve, name: str) -> Metric:
    if found.value is not None:
        return Metric(found.value, found.lo, found.hi, note=_unsure(found))
    own, other = (int(pareto.on_front(each)[0].sum()) for each in (curve, reference))
    if min(own, other) < pareto.BD_POINTS:
        note = f"fronts of {own} and, of {name}, {other} points: {pareto.BD_POINTS} are needed on each"
    else:
        note = f"its front and that of {name} share less than {pareto.BD_OVERLAP:.0%} of either's accuracies"
    return Metric(None, None, None, note=note)


def _described(
    label: str, line: Line, cost: Cost, values: Mapping[str, Metric], quality: str, videos: int, resamples: int
) -> MethodMetrics:
    rows = [row for seeds in line.settings for row in seeds]
    return MethodMetrics(
        label,
        line.name,
        line.method,
        cost,
        rows[0]["batch_size"],
        quality,
        len(line.settings),
        videos,
        resamples,
        cost == "time" and any(row["noisy"] for row in rows),
        next((row["caveat"] for row in rows if row["caveat"]), None),
        values,
    )


def _nothing(label: str, line: Line, cost: Cost, reason: str) -> MethodMetrics:
    return _described(label, line, cost, dict.fromkeys(METRICS, Metric(None, None, None, note=reason)), "", 0, 0)


def _of_detectors(label: str, pruned: Sequence[Line], rows: Sequence[Result]) -> list[MethodMetrics]:
    """Return the metrics of detectors, as measured: precision is no mean over frames, so it is not resampled here."""
    dense = next((row for row in rows if row["method"] == "dense" and row["map50"] is not None), None)
    found = []
    for cost in COSTS:
        own = {line.name: _measured(line, dense, cost) for line in pruned} if dense is not None else {}
        for line in pruned:
            curve = own.get(line.name)
            if curve is None or dense is None:
                reason = "dense was not measured, or mAP50 or a cost is unknown"
                found.append(_nothing(label, line, cost, reason))
                continue
            random = next((own[n] for n in (f"{line.method}_random", "random") if own.get(n) is not None), None)
            others = {name: each for name in ALTERNATIVES if (each := own.get(name)) is not None}
            low = _low([each for each in own.values() if each is not None])
            values = {n: _bare(each) for n, each in _values(line, curve, random, others, low).items()}
            found.append(_described(label, line, cost, values, "map50", dense["n_clips"], 0))
    return found


def _measured(line: Line, dense: Result, cost: Cost) -> Curve | None:
    """Return the curve of a detector twice over: as measured, and that again in place of a resample."""
    rows = [seeds[0] for seeds in line.settings]
    costs = [
        r["gmacs_executed"] / r["gmacs_dense"] if cost == "gmacs" else r["speedup"] and 1 / r["speedup"] for r in rows
    ]
    quality = [row["map50"] for row in rows]
    if None in costs or None in quality:
        return None
    twice = [np.tile(np.array([*values, last]), (2, 1)) for values, last in ((costs, 1.0), (quality, dense["map50"]))]
    return Curve(twice[0], twice[1], np.full(2, dense["map50"]))


def _bare(found: Metric) -> Metric:
    note = found.note or "no interval: mAP50 is no mean over frames, and is not resampled here"
    return replace(found, lo=None, hi=None, note=note)
