"""Quality against what it costs, with Pareto fronts: a panel for each cost, or for each method against one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vpbench.render.figures import published, sheet
from vpbench.render.points import Context, Cost, Point, caption, costs, curves, missing, point, shown_range, variants
from vpbench.render.style import GREY, Page, is_random, look, style
from vpbench.rows import kinds
from vpbench.rows.kinds import QUALITIES
from vpbench.rows.schema import Result
from vpbench.rows.statistics import pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: what the other curves are drawn in where a panel is one method's
_FAINT = "#c9cdd2"


@dataclass(frozen=True)
class _Drawing:
    """What all panels share: points by curve and of dense, and what was published beside them."""

    context: Context
    grouped: Mapping[str, Sequence[Point]]
    dense: Point | None
    others: Sequence[published.Point]

    @property
    def page(self) -> Page:
        return self.context.page

    @property
    def points(self) -> list[Point]:
        """All points, those of dense last."""
        return [*(p for curve in self.grouped.values() for p in curve), *([self.dense] if self.dense else [])]

    def looks(self, name: str) -> dict[str, Any]:
        """Return how a curve looks."""
        number = variants({each: [p.row for p in curve] for each, curve in self.grouped.items()})
        return look(self.grouped[name][0].row["method"], self.page, number[name])


def draw(context: Context) -> "Figure | str":
    """Return the figure, or why there is none."""
    points = [p for row in context.measured if (p := point(row, context.quality)) is not None]
    if not points:
        return f"no row has {'top1: draw agree instead' if context.quality == 'top1' else context.quality}"
    rows, dense = [p.row for p in points], context.dense
    own = {id(p.row): p for p in points}
    grouped = {name: [own[id(row)] for row in curve] for name, curve in curves(rows).items()}
    others = published.points(rows[0], context.quality)
    drawing = _Drawing(context, grouped, None if dense is None else own.get(id(dense)), others)
    known = [cost for cost in costs(kinds.unit(rows[0])) if _known(cost, rows, others)]
    shown = [cost for key in context.costs for cost in known if cost.key == key] if context.costs else known
    if not shown:
        return f"no row knows {', '.join(context.costs)}: draw {', '.join(cost.key for cost in known)} instead"
    with style(context.page):
        return _by_method(drawing, shown[0]) if context.panels == "method" else _by_cost(drawing, shown)


def _known(cost: Cost, rows: Sequence[Result], others: Sequence[published.Point]) -> bool:
    """Say whether an axis says something; RGTP's way of counting does where there are published figures."""
    if cost.key == "rgtp":
        return rows[0]["gmacs_rgtp"] is not None and bool(others)
    return any(cost.value(row) is not None for row in rows)


def _by_cost(drawing: _Drawing, shown: Sequence[Cost]) -> "Figure":
    page = drawing.page
    figure, axes = sheet.sheet(page, page.wide if len(shown) > 1 else page.narrow, len(shown), sharey=True)
    for axis, cost in zip(axes, shown, strict=True):
        _panel(axis, drawing, cost, list(drawing.grouped), drawing.others if cost.counted else ())
        axis.set_xlabel(cost.name)
    _quality_axis(axes, drawing, any(cost.counted for cost in shown))
    sheet.finish(figure, axes, _caption(drawing, shown), page)
    sheet.label_points(axes[0], _keeps(drawing, shown[0]), page)
    return figure


