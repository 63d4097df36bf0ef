"""The paper that figures are drawn on: panels, logarithmic axes, legend and caption, labels that keep clear, files."""

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vpbench.errors import VpbenchError
from vpbench.render.points import log_range
from vpbench.render.style import Page, halo, style
from vpbench.storage import make_folder, write_whole

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    Floats = npt.NDArray[np.float64]

_NO_DATE: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
}
FORMATS = tuple(_NO_DATE)
#: of images, and of the layout: letters are as wide on both
DPI = 200
#: entries of a legend that fit into a free cell of the panels
_CELL = 9
#: points of a panel that are labelled at most; among more there is no room
LABELS = 80
#: where labels may stand, in points from the middle of a marker
_PLACES = ((-5, 4), (5, -4), (5, 4), (-5, -4), (0, 6), (0, -6), (7, 0), (-7, 0))


def sheet(page: Page, width: float, panels: int, *, across: int | None = None, **shared: Any) -> "tuple[Figure, Any]":
    """Return an empty figure `width` inches wide, drawn in memory, and a list of its panels, row by row.

    `across`: panels in a row (by default three, but two where there are four). `shared`: `sharex`, `sharey`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = across or (2 if panels == 4 else min(panels, 3))
    rows = -(-panels // across)
    figure = Figure(figsize=(width, page.height or page.panel * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    cells = figure.subplots(rows, across, squeeze=False, **shared).flatten().tolist()
    for cell in cells[panels:]:
        cell.set_axis_off()
    return figure, cells[:panels]


def log_x(axes: "Axes", values: Sequence[float]) -> None:
    """Give axes a logarithmic x scale around `values`."""
    low, high = log_range(values)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    _plain_ticks(axes.xaxis, low, high)


def log_y(axes: "Axes", low: float, high: float) -> None:
    """Give axes a logarithmic y scale from `low` to `high`."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    _plain_ticks(axes.yaxis, low, high)


