"""Quality against what it costs: operations, time, clips per second and memory, each with its Pareto front."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vpbench.render.figures import published, sheet
from vpbench.render.points import Context, Cost, Point, caption, costs, curves, missing, point
from vpbench.render.style import dense_look, is_random, look, style
from vpbench.rows import kinds
from vpbench.rows.kinds import QUALITIES
from vpbench.rows.schema import Result
from vpbench.rows.statistics import pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(unit: str) -> tuple[Cost, ...]:
    """Return the cost axes of rows that are per clip or per frame."""
    return (
        *costs(unit),
        Cost("e2e", f"ms per {unit}, file to answer", _from_file, timed=True),
        Cost("rgtp", f"GMACs per {unit}, as RGTP counts", lambda row: row["gmacs_rgtp"], counted=True),
    )


def _from_file(row: Result) -> float | None:
    return None if not row["e2e_clips_per_s"] else 1e3 / float(row["e2e_clips_per_s"])


def draw(context: Context) -> "Figure | str":
    """Return the figure, or why there is none."""
    points = [p for row in context.measured if (p := point(row, context.quality)) is not None]
    if not points:
        return f"no row has {'top1: draw agree instead' if context.quality == 'top1' else context.quality}"
    page, rows = context.page, [p.row for p in points]
    others = published.points(rows[0], context.quality)
    shown = [panel for panel in panels(kinds.unit(rows[0])) if _known(panel, rows, others)]
    with style(page):
        figure, axes = sheet.sheet(page, page.wide if len(shown) > 1 else page.narrow, len(shown), sharey=True)
        grouped = _by_curve(points)
        for axis, panel in zip(axes, shown, strict=True):
            _panel(axis, panel, grouped, context, others if panel.counted else ())
        across = axes[0].get_subplotspec().get_gridspec().ncols
        for axis in axes[::across]:
            axis.set_ylabel(QUALITIES[context.quality])
        sheet.finish(figure, axes, _caption(context, rows, others), page)
        sheet.label_points(axes[0], _keeps(grouped, context), page)
        return figure


def _known(panel: Cost, rows: Sequence[Result], others: Sequence[published.Point]) -> bool:
    """Say whether an axis says something; RGTP's way of counting does where there are published figures."""
    counts = panel.value(rows[0]) if panel.name.startswith("GMACs") else True
    if panel.name.endswith("RGTP counts"):
        return counts is not None and bool(others)
    return any(panel.value(row) is not None for row in rows)


def _by_curve(points: Sequence[Point]) -> dict[str, list[Point]]:
    own = {id(p.row): p for p in points}
    return {name: [own[id(row)] for row in rows] for name, rows in curves([p.row for p in points]).items()}


def _panel(
    axis: "Axes",
    panel: Cost,
    grouped: Mapping[str, Sequence[Point]],
    context: Context,
    others: Sequence[published.Point],
) -> None:
    drawn: list[Point] = []
    for number, (name, curve) in enumerate(grouped.items()):
        known = [p for p in curve if panel.value(p.row) is not None]
        if known:
            draw_curve(axis, panel, name, known, look(name, number, context.page))
        drawn += known
    dense = None if context.dense is None else point(context.dense, context.quality)
    if dense is not None:
        axis.axhline(dense.y, color="black", linewidth=0.7 * context.page.stroke, linestyle=":", zorder=1)
        if panel.value(dense.row) is not None:
            draw_curve(axis, panel, "dense", [dense], dense_look(context.page))
            drawn.append(dense)
    _front(axis, panel, [p for p in drawn if not p.row["caveat"]], context)
    published.draw(axis, others, list(grouped), context.page)
    axis.set_xlabel(panel.name)
    spans = [(panel.at(p.row), panel.span(p.row)) for p in drawn]
    sheet.log_x(axis, [at + side for at, (low, high) in spans for side in (-low, high)] + [p.gmacs for p in others])


def draw_curve(axis: "Axes", panel: Cost, name: str, curve: Sequence[Point], looks: dict[str, Any]) -> None:
    """Draw points in their order with the bars of both intervals; those spoilt by noise are half filled."""
    x, y = [panel.at(p.row) for p in curve], [p.y for p in curve]
    top = 5 if looks["marker"] == "*" else 3
    axis.plot(x, y, zorder=top, label=name, **looks)
    sides = [(at - low, at + high) for at, (low, high) in zip(x, map(panel.span, (p.row for p in curve)), strict=True)]
    draw_bars(axis, [(at, at) for at in x], [(min(p.lo, p.y), max(p.hi, p.y)) for p in curve], looks)
    draw_bars(axis, sides, [(p.y, p.y) for p in curve], looks)
    noisy = [n for n, p in enumerate(curve) if panel.timed and p.row["noisy"]]
    if noisy:
        half: dict[str, Any] = looks | {"linestyle": "none", "fillstyle": "bottom", "markerfacecoloralt": "white"}
        axis.plot([x[n] for n in noisy], [y[n] for n in noisy], zorder=top + 1, gid="noisy", **half)


def draw_bars(
    axis: "Axes", x: Sequence[tuple[float, float]], y: Sequence[tuple[float, float]], looks: Mapping[str, Any]
) -> None:
    """Draw bars from `(x[0], y[0])` to `(x[1], y[1])` each, as one line with gaps: thousands of artists are slow."""
    gap = float("nan")
    path = [(value for pair in ends for value in (*pair, gap)) for ends in (x, y)]
    line: dict[str, Any] = {"color": looks["color"], "linewidth": 0.15 * looks["markersize"]}
    axis.plot(*map(list, path), alpha=0.75, zorder=2, gid="bars", label="_", **line)


def _front(axis: "Axes", panel: Cost, points: Sequence[Point], context: Context) -> None:
    x, y = [panel.at(p.row) for p in points], [p.y for p in points]
    best = pareto.front([1 / v for v in x] if panel.rate else x, y)
    front_x, front_y = [x[i] for i in best], [y[i] for i in best]
    stroke = context.page.stroke
    axis.step(front_x, front_y, where="post", color="black", linewidth=0.6 * stroke, alpha=0.55, zorder=1.5)
    ring: dict[str, Any] = {"marker": "o", "markersize": 9.5 * stroke, "markerfacecolor": "none"}
    ring |= {"markeredgewidth": 0.7 * stroke, "linestyle": "none", "color": "black"}
    axis.plot(front_x, front_y, zorder=6, label="Pareto front", **ring)


def _keeps(grouped: Mapping[str, Sequence[Point]], context: Context) -> list[tuple[float, float, str, str]]:
    """Return where nominal keep ratios may be written, random last; keeping all needs no label."""
    named: list[tuple[float, float, str, str]] = []
    for number, (name, curve) in enumerate(grouped.items()):
        keeps = [p for p in curve if p.row["keep_nominal"] not in (None, 1)]
        colour = look(name, number, context.page)["color"]
        labels = [(p.row["gmacs_executed"], p.y, f"{p.row['keep_nominal']:g}", colour) for p in keeps]
        named = named + labels if is_random(name) else labels + named
    return named


def _caption(context: Context, rows: Sequence[Result], others: Sequence[published.Point]) -> str:
    bars = "Wilson" if context.quality == "agree" else "paired difference to dense, bootstrap over videos"
    named = 0 < sum(row["keep_nominal"] is not None for row in rows) <= sheet.LABELS
    return caption(
        rows,
        f"Bars: 95 % intervals ({bars}; times: rounds).",
        "Numbers: nominal keep ratio." if named else "",
        "Half-filled markers: timed on a noisy machine." if any(row["noisy"] for row in rows) else "",
        published.explained(others),
        missing(rows),
    )
