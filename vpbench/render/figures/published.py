"""Published figures beside measured ones: hollow markers, never on an axis of time, never on a Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vpbench.render.style import Page, look
from vpbench.rows.published import VIEWS, Figure, figures
from vpbench.rows.schema import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: GMACs of a view or a frame in one unit of a metric
_COSTS = {"gmacs_per_view": 1.0, "gmacs_per_video": 1 / VIEWS, "gmacs_per_frame": 1.0}
_WAYS = {
    "fvcore": "fvcore's way, norms included",
    "mmcv": "mmcv's way, without attention's products",
    "rgtp": "RGTP's way, without the patch embedding",
    "": "in a way not stated",
}


@dataclass(frozen=True)
class Point:
    """A setting for which one source prints both quality (percent) and cost (GMACs per view or frame)."""

    method: str
    preset: str
    gmacs: float
    quality: float
    convention: str
    source: str


def points(row: Result, quality: str) -> list[Point]:
    """Return what was published of the backbone and dataset of a measured row.

    Pairs are those of one source: quality of one paper and cost of another need not belong together.
    """
    metric = _metric(row, quality)
    known = [figure for figure in figures() if (figure.backbone, figure.dataset) == (row["backbone"], row["dataset"])]
    costs = {_key(figure): figure for figure in known if figure.metric in _COSTS}
    found = []
    for figure in known:
        if figure.metric == metric and (cost := costs.get(_key(figure))) is not None:
            gmacs = cost.value * _COSTS[cost.metric]
            found.append(Point(figure.method, figure.preset, gmacs, figure.value, cost.convention, figure.source))
    return found


def _key(figure: Figure) -> tuple[str, str, str]:
    return figure.method, figure.preset, figure.source


def _metric(row: Result, quality: str) -> str:
    """Name what is published of the quality that is drawn: top-1 of verbs or nouns where rows hold those."""
    if quality == "map50":
        return "map50_pct"
    if quality != "top1":
        return ""  # agreement with our dense is in no paper
    if row["verb_top1"] is not None:
        return "verb_top1_pct"
    return "top1_pct" if row["noun_top1"] is None else "noun_top1_pct"


def draw(axis: "Axes", found: Sequence[Point], page: Page) -> None:
    """Draw published points as hollow markers, in the colour and shape of the method."""
    for method in dict.fromkeys(p.method for p in found):
        own = sorted((p.gmacs, p.quality) for p in found if p.method == method)
        hollow: dict[str, Any] = look(method, page) | {"linestyle": "none", "markerfacecolor": "none"}
        hollow["markersize"] *= 1.3
        x, y = zip(*own, strict=True)
        axis.plot(x, y, zorder=4, gid="published", label=f"{method}, published", **hollow)


def explained(found: Sequence[Point]) -> str:
    """Say what hollow markers are, and how their GMACs were counted; empty where there are none."""
    if not found:
        return ""
    sources = ", ".join(dict.fromkeys(p.source for p in found))
    ways = " or ".join(_WAYS[way] for way in dict.fromkeys(p.convention for p in found))
    return f"Hollow markers: as published ({sources}), not measured here; their GMACs were counted {ways}."
