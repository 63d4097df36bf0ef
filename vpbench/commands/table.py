"""`vpbench table` and `vpbench published`: numbers of a results folder, and of papers, as text."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpbench.errors import NothingMeasured, UsageError, VpbenchError, near_matches

if TYPE_CHECKING:
    from vpbench.published import Figure
    from vpbench.store import Store


class Format(StrEnum):
    """How a table is written."""

    console = "console"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"


class Against(StrEnum):
    """What methods are compared with."""

    dense = "dense"
    random = "random"


#: formats by the ends of names of files
ENDINGS = {".md": Format.markdown, ".tex": Format.latex, ".csv": Format.csv, ".txt": Format.console}

AsFormat = Annotated[
    Format | None, typer.Option(help="console, markdown, latex (booktabs) or csv (default: by the end of --out)")
]
Out = Annotated[Path | None, typer.Option(help="write to this file: .md, .tex, .csv or .txt")]


def table(
    results: Annotated[Path, typer.Argument(help="results folder")] = Path("out"),
    format: AsFormat = None,
    against: Annotated[
        Against,
        typer.Option(help="what differences, p-values and speed-ups are to: dense, or random of as many tokens"),
    ] = Against.dense,
    metrics: Annotated[
        bool,
        typer.Option("--metrics", help="also one line per method: Pareto metrics with intervals (csv: only these)"),
    ] = False,
    out: Out = None,
) -> None:
    """Print what every cell kept, cost and got right; with --metrics also one line per method."""
    from vpbench.store import Store, latest
    from vpbench.tables import table as tables

    chosen = _format(format, out)
    store = Store(results, writable=False)
    rows = latest(store.read("results"))
    if rows.empty:
        _warn(store)
        raise NothingMeasured(f"{results} holds no results; run `vpbench run` or `vpbench sweep` with --out {results}")
    videos = store.read("videos")
    timed = metrics or against is Against.random or chosen is Format.csv
    samples = store.read("samples") if timed else None
    pages = []
    if not (metrics and chosen is Format.csv):
        pages.append(tables.report(rows, videos, chosen.value, samples, against.value))
    if metrics:
        clips = store.read("clips", columns=("config_id", "video_id", "macs"))
        pages.append(tables.metrics_report(rows, videos, store.read("samples"), clips, chosen.value))
    _warn(store)
    _write("\n\n".join(pages), out)


def published(
    results: Annotated[Path | None, typer.Option(help="results folder whose rows are shown beside the figures")] = None,
    method: Annotated[str | None, typer.Option(help="only these, separated by commas (default: all)")] = None,
    backbone: Annotated[str | None, typer.Option(help="only these, separated by commas (default: all)")] = None,
    format: AsFormat = None,
    out: Out = None,
) -> None:
    """Print what papers print, line by line, beside what is counted here and, with --results, what was measured."""
    from vpbench import published as papers
    from vpbench.store import Store, latest
    from vpbench.tables import published as published_table
    from vpbench.tables import published_lines

    chosen = _format(format, out)
    figures = papers.figures()
    if not figures:
        raise NothingMeasured(f"no published figures: {papers.FOLDER} comes with a checkout, not with the wheel")
    methods, backbones = _named(figures, "method", method), _named(figures, "backbone", backbone)
    figures = [figure for figure in figures if figure.method in methods and figure.backbone in backbones]
    if not figures:
        raise NothingMeasured(f"no figure of {method} on {backbone}; leave one of them out")
    store = None if results is None else Store(results, writable=False)
    rows = None if store is None else latest(store.read("results"))
    found = published_lines.lines(figures, rows)
    if store is not None:
        _warn(store)
    _write(published_table.report(found, papers.reasons(), chosen.value), out)


def _named(figures: Sequence[Figure], what: str, names: str | None) -> set[str]:
    """Return the methods or backbones that were asked for; raises UsageError with near matches for one without any."""
    known = {str(getattr(figure, what)) for figure in figures}
    if names is None:
        return known
    asked = {part.strip() for part in names.split(",")}
    for name in sorted(asked - known | asked & {""}):
        raise UsageError(f"nothing is published here of {what} {name!r}{near_matches(name, known - {''})}")
    return asked


def _format(asked: Format | None, out: Path | None) -> Format:
    """Return the format that was asked for, by its name or by that of the file."""
    if asked is not None:
        return asked
    if out is None:
        return Format.console
    if out.suffix not in ENDINGS:
        raise UsageError(f"{out}: give --format, or a name that ends in {', '.join(ENDINGS)}")
    return ENDINGS[out.suffix]


def _warn(store: Store) -> None:
    for problem in store.problems:
        typer.echo(f"warning: {problem}", err=True)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text.rstrip("\n"))
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise VpbenchError(f"{out}: cannot write ({error.strerror}); name another file with --out") from error
    typer.echo(str(out))
