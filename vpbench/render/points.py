"""What all figures share: the quality of a row with its interval, and which rows make a curve."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from vpbench.render.style import Page
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED, judged, peak_mb, setup, top1_interval
from vpbench.rows.names import Names
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls, intervals

Panels = Literal["cost", "method"]
#: how much of a figure's height goes to random controls that lie below everything else
RANDOM = 0.12


@dataclass(frozen=True)
class Context:
    """What a figure is drawn from: comparable rows, the quality to draw, and the page.

    `clips` returns the rows of the `clips` table of a configuration, by its id. Of quality against cost: `costs`, keys
    of axes (none: all that are known), and what a panel is for, a cost or a method.
    """

    rows: Sequence[Result]
    quality: str
    page: Page
    clips: Callable[[str], pd.DataFrame]
    costs: Sequence[str] = ()
    panels: Panels = "cost"

    @property
    def measured(self) -> list[Result]:
        """Rows that hold numbers."""
        return [row for row in self.rows if row["status"] in MEASURED and row["gmacs_executed"] is not None]

    @property
    def dense(self) -> Result | None:
        """The newest row of dense, if it was measured."""
        return max((r for r in self.measured if r["method"] == "dense"), key=_age, default=None)


@dataclass(frozen=True)
class Point:
    """One cell: quality in percent with its interval, and its row."""

    y: float
    lo: float
    hi: float
    row: Result


#: columns of both ends of an interval
Ends = (
    tuple[Literal["wall_ms_ci_lo"], Literal["wall_ms_ci_hi"]]
    | tuple[Literal["train_ms_ci_lo"], Literal["train_ms_ci_hi"]]
)


@dataclass(frozen=True)
class Cost:
    """One cost axis: key and name, where the cost is, where its interval is (if it has one), whether noise spoils it.

    `rate`: more is better. `counted`: published figures can be counted in the same unit.
    """

    key: str
    name: str
    value: Callable[[Result], float | None]
    interval: Ends | None = None
    timed: bool = False
    rate: bool = False
    counted: bool = False

    def at(self, row: Result) -> float:
        """Return where a row lies on this axis; for rows that are known to."""
        return float(self.value(row) or 0)

    def span(self, row: Result) -> tuple[float, float]:
        """Return how far a row's bar reaches to the left and to the right; 0 where there is no interval."""
        low, high = (row[self.interval[0]], row[self.interval[1]]) if self.interval else (None, None)
        at = self.at(row)
        return (0.0, 0.0) if low is None or high is None else (max(0.0, at - low), max(0.0, high - at))

    def ends(self, rows: Iterable[Result]) -> list[float]:
        """Return where the bars of rows begin and end that are known on this axis."""
        known = [row for row in rows if self.value(row)]
        return [self.at(row) + side for row in known for side in (-self.span(row)[0], self.span(row)[1])]


def costs(unit: str) -> tuple[Cost, ...]:
    """Return the cost axes of rows that are per clip or per frame."""
    model: Ends = ("wall_ms_ci_lo", "wall_ms_ci_hi")
    step: Ends = ("train_ms_ci_lo", "train_ms_ci_hi")
    return (
        # of detectors' figures in papers the head is no part: they have an axis of their own
        Cost("gmacs", f"GMACs per {unit}, as executed", lambda row: row["gmacs_executed"], counted=unit == "clip"),
        Cost("ms", f"ms per {unit}, median", lambda row: row["wall_ms_p50"], model, timed=True),
        Cost("rate", f"{unit}s per second", lambda row: row["clips_per_s"], timed=True, rate=True),
        Cost("memory", "peak memory, MB", peak_mb),
        Cost("e2e", f"ms per {unit}, file to answer", _from_file, timed=True),
        Cost("rgtp", f"GMACs per {unit}, as RGTP counts", lambda row: row["gmacs_rgtp"], counted=True),
        Cost("train", f"ms per {unit} of a training step, median", lambda row: row["train_ms_p50"], step, timed=True),
    )


def _from_file(row: Result) -> float | None:
    return None if not row["e2e_clips_per_s"] else 1e3 / float(row["e2e_clips_per_s"])


#: what axes of cost are called
COST_KEYS = tuple(cost.key for cost in costs("clip"))


def first_known(rows: Iterable[Result]) -> str:
    """Return the quality that is drawn where none was asked for."""
    found = list(rows)
    if any(row["top1"] is not None for row in found):
        return "top1"
    return "map50" if any(row["map50"] is not None for row in found) else "agree"


