"""All figures by name, and what of them a results folder allows."""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pandas as pd

from vpbench.errors import NothingMeasured, UsageError, near_matches
from vpbench.render.figures import efficiency, keep, pareto, stages, tokens
from vpbench.render.figures.sheet import FORMATS, save
from vpbench.render.points import COST_KEYS, Context, Panels, first_known
from vpbench.render.style import PAGES, Page
from vpbench.rows.contexts import MEASURED, contexts, records
from vpbench.rows.kinds import QUALITIES
from vpbench.rows.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FIGURES: "Mapping[str, Callable[[Context], Figure | str]]" = {
    "pareto": pareto.draw,
    "speed_vs_flops": efficiency.draw,
    "keep": keep.draw,
    "stages": stages.draw,
    "tokens": tokens.draw,
}
#: letters of a file's name at most, before its ending
_LONGEST = 160


@dataclass(frozen=True)
class Request:
    """What to draw: names of figures (none: all that rows allow), formats, quality (None: the first known), page.

    methods: those to draw beside dense and random selection (none: all); costs, panels: as in `Context`; title,
    caption: of every figure, in place of none and of ours.
    """

    figures: Sequence[str] = ()
    formats: Sequence[str] = FORMATS
    quality: str | None = None
    page: str = "paper"
    methods: Collection[str] = ()
    costs: Sequence[str] = ()
    panels: Panels = "cost"
    title: str = ""
    caption: str | None = None

    @property
    def sheet(self) -> Page:
        """What figures are drawn on."""
        return replace(PAGES[self.page], title=self.title, caption=self.caption)

    def check(self) -> None:
        """Raise UsageError for names that do not exist."""
        wanted = (
            ("figure", self.figures, FIGURES),
            ("format", self.formats, FORMATS),
            ("y", [self.quality] if self.quality else [], QUALITIES),
            ("x", self.costs, COST_KEYS),
            ("panels", [self.panels], get_args(Panels)),
            ("size", [self.page], PAGES),
        )
        for kind, given, known in wanted:
            for name in given:
                if name not in known:
                    raise UsageError(f"unknown {kind} {name!r}{near_matches(name, known)}")


@dataclass(frozen=True)
class Drawn:
    """Files that were written, and a line for each figure that no rows allow."""

    files: list[Path]
    left_out: list[str]


def draw(
    results: pd.DataFrame, clips: Callable[[str], pd.DataFrame], out_folder: Path, asked: Request | None = None
) -> Drawn:
    """Draw figures for every context in `results`, each into files of its own.

    `clips` returns the rows of the `clips` table of a configuration. Raises NothingMeasured where no figure can be
    drawn or the quality that was asked for is known of no row; UsageError for unknown names; VpbenchError where
    `out_folder` cannot be written.
    """
    asked = asked or Request()
    asked.check()
    files, reasons, drawn = list[Path](), dict[str, str](), set[str]()
    for label, whole in contexts(results):
        group = _chosen(whole, asked.methods)
        for name, found in figures(records(group), clips, asked).items():
            if isinstance(found, str):
                reasons.setdefault(name, found)
                continue
            drawn.add(name)
            files += save(found, out_folder, stem(name, label, asked.page), asked.formats, PAGES[asked.page])
    if not files or (asked.quality and "pareto" not in drawn and "pareto" in reasons):
        raise NothingMeasured(_nothing(records(results), reasons))
    left_out = {name: reason for name, reason in reasons.items() if name not in drawn}
    return Drawn(files, [f"no figure {name}: {reason}" for name, reason in left_out.items()])


def _chosen(group: pd.DataFrame, methods: Collection[str]) -> pd.DataFrame:
    """Return what a context has of these methods, with dense and random beside it; all of it where none is named."""
    own = group["method"].isin(methods)
    beside = ("dense", "random") if own.any() else ()
    return group[own | group["method"].isin(beside)] if methods else group


def figures(rows: Sequence[Result], clips: Callable[[str], pd.DataFrame], asked: Request) -> "dict[str, Figure | str]":
    """Return each figure of comparable rows, or the reason why there is none."""
    measured = [row for row in rows if row["status"] in MEASURED]
    if not measured:
        return {}
    quality = asked.quality or first_known(measured)
    context = Context(rows, quality, asked.sheet, clips, asked.costs, asked.panels)
    return {name: FIGURES[name](context) for name in asked.figures or FIGURES}


def stem(name: str, label: str, page: str) -> str:
    """Return what files of a figure are called, before their ending, by the label of its context and by its page."""
    suffix = "-" + re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-") if label else ""
    return _short(name + suffix, _LONGEST) + ("" if page == "paper" else f"-{page}")


def _short(stem: str, most: int) -> str:
    """Cut a name that file systems would refuse; what was cut decides its end."""
    return stem if len(stem) <= most else f"{stem[: most - 9]}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"


def _nothing(rows: Sequence[Result], reasons: Mapping[str, str]) -> str:
    if not rows:
        return "no results to draw; run or sweep first"
    if any(row["status"] in MEASURED for row in rows):
        return "nothing to draw: " + "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return f"nothing to draw: none of {len(rows)} rows was measured; the first says: {rows[0]['error']}"
