"""All analyses by name, as tables and as figures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from vpbench.errors import NothingMeasured, UsageError, near_matches
from vpbench.render.analyses import frames, hard, overlap, strata, views
from vpbench.render.analyses.part import Found, Missing, Part, Stored
from vpbench.render.figures.catalog import Drawn, stem
from vpbench.render.figures.sheet import save
from vpbench.render.style import Page
from vpbench.render.tables.layout import Layout

ANALYSES: Mapping[str, Callable[[Stored], Iterable[Found]]] = {
    hard.NAME: hard.of,
    overlap.NAME: overlap.of,
    strata.NAME: strata.of,
    frames.NAME: frames.of,
    views.NAME: views.of,
}


def every(stored: Stored) -> list[Found]:
    """Return what all analyses come to."""
    return [part for of in ANALYSES.values() for part in of(stored)]


def check(names: Sequence[str]) -> None:
    """Raise UsageError for names that do not exist, and for none."""
    if not names:
        raise UsageError(f"name an analysis: {', '.join(ANALYSES)}")
    for name in names:
        if name not in ANALYSES:
            raise UsageError(f"unknown analysis {name!r}{near_matches(name, ANALYSES)}")


def report(stored: Stored, names: Sequence[str], fmt: str = "console", width: float | None = None) -> str:
    """Return the tables of analyses, below each other, and why others are not there (`csv`: all numbers of one).

    Raises NothingMeasured where there is none, UsageError for unknown names and formats, and several as csv.
    """
    check(names)
    layout = Layout.of(fmt, width, f"vpbench table --analysis {','.join(names)}")
    if fmt == "csv" and len(names) > 1:
        raise UsageError("csv is one table; name one analysis")
    found = [part for name in names for part in ANALYSES[name](stored)]
    parts = [part for part in found if isinstance(part, Part)]
    if not parts:
        raise NothingMeasured("nothing to show: " + ("; ".join(map(_said, reasons(found))) or "nothing was measured"))
    if fmt == "csv":
        return pd.concat([part.frame for part in parts], ignore_index=True).to_csv(index=False)
    pages = [layout.page(_heading(part), part.laid(layout.split), part.notes) for part in parts]
    return layout.document([*pages, *(layout.line(f"no {_said(each)}") for each in reasons(found))])


def reasons(found: Iterable[Found]) -> list[Missing]:
    """Return why analyses are not there, once for all contexts of which the same holds."""
    seen: dict[tuple[str, str], Missing] = {}
    for each in found:
        if isinstance(each, Missing):
            seen.setdefault((each.name, each.reason), each)
    return list(seen.values())


def draw(
    stored: Stored, names: Sequence[str], out_folder: Path, formats: Sequence[str], size: str, page: Page
) -> Drawn:
    """Draw analyses on pages of a size, each into files of its own.

    Raises UsageError for unknown names, VpbenchError as `save` does.
    """
    check(names)
    found = [part for name in names for part in ANALYSES[name](stored)]
    files = []
    for part in found:
        if isinstance(part, Part):
            files += save(part.draw(page), out_folder, stem(part.name, part.label, size), formats, page)
    drawn = {part.name for part in found if isinstance(part, Part)}
    return Drawn(files, [f"no figure {_said(each)}" for each in reasons(found) if each.name not in drawn])


def _heading(part: Part) -> str:
    return f"{part.label}: {part.title}" if part.label else part.title


def _said(each: Missing) -> str:
    return f"{each.name}: {each.reason}"
