"""Figures of paper quality: accuracy against realised cost, and measured speed-up against saved operations."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vpbench import naming, stats, table_frames, versus
from vpbench.errors import NothingMeasured, UsageError
from vpbench.sheet import WIDTH, finish, label_points, log_x, log_y, save, sheet, style
from vpbench.table import MEASURED, Row, contexts, judged, peak_mb, records, setup, top1_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
# Okabe & Ito's palette without its yellow (too pale for lines) and its black (dense)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("s", "^", "D", "v", "P", "p", "h")
_LINES = ("-", (0, (6, 1.5)), "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2, 2, 2)))
_GREY = "#7f7f7f"


@dataclass(frozen=True)
class Point:
    """One cell: quality in percent with its interval, and its row."""

    y: float
    lo: float
    hi: float
    row: Row


@dataclass(frozen=True)
class Panel:
    """One cost axis: its name, where the cost is, where its interval is (if it has one), whether noise spoils it."""

    name: str
    cost: Callable[[Row], float | None]
    interval: tuple[str, str] | None = None
    timed: bool = False


#: what quality can be, and what its axis is called
QUALITIES = {
    "top1": "top-1 accuracy, %",
    "map50": "mAP50, %",
    "agree": "agreement with dense, %",
}


def panels(unit: str) -> tuple[Panel, ...]:
    """Return the cost axes of rows that are per clip or per frame."""
    return (
        Panel(f"GMACs per {unit}, as executed", lambda row: row["gmacs_executed"]),
        Panel(f"ms per {unit}, median", lambda row: row["wall_ms_p50"], ("wall_ms_ci_lo", "wall_ms_ci_hi"), timed=True),
        Panel("peak memory, MB", peak_mb),
    )


def draw(results: pd.DataFrame, out_folder: Path, formats: Sequence[str] = FORMATS, y: str | None = None) -> list[Path]:
    """Draw `pareto` and `speed_vs_flops` for every context in `results`; returns the files written.

    y: `top1`, `map50` or `agree` (with dense); by default the first that is known. Raises NothingMeasured where no row
    can be drawn, UsageError for an unknown y or format, VpbenchError where `out_folder` cannot be written.
    """
    if y is not None and y not in QUALITIES:
        raise UsageError(f"cannot draw {y!r}; y is one of {', '.join(QUALITIES)}")
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise UsageError(f"cannot draw as {', '.join(unknown)} (known: {', '.join(FORMATS)})")
    written: list[Path] = []
    for label, group in contexts(results):
        suffix = "-" + re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-") if label else ""
        for stem, figure in _figures(records(group), y):
            written += save(figure, out_folder, stem + suffix, formats)
    if not written:
        raise NothingMeasured(_nothing(records(results), y))
    return written


def _nothing(rows: Sequence[Row], y: str | None) -> str:
    if not rows:
        return "no results to draw; run or sweep first"
    if any(row["status"] in MEASURED for row in rows):
        return f"no row has {'top1: draw agree instead' if y == 'top1' else 'a quality to draw'}"
    return f"nothing to draw: none of {len(rows)} rows was measured; the first says: {rows[0]['error']}"


def _figures(rows: Sequence[Row], y: str | None) -> list[tuple[str, Figure]]:
    good = [row for row in rows if row["status"] in MEASURED and row["gmacs_executed"] is not None]
    known = (name for name in ("top1", "map50") if any(row[name] is not None for row in good))
    quality = y or next(known, "agree")
    points = [p for row in good if (p := _point(row, quality)) is not None]
    timed = [row for row in good if row["speedup"] is not None and row["method"] != "dense" and not row["caveat"]]
    found = [("pareto", pareto(points, quality))] if points else []
    return found + ([("speed_vs_flops", speed_vs_flops(timed))] if points and timed else [])


def _point(row: Row, quality: str) -> Point | None:
    if quality == "agree":
        if row["agree"] is None or not judged(row):
            return None
        share = stats.wilson(round(row["agree"] * judged(row)), judged(row))
        return Point(100 * row["agree"], 100 * share.lo, 100 * share.hi, row)
    whole = top1_interval(row) if quality == "top1" else table_frames.map50_interval(row)
    if whole is None:
        return None
    if row["method"] == "dense":
        return Point(whole.value, whole.value, whole.value, row)
    if row["delta_pp"] is None or row["delta_ci_lo"] is None:
        return Point(whole.value, whole.lo, whole.hi, row)
    # what matters in the figure is the distance to the line of dense, and that is known better than quality itself
    dense = whole.value - row["delta_pp"]
    return Point(whole.value, dense + row["delta_ci_lo"], dense + row["delta_ci_hi"], row)


def series(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Group points into curves: random first, then one per method and, where they differ, per non-numeric setting."""
    rows = [point.row for point in points]
    curves: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda p: (p.row["method"] != "random", p.row["method"], p.row["gmacs_executed"])):
        method = point.row["method"]
        if method != "dense":
            name = f"{method} {naming.variant(point.row, rows)}".rstrip()
            name += f" ({point.row['caveat']})" if point.row["caveat"] else ""
            curves.setdefault(name, []).append(point)
    return curves


