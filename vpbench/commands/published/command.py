"""`vpbench published`: every figure that papers print, beside ours."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vpbench.commands import options
from vpbench.commands.output import Across, AsFormat, Out, Wide, format_of, width_of, write
from vpbench.errors import NothingMeasured

if TYPE_CHECKING:
    from vpbench.rows.published import Figure


def published(
    results: options.NamedResults = None,
    method: Annotated[
        str | None, typer.Option(help="only these and dense beside them, separated by commas (default: all)")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="only these, separated by commas (default: all)")] = None,
    format: AsFormat = None,
    across: Across = "page",
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
    methods = options.picked("method", method, {figure.method for figure in figures})
    backbones = options.picked("backbone", backbone, {figure.backbone for figure in figures})
    figures = _beside_dense([f for f in figures if not backbones or f.backbone in backbones], methods)
    if not figures:
        raise NothingMeasured(f"no figure of {method} on {backbone}; leave one of them out")
    measured = results is not None or results_folders(options.OUT)
    store = Store(options.results_folder(results), writable=False) if measured else None
    rows = None if store is None else latest(store.read("results"))
    found = lines(figures, rows)
    if store is not None:
        options.warn(store)
    write(report(found, papers.reasons(), chosen, width_of(wide, out, chosen, across)), out)


def _beside_dense(figures: "Sequence[Figure]", methods: Collection[str]) -> "list[Figure]":
    """Return figures of these methods (none: all), and those of dense to hold them against.

    That are dense's on the same backbone, or by the same source where it names none.
    """

    def place(figure: "Figure") -> str:
        return figure.backbone or figure.source

    chosen = [figure for figure in figures if not methods or figure.method in methods]
    places = {place(figure) for figure in chosen}
    return [f for f in figures if f in chosen or (f.method == "dense" and place(f) in places)]
