"""Measured speed-up against saved operations; on the diagonal all savings become time."""

from typing import TYPE_CHECKING

from vpbench.render.figures import sheet
from vpbench.render.figures.pareto import draw_curve
from vpbench.render.points import Context, Cost, Point, caption, curves, variants
from vpbench.render.style import look, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_RATIO = Cost(
    "ratio", "GMACs of dense / GMACs executed", lambda row: row["gmacs_dense"] / row["gmacs_executed"], timed=True
)


def draw(context: Context) -> "Figure | str":
    """Return the figure, or why there is none."""
    known = (row for row in context.measured if row["speedup"] is not None and row["method"] != "dense")
    rows = [row for row in known if not row["caveat"]]
    if not rows:
        return "no row but dense has a speed-up"
    page = context.page
    with style(page):
        figure, [axis] = sheet.sheet(page, page.narrow, 1)
        ratios, speeds = [1.0], [1.0]
        grouped = curves(rows)
        number = variants(grouped)
        for name, curve in grouped.items():
            points = [Point(row["speedup"], row["speedup_ci_lo"], row["speedup_ci_hi"], row) for row in curve]
            draw_curve(axis, _RATIO, name, points, look(curve[0]["method"], page, number[name]))
            ratios += [_RATIO.at(p.row) for p in points]
            speeds += [bound for p in points for bound in (p.lo, p.hi)]
        low, high = min(ratios) / 1.05, max(ratios) * 1.08
        line = {"color": "black", "linewidth": 0.8 * page.stroke, "zorder": 1}
        axis.plot([low, high], [low, high], label="time = GMACs", **line)
        axis.plot([low, high], [0.8 * low, 0.8 * high], linestyle=":", label="0.8 of it", **line)
        sheet.log_x(axis, ratios)
        sheet.log_y(axis, min(speeds) / 1.05, max(*speeds, high) * 1.02)
        axis.set_xlabel(_RATIO.name)
        axis.set_ylabel("speed-up over dense, measured")
        noisy = "Half-filled markers: timed on a noisy machine." if any(row["noisy"] for row in rows) else ""
        sheet.finish(figure, [axis], caption(rows, "Bars: 95 % intervals over rounds.", noisy), page)
        return figure