def _by_method(drawing: _Drawing, cost: Cost) -> "Figure | str":
    """Draw a panel for each method, all other curves faint behind it."""
    page, grouped = drawing.page, drawing.grouped
    methods = list(dict.fromkeys(curve[0].row["method"] for name, curve in grouped.items() if not is_random(name)))
    if not methods:
        return "no method but references was measured"
    across = min(len(methods), 4 if len(methods) > 6 else 3)
    width = page.wide if across > 1 else page.narrow
    figure, axes = sheet.sheet(page, width, len(methods), across=across, sharey=True, sharex=True)
    for axis, method in zip(axes, methods, strict=True):
        own = [
            name for name, curve in grouped.items() if curve[0].row["method"] in (method, f"{method}_random", "random")
        ]
        for name in (name for name in grouped if name not in own):
            axis.plot(*_line(cost, grouped[name]), color=_FAINT, linewidth=0.7 * page.stroke, zorder=1, label="_")
        beside = [p for p in drawing.others if cost.counted and p.method in (method, "dense")]
        _panel(axis, drawing, cost, own, beside, whole=False)
        axis.set_title(method)
    for axis in axes[-across:]:
        axis.tick_params(labelbottom=True)
        axis.set_xlabel(cost.name)
    _quality_axis(axes, drawing, cost.counted)
    sheet.finish(figure, axes, _caption(drawing, [cost]), page)
    for axis, method in zip(axes, methods, strict=True):
        sheet.label_points(axis, _keeps(drawing, cost, (method,)), page)
    return figure


def _panel(
    axis: "Axes",
    drawing: _Drawing,
    cost: Cost,
    names: Sequence[str],
    others: Sequence[published.Point],
    whole: bool = True,
) -> None:
    """Draw curves of these names, random ones as bands, with dense, what was published, and the front of all.

    whole: all curves are here, so that the legend names them, and points on the front are ringed.
    """
    page, dense = drawing.page, drawing.dense
    for name in names:
        curve = [p for p in drawing.grouped[name] if cost.value(p.row) is not None]
        if curve:
            label = name if whole or is_random(name) else f"_{name}"
            (_band if is_random(name) else draw_curve)(axis, cost, label, curve, drawing.looks(name))
    if dense is not None:
        axis.axhline(dense.y, color="black", linewidth=0.7 * page.stroke, linestyle=":", zorder=1)
        if cost.value(dense.row) is not None:
            draw_curve(axis, cost, "dense", [dense], look("dense", page))
    drawn = [p for p in drawing.points if cost.value(p.row) is not None]
    _front(axis, cost, [p for p in drawn if not p.row["caveat"]], page, whole)
    published.draw(axis, others, page)
    sheet.log_x(axis, [*cost.ends(p.row for p in drawn), *(p.gmacs for p in others)])


def _quality_axis(axes: "Sequence[Axes]", drawing: _Drawing, counted: bool) -> None:
    """Name the axis that panels share, and show what is to be seen of it."""
    low, high = shown_range(drawing.points)
    beside = [p.quality for p in drawing.others if counted]
    axes[0].set_ylim(min([low, *(y - 0.5 for y in beside)]), max([high, *(y + 0.5 for y in beside)]))
    across = axes[0].get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
    for axis in axes[::across]:
        axis.set_ylabel(QUALITIES[drawing.context.quality])


def draw_curve(axis: "Axes", cost: Cost, name: str, curve: Sequence[Point], looks: dict[str, Any]) -> None:
    """Draw points in their order with the bars of both intervals; those spoilt by noise are half filled."""
    x, y = _line(cost, curve)
    top = 5 if looks["marker"] == "*" else 3
    axis.plot(x, y, zorder=top, label=name, **looks)
    sides = [(at - low, at + high) for at, (low, high) in zip(x, map(cost.span, (p.row for p in curve)), strict=True)]
    draw_bars(axis, [(at, at) for at in x], [(min(p.lo, p.y), max(p.hi, p.y)) for p in curve], looks)
    draw_bars(axis, sides, [(p.y, p.y) for p in curve], looks)
    noisy = [n for n, p in enumerate(curve) if cost.timed and p.row["noisy"]]
    if noisy:
        half: dict[str, Any] = looks | {"linestyle": "none", "fillstyle": "bottom", "markerfacecoloralt": "white"}
        axis.plot([x[n] for n in noisy], [y[n] for n in noisy], zorder=top + 1, gid="noisy", **half)


def _line(cost: Cost, curve: Sequence[Point]) -> tuple[list[float], list[float]]:
    known = [p for p in curve if cost.value(p.row) is not None]
    return [cost.at(p.row) for p in known], [p.y for p in known]


