"""The paper that figures are drawn on: style, logarithmic axes, legend and caption, labels that keep clear, files."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpbench.errors import VpbenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

WIDTH = 7.2  # inches: two columns of a paper
MARGIN = 0.06  # inches between the canvas and what is drawn


_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.minor.size": 0,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text in a paper
    "svg.hashsalt": "vpbench",  # equal results give equal files
    "svg.fonttype": "path",
    "savefig.dpi": 200,
}
_NO_DATE: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in the style of the house, whatever the user's matplotlib is set to."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def sheet(width: float) -> Figure:
    """Return an empty figure `width` inches wide that is drawn in memory."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.6))
    FigureCanvasAgg(figure)
    return figure


def log_x(axes: Axes, values: Sequence[float]) -> None:
    """Give axes a logarithmic x scale around `values`, with a little air."""
    pad = max((max(values) / min(values)) ** 0.08, 1.02)
    low, high = min(values) / pad, max(values) * pad
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _plain_ticks(axes.xaxis, low, high)


def log_y(axes: Axes, low: float, high: float) -> None:
    """Give axes a logarithmic y scale from `low` to `high`."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    _plain_ticks(axes.yaxis, low, high)


def _plain_ticks(axis: Axis, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers in [low, high]: 1-2-5 steps over decades, evenly spaced ones over a narrow range."""
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [v for d in decades for s in steps if low <= (v := float(f"{s}e{d}")) <= high]
        if 3 <= len(found) <= 6:
            return found
    from matplotlib.ticker import MaxNLocator

    even = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(v) for v in even if low <= v <= high]


def label_points(axes: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Write `(x, y, text, colour)` beside points where there is room; what would overlap is left out."""
    import numpy as np
    from matplotlib.transforms import Bbox

    reach = 4 * axes.figure.dpi / 72  # pixels from the middle of a marker to its rim
    lines = [np.asarray(line.get_xydata(), dtype=float) for line in axes.lines if line.get_marker() != "None"]
    spots = axes.transData.transform(np.concatenate(lines))
    taken = [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in spots]
    for x, y, text, colour in labels:
        box = _place(axes, (x, y), text, colour, taken)
        taken += [] if box is None else [box]


def _place(axes: Axes, at: tuple[float, float], words: str, colour: str, taken: Sequence[Bbox]) -> Bbox | None:
    """Try the four corners around a point; returns the box of the label, None where every corner is taken."""
    from matplotlib import patheffects

    for dx, dy in ((-5, 4), (5, -4), (5, 4), (-5, -4)):
        text = axes.annotate(
            words,
            at,
            (dx, dy),
            textcoords="offset points",
            ha="left" if dx > 0 else "right",
            va="bottom" if dy > 0 else "top",
            fontsize=6.5,
            color=colour,
            path_effects=[patheffects.withStroke(linewidth=1.5, foreground="white")],
        )
        box = text.get_window_extent()
        inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) and axes.bbox.containsy(box.y0)
        if inside and not any(box.overlaps(other) for other in taken):
            return box
        text.remove()
    return None


def finish(figure: Figure, axes: Sequence[Axes], caption: str, legend_columns: int) -> None:
    """Stack legend, panels and caption without overlap; the figure grows with its legend and caption."""
    width = figure.get_figwidth()
    lines = textwrap.wrap(caption, int(width * 19.5))
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    legend_rows = math.ceil(len(handles) / legend_columns)
    top, bottom = MARGIN + 0.19 * legend_rows + 0.08, MARGIN + 0.125 * len(lines) + 0.5
    height = 2.3 + top + bottom
    figure.set_figheight(height)
    figure.subplots_adjust(
        left=0.52 / width, right=1 - 0.1 / width, top=1 - top / height, bottom=bottom / height, wspace=0.1
    )
    order = sorted(handles, key=lambda label: {"dense": 0, "random": 1, "Pareto front": 9}.get(label, 2))
    figure.legend(
        [handles[label] for label in order],
        order,
        loc="upper center",
        ncols=min(legend_columns, len(order)),
        bbox_to_anchor=(0.5, 1),
        borderaxespad=0.3,
        handlelength=2.6,
        columnspacing=1.6,
    )
    figure.text(MARGIN / width, MARGIN / height, "\n".join(lines), fontsize=6.5, color="#333333", va="bottom")


def save(figure: Figure, folder: Path, stem: str, formats: Sequence[str]) -> list[Path]:
    """Write `stem` in each format and return the paths; raises VpbenchError where the folder refuses."""
    paths = [folder / f"{stem}.{kind}" for kind in formats]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with style():
            for path, kind in zip(paths, formats, strict=True):
                figure.savefig(path, metadata=_NO_DATE[kind])
    except OSError as error:
        raise VpbenchError(
            f"{folder}: cannot write figures ({error.strerror}); name another folder with --out"
        ) from error
    return paths
