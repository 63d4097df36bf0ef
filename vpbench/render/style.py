"""How all figures look: pages of papers and slides, fonts, colours, and the look of each curve."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vpbench.rows.statistics import controls


@dataclass(frozen=True)
class Page:
    """What a figure is drawn on.

    wide, narrow: inches across the text, and across one of its columns. height: inches, None where a figure may be as
    high as it needs; panel: inches of a row of panels then. font, small: points of labels, and of ticks, legends and
    captions. stroke: widths of lines and markers against those on paper.
    """

    family: str
    wide: float
    narrow: float
    height: float | None
    panel: float
    font: float
    small: float
    stroke: float


#: `paper`: as LaTeX sets two columns, in letters that go with Times; `slide`: 16:9, to be read from the last row
PAGES = {
    "paper": Page("STIXGeneral", 6.75, 3.25, None, 1.75, 9.0, 8.0, 1.0),
    "slide": Page("DejaVu Sans", 13.333, 13.333, 7.5, 5.0, 18.0, 14.0, 2.0),
}
GREY = "#7f7f7f"
# Okabe & Ito's palette without its yellow (too pale for lines) and its black (dense)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("s", "^", "D", "v", "P", "p", "h")
_LINES = ("-", (0, (6, 1.5)), "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2, 2, 2)))


@contextmanager
def style(page: Page) -> Iterator[None]:
    """Draw in the style of the house, whatever the user's matplotlib is set to."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(page))
        yield


def _settings(page: Page) -> Any:
    return {
        "font.family": page.family,
        "mathtext.fontset": "stix" if page.family.startswith("STIX") else "dejavusans",
        "font.size": page.small,
        "axes.labelsize": page.font,
        "axes.titlesize": page.font,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7 * page.stroke,
        "axes.grid": True,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.5 * page.stroke,
        "axes.axisbelow": True,
        "xtick.major.width": 0.7 * page.stroke,
        "ytick.major.width": 0.7 * page.stroke,
        "xtick.minor.size": 0,
        "lines.linewidth": 1.1 * page.stroke,
        "lines.markersize": 4.5 * page.stroke,
        "hatch.linewidth": 0.6 * page.stroke,
        "legend.frameon": False,
        "figure.constrained_layout.h_pad": 0.04 * page.stroke,
        "figure.constrained_layout.w_pad": 0.04 * page.stroke,
        "pdf.fonttype": 42,  # text stays text in a paper
        "svg.hashsalt": "vpbench",  # equal results give equal files
        "svg.fonttype": "path",
    }


def look(name: str, number: int, page: Page) -> dict[str, Any]:
    """Return colour, marker and line of the `number`-th curve; random controls are grey everywhere."""
    if is_random(name):
        return {"color": GREY, "marker": "o", "linestyle": (0, (3, 2)), "markersize": 4 * page.stroke}
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _LINES[number % len(_LINES)],
        "markersize": 4.5 * page.stroke,
    }


def dense_look(page: Page) -> dict[str, Any]:
    """Return the look of dense: a star, without a line."""
    return {"color": "black", "marker": "*", "markersize": 9 * page.stroke, "linestyle": "none"}


def halo(page: Page) -> list[Any]:
    """Return what keeps letters apart from lines behind them."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=1.5 * page.stroke, foreground="white")]


def is_random(curve: str) -> bool:
    """Say whether a curve, by its name, is a random control's."""
    return controls.is_random({"method": curve.split()[0]})
