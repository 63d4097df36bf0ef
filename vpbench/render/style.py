"""How all figures look: pages of papers and slides, fonts, and the look of each method, here and in HTML."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from vpbench.rows.statistics import controls


@dataclass(frozen=True)
class Page:
    """What a figure is drawn on.

    wide, narrow: inches across the text, and across one of its columns. height: inches, None where a figure may be as
    high as it needs; panel: inches of a row of panels then. font, small: points of labels, and of ticks, legends and
    captions. stroke: widths of lines and markers against those on paper. title: above a figure, none if empty;
    caption: below it, None for the one that says what it is drawn from.
    """

    family: str
    wide: float
    narrow: float
    height: float | None
    panel: float
    font: float
    small: float
    stroke: float
    title: str = ""
    caption: str | None = None


#: `paper`: as LaTeX sets two columns, in letters that go with Times; `slide`: 16:9, to be read from the last row
PAGES = {
    "paper": Page("STIXGeneral", 6.75, 3.25, None, 1.75, 9.0, 8.0, 1.0),
    "slide": Page("DejaVu Sans", 13.333, 13.333, 7.5, 5.0, 18.0, 14.0, 2.0),
}
GREY = "#7f7f7f"


@dataclass(frozen=True)
class Look:
    """What all points of a curve look like, on paper and on pages alike.

    `colour`: on white, `night`: on black; `marker`: matplotlib's name of it, `path`: the same as SVG draws it, within
    -6 to 6; `dashes`: lengths of strokes and gaps in widths of the line, none for a whole line. Curves can be told
    apart by marker and dashes alone, as where nothing but greys is printed.
    """

    colour: str
    night: str
    marker: str
    path: str
    dashes: tuple[float, ...] = ()


# contrast is at least 3 against white and against black paper; neighbours differ for those who see no red or green too
_COLOURS = (
    ("#0068a8", "#5cb3f0"), ("#c44e00", "#f58d50"), ("#007657", "#38c9a2"), ("#a63a7b", "#ee97c8"),
    ("#946c00", "#e4b544"), ("#4a5ac0", "#a7b4ff"), ("#b3202c", "#ff8f93"), ("#00808c", "#55cfdb"),
    ("#7d3fa3", "#d1a0ec"), ("#586a00", "#b7cb47"), ("#7b4b2a", "#d6a682"),
)  # fmt: skip
_MARKERS = (
    ("s", "M-4,-4H4V4H-4Z"),
    ("^", "M0,-5.2L5,4H-5Z"),
    ("D", "M0,-5.6L5.6,0L0,5.6L-5.6,0Z"),
    ("v", "M0,5.2L5,-4H-5Z"),
    ("P", "M-1.7,-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z"),
    ("p", "M0,-5.2L5,-1.6L3.1,4.3H-3.1L-5,-1.6Z"),
    ("h", "M-2.7,-4.7H2.7L5.4,0L2.7,4.7H-2.7L-5.4,0Z"),
)
_DASHES = ((), (6, 1.5), (6, 1.5, 1, 1.5), (3, 1, 1, 1, 1, 1))
#: methods with a look of their own, in the order of their looks: those that are compared most often look most different
_NAMED = (
    "rlt", "sta", "rgtp", "stts", "tome", "tdiff", "topk", "evs", "pitome", "wpr", "representation_shift", "ats",
    "vidtldr", "eventful", "oracle", "frame_stride", "downsample", "random_tube", "stts_uniform", "centre",
)  # fmt: skip
_DENSE = Look("#1b1f24", "#e9ebee", "*", "M0,-8L2,-2.6L7.6,-2.5L3.1,1L4.7,6.5L0,3.3L-4.7,6.5L-3.1,1L-7.6,-2.5L-2,-2.6Z")
_RANDOM = Look("#6a727c", "#9da6b0", "o", "M-3,0A3,3 0 1 1 3,0A3,3 0 1 1 -3,0Z", (3, 2))


def look_of(method: str, variant: int = 0) -> Look:
    """Return the look of a method, by its name: the same in every figure and page, for methods of anybody.

    variant: of several curves of one method, which; they share the colour. Random controls are grey.
    """
    if method == "dense":
        return _DENSE
    if controls.is_random({"method": method}):
        own = method.removesuffix("_random")  # each method's own control has that method's marker
        return _RANDOM if own == method else replace(look_of(own, variant), colour=_RANDOM.colour, night=_RANDOM.night)
    if method in _NAMED:
        colour = dashes = _NAMED.index(method)
        marker = colour + 3 * (colour // len(_COLOURS))  # of two with one colour, not the same again
    else:
        colour, marker, dashes = hashlib.sha256(method.encode()).digest()[:3]
    return Look(
        *_COLOURS[colour % len(_COLOURS)],
        *_MARKERS[(marker + variant) % len(_MARKERS)],
        _DASHES[(dashes + variant) % len(_DASHES)],
    )


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


def look(method: str, page: Page, variant: int = 0) -> dict[str, Any]:
    """Return `look_of` as matplotlib wants it."""
    own = look_of(method, variant)
    return {
        "color": own.colour,
        "marker": own.marker,
        "linestyle": "none" if method == "dense" else (0, own.dashes) if own.dashes else "-",
        "markersize": {"*": 9, "o": 3}.get(own.marker, 4.5) * page.stroke,
    }


def halo(page: Page) -> list[Any]:
    """Return what keeps letters apart from lines behind them."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=1.5 * page.stroke, foreground="white")]


def is_random(curve: str) -> bool:
    """Say whether a curve, by its name, is a random control's."""
    return controls.is_random({"method": curve.split()[0]})