def _plain_ticks(axis: "Axis", low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers in [low, high]: 1-2-5 steps over decades, evenly spaced ones over a narrow range."""
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [v for d in decades for s in steps if low <= (v := float(f"{s}e{d}")) <= high]
        if 3 <= len(found) <= 5:
            return found
    from matplotlib.ticker import MaxNLocator

    even = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(v) for v in even if low <= v <= high]


def finish(figure: "Figure", axes: "Sequence[Axes]", caption: str, page: Page) -> None:
    """Put title, legend and caption around the panels, without overlap; a page may have a caption of its own.

    Where the page allows it the figure grows with them. The layout is fixed afterwards.
    """
    legend = _legend(figure, axes)
    bottom = _caption(figure, caption if page.caption is None else page.caption, page)
    if legend is not None:
        legend.set_title(page.title)  # a title of the figure would lie on the legend
        legend.get_title().set_fontsize(page.font)
    top = figure.suptitle(page.title, fontsize=page.font) if page.title and legend is None else None
    if page.height is None:
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        around = [each for each in (bottom, top, legend) if each is not None]
        taken = sum(each.get_window_extent(renderer).height for each in around)
        # what is below and between panels: ticks and labels of their axes
        rows = axes[0].get_subplotspec().get_gridspec().nrows  # type: ignore[union-attr]
        figure.set_figheight(figure.get_figheight() + taken / figure.dpi + 0.3 * rows + 0.15)
    for _ in range(2):  # ticks follow the size of panels, and that follows ticks
        figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _caption(figure: "Figure", words: str, page: Page) -> "Text":
    """Write words below all panels, in lines as wide as the figure."""
    width, renderer = figure.get_figwidth(), figure.canvas.get_renderer()  # type: ignore[attr-defined]
    text = figure.supxlabel("", x=0.06 / width, ha="left", fontsize=page.small, color="#333333", linespacing=1.15)
    done, line = list[str](), ""
    for word in words.replace(" %", "\u00a0%").split(" "):
        text.set_text(f"{line} {word}".strip())
        if line and text.get_window_extent(renderer).width > (width - 0.12) * figure.dpi:
            done, line = [*done, line], word
        else:
            line = text.get_text()
    text.set_text("\n".join([*done, line]))
    return text


def _legend(figure: "Figure", axes: "Sequence[Axes]") -> "Legend | None":
    """Write the legend into a free cell if there is one, else above; returns it where it takes room of its own."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return None
    order = sorted(handles, key=_rank)
    shown = [handles[label] for label in order]
    free = [axis for axis in figure.axes if not axis.axison]
    if free and len(order) <= _CELL:
        free[0].legend(shown, order, loc="center", handlelength=2.6)
        return None
    for columns in range(min(len(order), 8), 0, -1):
        legend: Legend = figure.legend(
            shown, order, loc="outside upper center", ncols=columns, handlelength=2.4, columnspacing=1.3
        )
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        if columns == 1 or legend.get_window_extent(renderer).width < 0.98 * figure.bbox.width:
            return legend
        legend.remove()
    return None


def _rank(label: str) -> int:
    if label.endswith("published"):
        return 8
    return {"dense": 0, "random": 1, "Pareto front": 9}.get(label, 2)


def label_points(axes: "Axes", labels: Sequence[tuple[float, float, str, str]], page: Page) -> None:
    """Write `(x, y, text, colour)` beside points where there is room; what would lie on anything is left out.

    For a figure whose layout is fixed.
    """
    import numpy as np
    from matplotlib.transforms import Bbox

    if not labels or len(labels) > LABELS:
        return
    reach = 4 * page.stroke * axes.figure.dpi / 72  # pixels from the middle of a marker to its rim
    lines = [np.asarray(line.get_xydata(), dtype=float) for line in axes.lines if line.get_marker() != "None"]
    spots = axes.transData.transform(np.concatenate(lines))
    taken = [Bbox.from_extents(x - reach, y - reach, x + reach, y + reach) for x, y in spots]
    drawn = np.concatenate([_along(axes.transData.transform(line), reach / 2) for line in lines])
    for x, y, text, colour in labels:
        box = _place(axes, (x, y), text, colour, taken, drawn, page)
        taken += [] if box is None else [box]


def _along(line: "Floats", step: float) -> "Floats":
    """Return places on the pieces of a line, `[n, 2]` pixels, no further apart than `step`."""
    import numpy as np

    pieces = [line[:1]]
    for start, end in itertools.pairwise(line):
        count = min(int(np.hypot(*(end - start)) / step) + 2, 500)
        pieces.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    return np.concatenate(pieces)


def _place(
    axes: "Axes", at: tuple[float, float], words: str, colour: str, taken: "Sequence[Bbox]", drawn: "Floats", page: Page
) -> "Bbox | None":
    """Try places around a point; returns the box of the label, None where all lie on points, labels or lines."""
    for dx, dy in _PLACES:
        text = axes.annotate(
            words,
            at,
            (dx * page.stroke, dy * page.stroke),
            textcoords="offset points",
            ha="center" if dx == 0 else "left" if dx > 0 else "right",
            va="center" if dy == 0 else "bottom" if dy > 0 else "top",
            fontsize=page.small - 1,
            color=colour,
            path_effects=halo(page),
        )
        box = text.get_window_extent()
        inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
        inside = inside and axes.bbox.containsy(box.y0) and axes.bbox.containsy(box.y1)
        if inside and not any(box.overlaps(other) for other in taken) and not box.count_contains(drawn):
            return box
        text.remove()
    return None


def image(figure: "Figure", stream: BinaryIO, page: Page) -> None:
    """Write a figure as PNG."""
    with style(page):
        figure.savefig(stream, format="png", metadata=_NO_DATE["png"])


def save(figure: "Figure", folder: Path, stem: str, formats: Sequence[str], page: Page) -> list[Path]:
    """Write `stem` in each format and return the paths; raises VpbenchError where the folder refuses."""
    paths = [folder / f"{stem}.{kind}" for kind in formats]
    try:
        make_folder(folder)
        with style(page):
            for path, kind in zip(paths, formats, strict=True):
                drawn = io.BytesIO()
                figure.savefig(drawn, format=kind, metadata=_NO_DATE[kind])
                write_whole(path, drawn.getbuffer())
    except OSError as error:
        raise VpbenchError(
            f"{folder}: cannot write figures ({error.strerror or error}); name another folder with --out"
        ) from error
    return paths
