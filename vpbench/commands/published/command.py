"""`vpbench published`: every figure that papers print, beside ours."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vpbench.commands import options
from vpbench.commands.output import AsFormat, Out, Wide, format_of, width_of, write
from vpbench.errors import NothingMeasured, UsageError, near_matches

if TYPE_CHECKING:
    from vpbench.rows.published import Figure


def published(
    results: options.NamedResults = None,
    method: Annotated[str | None, typer.Option(help="only these, separated by commas (default: all)")] = None,
    backbone: Annotated[str | None, typer.Option(help="only these, separated by commas (default: all)")] = None,
    format: AsFormat = None,
    wide: Wide = False,
    out: Out = None,
) -> None:
    """Print what papers print, line by line, beside what is counted here and, if there are results, was measured."""
    from vpbench.commands.published.lines import lines
    from vpbench.render.tables.published import report
    from vpbench.rows import published as papers
    from vpbench.rows.store import Store, latest, results_folders

    chosen = format_of(format, out)
    figures = papers.figures()
    if not figures:
        raise NothingMeasured(f"no published figures: {papers.FOLDER} comes with a checkout, not with the wheel")
    methods, backbones = _named(figures, "method", method), _named(figures, "backbone", backbone)
    figures = [figure for figure in figures if figure.method in methods and figure.backbone in backbones]
    if not figures:
        raise NothingMeasured(f"no figure of {method} on {backbone}; leave one of them out")
    measured = results is not None or results_folders(options.OUT)
    store = Store(options.results_folder(results), writable=False) if measured else None
    rows = None if store is None else latest(store.read("results"))
    found = lines(figures, rows)
    if store is not None:
        options.warn(store)
    write(report(found, papers.reasons(), chosen, width_of(wide, out)), out)


def _named(figures: "Sequence[Figure]", what: str, names: str | None) -> set[str]:
    """Return the methods or backbones that were asked for; raises UsageError with near matches for one without any."""
    known = {str(getattr(figure, what)) for figure in figures}
    if names is None:
        return known
    asked = {part.strip() for part in names.split(",")}
    for name in sorted(asked - known | asked & {""}):
        raise UsageError(f"nothing is published here of {what} {name!r}{near_matches(name, known - {''})}")
    return asked
