"""`vpbench published`: every figure that papers print, beside ours."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpbench.commands.options import warn
from vpbench.commands.output import AsFormat, Out, format_of, write
from vpbench.errors import NothingMeasured, UsageError, near_matches

if TYPE_CHECKING:
    from vpbench.rows.published import Figure


def published(
    results: Annotated[Path | None, typer.Option(help="results folder whose rows are shown beside the figures")] = None,
    method: Annotated[str | None, typer.Option(help="only these, separated by commas (default: all)")] = None,
    backbone: Annotated[str | None, typer.Option(help="only these, separated by commas (default: all)")] = None,
    format: AsFormat = None,
    out: Out = None,
) -> None:
    """Print what papers print, line by line, beside what is counted here and, with --results, what was measured."""
    from vpbench.commands.published.lines import lines
    from vpbench.render.tables.published import report
    from vpbench.rows import published as papers
    from vpbench.rows.store import Store, latest

    chosen = format_of(format, out)
    figures = papers.figures()
    if not figures:
        raise NothingMeasured(f"no published figures: {papers.FOLDER} comes with a checkout, not with the wheel")
    methods, backbones = _named(figures, "method", method), _named(figures, "backbone", backbone)
    figures = [figure for figure in figures if figure.method in methods and figure.backbone in backbones]
    if not figures:
        raise NothingMeasured(f"no figure of {method} on {backbone}; leave one of them out")
    store = None if results is None else Store(results, writable=False)
    rows = None if store is None else latest(store.read("results"))
    found = lines(figures, rows)
    if store is not None:
        warn(store)
    write(report(found, papers.reasons(), chosen), out)


def _named(figures: "Sequence[Figure]", what: str, names: str | None) -> set[str]:
    """Return the methods or backbones that were asked for; raises UsageError with near matches for one without any."""
    known = {str(getattr(figure, what)) for figure in figures}
    if names is None:
        return known
    asked = {part.strip() for part in names.split(",")}
    for name in sorted(asked - known | asked & {""}):
        raise UsageError(f"nothing is published here of {what} {name!r}{near_matches(name, known - {''})}")
    return asked
