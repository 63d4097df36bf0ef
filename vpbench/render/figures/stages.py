"""Where the time goes: the stages of a forward, stacked, in ms per clip and as shares of what dense takes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vpbench.render.figures import sheet
from vpbench.render.points import Context, caption, cell_names, spread
from vpbench.render.style import Page, halo, style
from vpbench.rows import kinds
from vpbench.rows.schema import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: bars of a figure, dense apart; of more cells so many are drawn, evenly spread
MOST = 20
#: stages in their order, with colour and hatch: hatched is what pruning adds
LOOKS = {
    "embed": ("#56B4E9", ""),
    "attention": ("#0072B2", ""),
    "mlp": ("#E69F00", ""),
    "scoring": ("#D55E00", "////"),
    "gather": ("#CC79A7", "\\\\\\\\"),
    "restore": ("#F0E442", "...."),
    "head": ("#009E73", ""),
    "rest": ("#bdbdbd", ""),
}


def draw(context: Context) -> "Figure | str":
    """Return the figure, or why there is none."""
    known = [row for row in context.measured if row["stage_total_ms"] is not None]
    if not known:
        return "no row knows its stages; measure with --stages"
    page, shown = context.page, spread(known, MOST)
    with style(page):
        figure, axes = sheet.sheet(page, page.wide, 2, sharey=True)
        if page.height is None:
            figure.set_figheight(0.25 * len(shown) + 0.3)
        # as shares, by dense in the rounds of the same cell: cells were not all timed in the same minute
        whole = [row["stage_dense_ms"] / 100 for row in shown]
        for axis, unit, form in zip(axes, ([1.0] * len(shown), whole), (".3g", ".0f"), strict=True):
            _bars(axis, shown, unit, form, page)
        axes[0].set_yticks(range(len(shown)), cell_names(shown, known))
        axes[0].invert_yaxis()
        axes[0].set_xlabel(f"ms per {kinds.unit(shown[0])}")
        axes[1].set_xlabel("share of dense, %")
        axes[1].axvline(100, color="black", linewidth=0.7 * page.stroke, linestyle=":", zorder=3)
        sheet.finish(figure, axes, _caption(context, known, shown), page)
        return figure


def _bars(axis: "Axes", rows: Sequence[Row], unit: Sequence[float], form: str, page: Page) -> None:
    ends = [0.0] * len(rows)
    for stage, (colour, hatch) in LOOKS.items():
        widths = [row[f"stage_{stage}_ms"] / u for row, u in zip(rows, unit, strict=True)]
        if any(widths):
            bars: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
            axis.barh(range(len(rows)), widths, left=ends, height=0.72, label=stage, **bars)
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for number, end in enumerate(ends):
        beside: dict[str, Any] = {"xytext": (3 * page.stroke, 0), "textcoords": "offset points", "va": "center"}
        axis.annotate(format(end, form), (end, number), path_effects=halo(page), zorder=4, **beside)
    axis.set_xlim(0, 1.14 * max(ends))
    axis.grid(visible=False, axis="y")


def _caption(context: Context, known: Sequence[Result], shown: Sequence[Result]) -> str:
    rounds = min(row["n_stage_rounds"] for row in shown)
    left = len(spread(known, len(known))) - len(shown)
    dense = next((row for row in shown if row["method"] == "dense" and row["wall_ms_p50"]), None)
    above = (
        ""
        if dense is None
        else (f"with it dense took {dense['stage_total_ms'] / dense['wall_ms_p50']:.2f} times its median without")
    )
    return caption(
        shown,
        f"{rounds} rounds of their own, with a stopwatch between stages" + (f"; {above}." if above else "."),
        "Hatched: what pruning adds.",
        f"{left} more cells are not drawn." if left else "",
        "Dense was not measured." if context.dense is None else "",
    )