def pareto(points: Sequence[Point], quality: str) -> Figure:
    """Draw quality against executed operations, time and memory, with the Pareto front of each panel."""
    with style():
        curves = series(points)
        dense = max((p for p in points if p.row["method"] == "dense"), key=_age, default=None)
        figure = sheet(WIDTH)
        costs = panels(table_frames.unit(points[0].row))
        axes = figure.subplots(1, len(costs), sharey=True)
        for axis, panel in zip(axes, costs, strict=True):
            _panel(axis, panel, curves, dense)
        axes[0].set_ylabel(QUALITIES[quality])
        finish(figure, axes, _caption(points, quality), legend_columns=6)
        label_points(axes[0], _keeps(curves))
        return figure


def _age(point: Point) -> Any:
    return point.row["timestamp_utc"]


def _panel(axis: Axes, panel: Panel, curves: dict[str, list[Point]], dense: Point | None) -> None:
    costs: list[float] = []
    drawn: list[Point] = []
    for number, (name, curve) in enumerate(curves.items()):
        known = [p for p in curve if panel.cost(p.row) is not None]
        _curve(axis, panel, name, known, _look(name, number))
        drawn += known
    if dense is not None:
        axis.axhline(dense.y, color="black", linewidth=0.7, linestyle=":", zorder=1)
        if panel.cost(dense.row) is not None:
            drawn.append(dense)
            _star(axis, panel, dense)
    axis.set_xlabel(panel.name)
    for point in drawn:
        costs += _span(panel, point.row)
    if not drawn:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color=_GREY)
        axis.set_xticks([])
        return
    fair = [p for p in drawn if not p.row["caveat"]]
    _front(axis, [float(panel.cost(p.row) or 0) for p in fair], [p.y for p in fair])
    log_x(axis, costs)


def _look(name: str, number: int) -> dict[str, Any]:
    if _is_random(name):
        return {"color": _GREY, "marker": "o", "linestyle": (0, (3, 2)), "markersize": 4}
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _LINES[number % len(_LINES)],
        "markersize": 4.5,
    }


def _is_random(curve: str) -> bool:
    return versus.is_random({"method": curve.split()[0]})


def _span(panel: Panel, row: Row) -> list[float]:
    bounds = [] if panel.interval is None else [row[name] for name in panel.interval]
    return [value for value in (panel.cost(row), *bounds) if value is not None]


def _curve(axis: Axes, panel: Panel, name: str, curve: Sequence[Point], look: dict[str, Any]) -> None:
    known = sorted(curve, key=lambda p: panel.cost(p.row) or 0)
    x = [float(panel.cost(p.row) or 0) for p in known]
    axis.plot(x, [p.y for p in known], linewidth=1.1, zorder=3, label=name, **look)
    for at, point in zip(x, known, strict=True):
        bars: dict[str, Any] = {"yerr": [[max(0, point.y - point.lo)], [max(0, point.hi - point.y)]]}
        span = _span(panel, point.row)
        if len(span) == 3:
            bars["xerr"] = [[max(0, at - span[1])], [max(0, span[2] - at)]]
        axis.errorbar(at, point.y, fmt="none", ecolor=look["color"], elinewidth=0.7, alpha=0.75, zorder=2, **bars)
        if panel.timed and point.row["noisy"]:
            _open(axis, at, point.y, look)


def _open(axis: Axes, x: float, y: float, look: dict[str, Any]) -> None:
    bare: dict[str, Any] = look | {"linestyle": "none", "markerfacecolor": "white"}
    axis.plot([x], [y], zorder=4, gid="noisy", **bare)