def point(row: Result, quality: str) -> Point | None:
    """Return a row's quality; None where it is unknown."""
    if quality == "agree":
        if row["agree"] is None or not judged(row):
            return None
        if row["method"] == "dense":  # with itself: nothing was sampled
            return Point(100 * row["agree"], 100 * row["agree"], 100 * row["agree"], row)
        share = intervals.wilson(round(row["agree"] * judged(row)), judged(row))
        return Point(100 * row["agree"], 100 * share.lo, 100 * share.hi, row)
    whole = top1_interval(row) if quality == "top1" else kinds.map50_interval(row)
    if whole is None:
        return None
    if row["method"] == "dense":
        return Point(whole.value, whole.value, whole.value, row)
    if row["delta_pp"] is None or row["delta_ci_lo"] is None:
        return Point(whole.value, whole.lo, whole.hi, row)
    # what matters in the figure is the distance to the line of dense, and that is known better than quality itself
    dense = whole.value - row["delta_pp"]
    return Point(whole.value, dense + row["delta_ci_lo"], dense + row["delta_ci_hi"], row)


def curves(rows: Sequence[Result]) -> dict[str, list[Result]]:
    """Group rows into curves: random first, then one per method and, where they differ, per non-numeric setting.

    Dense is a point and belongs to none. Rows of a curve are in order of their cost.
    """
    found: dict[str, list[Result]] = {}
    names = Names(rows)
    for row in sorted(rows, key=lambda r: (r["method"] != "random", r["method"], r["gmacs_executed"])):
        if row["method"] != "dense":
            name = f"{row['method']} {names.variant(row)}".rstrip()
            name += f" ({row['caveat']})" if row["caveat"] else ""
            found.setdefault(name, []).append(row)
    return found


def variants(grouped: Mapping[str, Sequence[Result]]) -> dict[str, int]:
    """Number the curves of each method, by their names; most methods have one, which is 0."""
    own: dict[str, list[str]] = {}
    for name, rows in grouped.items():
        own.setdefault(rows[0]["method"], []).append(name)
    return {name: number for names in own.values() for number, name in enumerate(sorted(names))}


def shown_range(points: Sequence[Point]) -> tuple[float, float]:
    """Return from where to where quality is drawn: all points with their bars, but of random controls no more than
    `RANDOM` of that height below them, since few tokens at random would otherwise take most of it.
    """
    own = [p for p in points if p.row["method"] != "dense" and not controls.is_random(p.row)]
    ends = [(min(p.lo, p.y), max(p.hi, p.y)) for p in points]
    low, high = min(lo for lo, _ in ends), max(hi for _, hi in ends)
    if own:
        least = min(min(p.lo, p.y) for p in own)
        low = max(low, least - RANDOM * (high - least))
    pad = max(0.05 * (high - low), 0.25)
    return low - pad, high + pad


def log_range(values: Sequence[float]) -> tuple[float, float]:
    """Return from where to where a logarithmic axis shows these values: with a little air around them."""
    pad = max((max(values) / min(values)) ** 0.08, 1.02)
    return min(values) / pad, max(values) * pad


def spread(rows: Sequence[Result], most: int) -> list[Result]:
    """Return dense and the cells in order of their curves; of more than `most` cells so many, evenly spread."""
    dense = [row for row in rows if row["method"] == "dense"]
    cells = [row for curve in curves(rows).values() for row in curve]
    if len(cells) > most:
        cells = [cells[round(k * (len(cells) - 1) / (most - 1))] for k in range(most)]
    return [*([max(dense, key=_age)] if dense else []), *cells]


def cell_names(shown: Sequence[Result], rows: Sequence[Result]) -> list[str]:
    """Name cells in few words: method and nominal keep ratio, or else its setting among `rows`."""
    settings, names = Names(rows), []
    for row in shown:
        keep = "" if row["keep_nominal"] is None else f"{row['keep_nominal']:g}"
        names.append(f"{row['method']} {keep or settings.setting(row)}".rstrip())
    return names


def caption(rows: Sequence[Result], *sentences: str) -> str:
    """Return hardware and data of rows that share them, and then `sentences`; empty ones are left out."""
    seen = f"{setup(rows[0])}; {max(judged(row) for row in rows)} {kinds.judged_unit(rows[0])}s."
    return " ".join(part[0].upper() + part[1:] for part in (seen, *sentences) if part)


def missing(rows: Sequence[Result]) -> str:
    """Say which of the two references, dense and random, was not measured."""
    methods = {"random" if controls.is_random(row) else row["method"] for row in rows}
    return " ".join(f"{name.capitalize()} was not measured." for name in ("dense", "random") if name not in methods)


def _age(row: Result) -> Any:
    return row["timestamp_utc"]
