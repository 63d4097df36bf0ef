"""Tokens per clip as distributions: how much a method's work follows the content."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vpbench.render.figures import sheet
from vpbench.render.points import Context, caption, cell_names, curves, spread, variants
from vpbench.render.style import look, style
from vpbench.rows import kinds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: cells of a figure, dense apart; of more so many are drawn, evenly spread
MOST = 40
Floats = npt.NDArray[np.float64]


def draw(context: Context) -> "Figure | str":
    """Return the figure, or why there is none."""
    rows, page = context.measured, context.page
    counted = [(row, found) for row in spread(rows, MOST) if (found := counts(context.clips(row["config_id"]))).size]
    cells = [(row, found) for row, found in counted if row["method"] != "dense"]
    if not cells:
        return "no clip of a method has its tokens"
    whole = next((found for row, found in counted if row["method"] == "dense"), None)
    grouped = curves([row for row, _ in cells])
    names = {id(row): name for name, curve in grouped.items() for row in curve}
    number = variants(grouped)
    unit = kinds.unit(rows[0])
    with style(page):
        figure, axes = sheet.sheet(page, page.wide, 2, across=1, sharex=True)
        for part, (axis, title) in enumerate(zip(axes, ("mean of the blocks", "into the last block"), strict=True)):
            for at, (row, found) in enumerate(cells):
                name = names[id(row)]
                _cell(axis, at, found[part], name, look(row["method"], page, number[name]))
            if whole is not None:
                level = float(np.median(whole[part]))
                axis.axhline(level, color="black", linestyle=":", linewidth=page.stroke, label="dense")
            axis.set_ylim(bottom=0)
            axis.set_ylabel(f"tokens per {unit},\n{title}")
            axis.grid(visible=False, axis="x")
        labels = [name.split(maxsplit=1)[-1] for name in cell_names([row for row, _ in cells], rows)]
        upright = max(map(len, labels)) > 5 or len(labels) > 28
        axes[1].set_xticks(range(len(cells)), labels, rotation=90 if upright else 0)
        axes[1].set_xlabel("keep ratio asked for, or setting")
        left = len(spread(rows, len(rows))) - len(spread(rows, MOST))
        text = caption(rows, f"Each shape: the {unit}s of a cell, its bar their median; a bar alone: all have as many.",
                       f"{left} more cells are not drawn." if left else "")  # fmt: skip
        sheet.finish(figure, axes, text, page)
        return figure


def counts(clips: pd.DataFrame) -> Floats:
    """Return tokens of each clip, `[2, clips]`: their mean over the blocks, and those that enter the last one."""
    layers = clips["tokens_layer"].dropna().tolist()
    if not layers:
        return np.empty((2, 0))
    return np.array([(float(np.mean(each)), float(each[-1])) for each in layers]).T


def _cell(axis: "Axes", at: int, tokens: Floats, name: str, looks: dict[str, Any]) -> None:
    colour, middle = looks["color"], float(np.median(tokens))
    labelled = name in axis.get_legend_handles_labels()[1]
    if np.ptp(tokens) > 0:
        bodies: Any = axis.violinplot([tokens], [at], widths=0.8, showextrema=False)["bodies"]
        bodies[0].set(facecolor=colour, edgecolor=colour, alpha=0.35, linewidth=0.15 * looks["markersize"])
    line: dict[str, Any] = {"color": colour, "linewidth": 0.4 * looks["markersize"], "solid_capstyle": "butt"}
    axis.plot([at - 0.3, at + 0.3], [middle, middle], label="_" if labelled else name, **line)