def _star(axis: Axes, panel: Panel, dense: Point) -> None:
    look: dict[str, Any] = {"color": "black", "marker": "*", "markersize": 9}
    at = float(panel.cost(dense.row) or 0)
    axis.plot([at], [dense.y], linestyle="none", zorder=5, label="dense", **look)
    span = _span(panel, dense.row)
    if len(span) == 3:
        error = [[max(0, at - span[1])], [max(0, span[2] - at)]]
        axis.errorbar(at, dense.y, xerr=error, fmt="none", ecolor="black", elinewidth=0.7, zorder=2)
    if panel.timed and dense.row["noisy"]:
        _open(axis, at, dense.y, look)


def _front(axis: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    best = stats.front(x, y)
    front_x, front_y = [x[i] for i in best], [y[i] for i in best]
    axis.step(front_x, front_y, where="post", color="black", linewidth=0.6, alpha=0.55, zorder=1.5)
    look: dict[str, Any] = {"marker": "o", "markersize": 9.5, "markerfacecolor": "none", "markeredgewidth": 0.7}
    axis.plot(front_x, front_y, linestyle="none", color="black", zorder=6, label="Pareto front", **look)


def _keeps(curves: dict[str, list[Point]]) -> list[tuple[float, float, str, str]]:
    """Return where nominal keep ratios may be written, random last; keeping all needs no label."""
    named: list[tuple[float, float, str, str]] = []
    for number, (name, curve) in enumerate(curves.items()):
        keeps = [p for p in curve if p.row["keep_nominal"] not in (None, 1)]
        labels = [
            (p.row["gmacs_executed"], p.y, f"{p.row['keep_nominal']:g}", _look(name, number)["color"]) for p in keeps
        ]
        named = named + labels if _is_random(name) else labels + named
    return named


def _caption(points: Sequence[Point], quality: str) -> str:
    rows = [p.row for p in points]
    methods = {"random" if versus.is_random(row) else row["method"] for row in rows}
    bars = "Wilson" if quality == "agree" else "paired difference to dense, bootstrap over videos"
    parts = [
        f"{setup(rows[0])}; {max(judged(row) for row in rows)} {table_frames.judged_unit(rows[0])}s.",
        f"Bars: 95 % intervals ({bars}; times: rounds).",
    ]
    parts += ["Numbers: nominal keep ratio."] if any(row["keep_nominal"] is not None for row in rows) else []
    parts += ["Open markers: timed on a noisy machine."] if any(row["noisy"] for row in rows) else []
    parts += [f"{name} was not measured." for name in ("dense", "random") if name not in methods]
    return " ".join(part[0].upper() + part[1:] for part in parts)


def speed_vs_flops(rows: Sequence[Row]) -> Figure:
    """Draw the measured speed-up over dense against the saved operations; on the diagonal all savings become time."""
    with style():
        figure = sheet(WIDTH / 2)
        axis = figure.subplots()
        ratios, speeds = [1.0], [1.0]
        curves = series([Point(row["speedup"], row["speedup_ci_lo"], row["speedup_ci_hi"], row) for row in rows])
        ratio = Panel("GMACs of dense / GMACs executed", lambda r: r["gmacs_dense"] / r["gmacs_executed"], timed=True)
        for number, (name, curve) in enumerate(curves.items()):
            _curve(axis, ratio, name, curve, _look(name, number))
            ratios += [float(ratio.cost(p.row) or 0) for p in curve]
            speeds += [bound for p in curve for bound in (p.lo, p.hi)]
        low, high = min(ratios) / 1.05, max(ratios) * 1.08
        axis.plot([low, high], [low, high], color="black", linewidth=0.8, label="time = GMACs", zorder=1)
        axis.plot([low, high], [0.8 * low, 0.8 * high], color="black", linewidth=0.8, linestyle=":", label="0.8 of it")
        log_x(axis, ratios)
        log_y(axis, min(speeds) / 1.05, max(*speeds, high) * 1.02)
        axis.set_xlabel(ratio.name)
        axis.set_ylabel("speed-up over dense, measured")
        noisy = " Open markers: timed on a noisy machine." if any(row["noisy"] for row in rows) else ""
        finish(figure, [axis], f"{setup(rows[0])}. Bars: 95 % intervals over rounds.{noisy}", legend_columns=3)
        return figure
