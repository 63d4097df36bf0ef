"""The table of Pareto metrics: one line per method and kind of cost, and why a number is not there."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pandas as pd

from vpbench.render.tables.columns import CAVEAT, three_digits
from vpbench.render.tables.layout import Grid, Layout, letter
from vpbench.rows.statistics import metrics, pareto
from vpbench.rows.statistics.metrics import MethodMetrics, Metric

_LOSSES = {f"speedup_at_{loss:g}pp": f"dense / own\nat -{loss:g} pp" for loss in pareto.ISO_LOSSES_PP}
_SHARES = {f"accuracy_at_{share:g}": f"accuracy, %\nat {share:g} cost" for share in pareto.ISO_COSTS}
_AGAINST = {name: f"cost, %\nvs {name.removeprefix('bd_cost_vs_')}" for name in metrics.METRICS if "vs" in name}
#: headers of the metrics, in the order of `metrics.METRICS`
HEADERS = {
    "hypervolume": "hyper-\nvolume",
    "budget_auc": "budget\nAUC, %",
    "gain_over_random": "over\nrandom, pp",
    **_LOSSES,
    **_SHARES,
    **_AGAINST,
}
#: reasons that say nothing about what was measured
_ITSELF = ("", metrics.IS_RANDOM, metrics.IS_THAT)
_FORMATS = {"hypervolume": ".3f", "gain_over_random": "+.1f"} | dict.fromkeys(_AGAINST, "+.0f")


def grid(found: Sequence[MethodMetrics], layout: Layout) -> Grid:
    """Return the metrics of one context as text, those of one kind of cost below each other."""
    rows, letters = _by_cost(found), _letters(found)
    columns = {
        "cost": [_cost(each) for each in rows],
        "method": [f"{each.name}{CAVEAT if each.caveat else ''}{'!' if each.noisy else ''}" for each in rows],
        "settings": [str(each.settings) for each in rows],
    }
    for name, header in HEADERS.items():
        if name not in _untold(found):
            columns[header] = [_cell(name, each.values[name], letters, layout.split) for each in rows]
    return Grid(columns, frozenset({"cost", "method"}), columns["cost"])


def _by_cost(found: Sequence[MethodMetrics]) -> list[MethodMetrics]:
    return sorted(found, key=lambda each: list(metrics.COSTS).index(each.cost))


def _cost(each: MethodMetrics) -> str:
    return "GMACs" if each.cost == "gmacs" else f"time, batch {each.batch_size}"


def _cell(name: str, metric: Metric, letters: Mapping[str, str], split: str) -> str:
    mark = letters.get(metric.note, "")
    if metric.value is None:
        return mark
    times = 100 if name in _AGAINST else 1
    form = _FORMATS.get(name, three_digits(metric.value) if name in _LOSSES else ".1f")
    text = format(times * metric.value, form) + ("~" if metric.interpolated else "") + mark
    if metric.lo is None or metric.hi is None:
        return text
    return f"{text}{split}[{times * metric.lo:{form}}, {times * metric.hi:{form}}]"


def _untold(found: Sequence[MethodMetrics]) -> dict[str, str]:
    """Return the metrics that no method has, all for one reason: a line says so, a column would be empty.

    Methods that have no metric at all have a reason of their own, and do not count here unless all are such.
    """
    some = [each for each in found if len({metric.note for metric in each.values.values()}) > 1] or found
    untold = {}
    for name in HEADERS:
        reasons = {each.values[name].note for each in some if each.values[name].note not in _ITSELF}
        if len(reasons) == 1 and all(each.values[name].value is None for each in some):
            untold[name] = reasons.pop()
    return untold


def _letters(found: Sequence[MethodMetrics]) -> dict[str, str]:
    """Give each reason that cells refer to a letter, in the order of the table."""
    untold = _untold(found)
    notes = [each.values[name].note for each in _by_cost(found) for name in HEADERS if name not in untold]
    several = [note for note in dict.fromkeys(notes) if note]
    return {note: f"({letter(number)})" for number, note in enumerate(several)}


def notes(found: Sequence[MethodMetrics]) -> list[str]:
    """Say what the columns are, and why numbers or intervals are missing."""
    quality = {each.quality: each.videos for each in found if each.quality}
    resting = ", ".join(
        f"{name} on {count} {'frames' if name == 'map50' else 'videos'}" for name, count in quality.items()
    )
    lines = [f"Pareto metrics of {resting}" if resting else "Pareto metrics"]
    lines += [
        "every curve ends at dense; cost is a share of dense's; "
        + (
            "values of detectors have no intervals"
            if "map50" in quality
            else "intervals are 95 %, of resampled videos and rounds, and of which settings count"
        ),
        "hypervolume: 1 would be dense's accuracy at no cost, 0 is nothing within 10 pp of it at less than its cost; "
        "under the curve that never falls with cost",
        "budget AUC: mean accuracy over the logarithm of cost, from where all curves have settings" + _begin(found),
        "over random: the same less that of random selection, from where both have settings" + _begins(found),
        "dense / own: the most that a setting saves which is shown to lose less than that, among all of its curve",
        "~ interpolated between settings",
        "cost vs: cost at equal accuracy (Bjontegaard), -20 is a fifth cheaper",
    ]
    if any(each.noisy for each in found):
        lines.append("! timed on a noisy machine: no claim on its time")
    caveats = sorted({(each.method, each.caveat) for each in found if each.caveat})
    lines += [f"{CAVEAT} {method}: {text}" for method, text in caveats]
    lines += [f"no {_flat(name)}: {note}" for name, note in _untold(found).items()]
    return lines + [f"{letter} {note}" for note, letter in _letters(found).items()]


def _begin(found: Sequence[MethodMetrics]) -> str:
    """Say where the budget AUC of each kind of cost begins."""
    lows = {_cost(each): each.values["budget_auc"].low for each in _by_cost(found)}
    known = [f"{low:.2f} ({cost})" for cost, low in lows.items() if low is not None]
    return f" to 1: {', '.join(known)}" if known else ""


def _begins(found: Sequence[MethodMetrics]) -> str:
    """Say where each method's gain over random begins."""
    by_low: dict[str, list[str]] = {}
    for each in _by_cost(found):
        if (low := each.values["gain_over_random"].low) is not None:
            by_low.setdefault(f"{low:.2f} ({_cost(each)})", []).append(each.name)
    known = [f"{low} {', '.join(names)}" for low, names in by_low.items()]
    return f" to 1: {'; '.join(known)}" if known else ""


def _flat(name: str) -> str:
    return HEADERS[name].replace("-\n", "").replace("\n", " ")


def frame(found: Sequence[MethodMetrics]) -> pd.DataFrame:
    """Return one row per method, kind of cost and metric, for CSV."""
    rows = []
    for each in found:
        shared = {name: value for name, value in asdict(each).items() if name != "values"}
        rows += [shared | {"metric": name} | asdict(metric) for name, metric in each.values.items()]
    return pd.DataFrame(rows)


def pages(found: Sequence[MethodMetrics], layout: Layout) -> list[str]:
    """Return a page per context; a line where there is no metric at all, and one reason for it."""
    parts: dict[str, list[MethodMetrics]] = {}
    for each in found:
        parts.setdefault(each.context, []).append(each)
    return [
        _page(f"{label}: Pareto metrics" if label else "Pareto metrics", own, layout) for label, own in parts.items()
    ]


def _page(heading: str, found: Sequence[MethodMetrics], layout: Layout) -> str:
    untold = _untold(found)
    if len(untold) == len(HEADERS) and len(set(untold.values())) == 1:
        return layout.line(f"no {heading}: {next(iter(untold.values()))}")
    return layout.page(heading, grid(found, layout), notes(found))
