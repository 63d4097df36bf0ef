"""Realised against nominal keep: how many tokens there really were, over all layers, of those that were asked for."""

from typing import TYPE_CHECKING

from vpbench.render.figures import sheet
from vpbench.render.figures.pareto import draw_bars
from vpbench.render.points import Context, caption, curves, variants
from vpbench.render.style import look, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(context: Context) -> "Figure | str":
    """Return the figure, or why there is none."""
    rows = [row for row in context.measured if row["keep_nominal"] is not None and row["keep_realised"] is not None]
    if not rows:
        return "no row was asked for a keep ratio"
    page = context.page
    with style(page):
        figure, [axis] = sheet.sheet(page, page.narrow, 1)
        grouped = curves(rows)
        number = variants(grouped)
        for name, curve in grouped.items():
            curve = sorted(curve, key=lambda row: row["keep_nominal"])
            looks = look(curve[0]["method"], page, number[name])
            x, y = [row["keep_nominal"] for row in curve], [row["keep_realised"] for row in curve]
            axis.plot(x, y, label=name, zorder=3, **looks)
            # tokens of a cell's clips as shares, by the same measure as their mean
            unit = [row["keep_realised"] / row["tokens_kept_mean"] for row in curve]
            ends = [(u * row["tokens_kept_p5"], u * row["tokens_kept_p95"]) for u, row in zip(unit, curve, strict=True)]
            draw_bars(axis, [(at, at) for at in x], ends, looks)
        axis.plot([0, 1], [0, 1], color="black", linewidth=0.8 * page.stroke, zorder=1, label="as asked")
        steps = [0, 0.2, 0.4, 0.6, 0.8, 1]
        axis.set(xlim=(0, 1.03), ylim=(0, 1.03), xticks=steps, yticks=steps)
        axis.set_xlabel("keep ratio asked for")
        axis.set_ylabel("tokens kept, over all layers")
        text = caption(rows, "Bars: 5th to 95th percentile of the clips.", "Methods that drop tokens late keep more of "
                       "them over all layers than they are asked to leave in the end.")  # fmt: skip
        sheet.finish(figure, [axis], text, page)
        return figure