def _band(axis: "Axes", cost: Cost, name: str, curve: Sequence[Point], looks: dict[str, Any]) -> None:
    """Draw a random control as the band of its intervals, and a thin line; seeds of one cost are one place of it."""
    places: dict[float, list[Point]] = {}
    for p in curve:
        places.setdefault(p.row["gmacs_executed"], []).append(p)
    ends = sorted(
        (sum(cost.at(p.row) for p in own) / len(own), min(p.lo for p in own), max(p.hi for p in own))
        for own in places.values()
    )
    x, low, high = map(list, zip(*ends, strict=True))
    axis.fill_between(x, low, high, color=GREY, alpha=0.22, linewidth=0, zorder=0.5, gid="band")
    line = looks | {"markersize": 0.45 * looks["markersize"], "linewidth": 0.3 * looks["markersize"]}
    axis.plot(*_line(cost, curve), zorder=1.2, label=name, **line)


def draw_bars(
    axis: "Axes", x: Sequence[tuple[float, float]], y: Sequence[tuple[float, float]], looks: Mapping[str, Any]
) -> None:
    """Draw bars from `(x[0], y[0])` to `(x[1], y[1])` each, as one line with gaps: thousands of artists are slow."""
    gap = float("nan")
    path = [(value for pair in ends for value in (*pair, gap)) for ends in (x, y)]
    line: dict[str, Any] = {"color": looks["color"], "linewidth": 0.15 * looks["markersize"]}
    axis.plot(*map(list, path), alpha=0.75, zorder=2, gid="bars", label="_", **line)


def _front(axis: "Axes", cost: Cost, points: Sequence[Point], page: Page, ringed: bool) -> None:
    x, y = [cost.at(p.row) for p in points], [p.y for p in points]
    best = pareto.front([1 / v for v in x] if cost.rate else x, y)
    front_x, front_y = [x[i] for i in best], [y[i] for i in best]
    stroke = page.stroke
    axis.step(front_x, front_y, where="post", color="black", linewidth=0.6 * stroke, alpha=0.55, zorder=1.5)
    if ringed:
        ring: dict[str, Any] = {"marker": "o", "markersize": 9.5 * stroke, "markerfacecolor": "none"}
        ring |= {"markeredgewidth": 0.7 * stroke, "linestyle": "none", "color": "black"}
        axis.plot(front_x, front_y, zorder=6, label="Pareto front", **ring)


def _keeps(drawing: _Drawing, cost: Cost, methods: Sequence[str] = ()) -> list[tuple[float, float, str, str]]:
    """Return where nominal keep ratios may be written, of these methods (none: all).

    Keeping all needs no label, and a band has none.
    """
    named: list[tuple[float, float, str, str]] = []
    for name, curve in drawing.grouped.items():
        if not is_random(name) and (not methods or curve[0].row["method"] in methods):
            keeps = [p for p in curve if p.row["keep_nominal"] not in (None, 1) and cost.value(p.row) is not None]
            colour = drawing.looks(name)["color"]
            named += [(cost.at(p.row), p.y, f"{p.row['keep_nominal']:g}", colour) for p in keeps]
    return named


def _caption(drawing: _Drawing, shown: Sequence[Cost]) -> str:
    rows = [p.row for p in drawing.points]
    bars = "Wilson" if drawing.context.quality == "agree" else "paired difference to dense, bootstrap over videos"
    named = 0 < sum(row["keep_nominal"] is not None for row in rows) <= sheet.LABELS
    noisy = any(cost.timed for cost in shown) and any(row["noisy"] for row in rows)
    below = min((p.y for p in drawing.points), default=0) < shown_range(drawing.points)[0]
    return caption(
        rows,
        f"Bars: 95 % intervals ({bars}; times: rounds).",
        ("Band: random selection, likewise" + ("; it goes on below." if below else "."))
        * any(map(is_random, drawing.grouped)),
        "Numbers: nominal keep ratio." if named else "",
        "Steps: the Pareto front of all methods." if drawing.context.panels == "method" else "",
        "Half-filled markers: timed on a noisy machine." if noisy else "",
        published.explained(drawing.others),
        missing(rows),
    )
