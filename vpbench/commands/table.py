"""`vpbench table` and `vpbench published`: numbers of a results folder, and of papers, as text."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vpbench.commands.options import warn
from vpbench.errors import NothingMeasured, UsageError, VpbenchError


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
    from vpbench.render.tables import cells
    from vpbench.rows.store import Store, latest

    chosen = _format(format, out)
    store = Store(results, writable=False)
    rows = latest(store.read("results"))
    if rows.empty:
        warn(store)
        raise NothingMeasured(f"{results} holds no results; run `vpbench run` or `vpbench sweep` with --out {results}")
    videos = store.predictions("videos", rows)
    timed = metrics or against is Against.random or chosen is Format.csv
    samples = store.read("samples") if timed else None
    pages = []
    if not (metrics and chosen is Format.csv):
        pages.append(cells.report(rows, videos, chosen.value, samples, against.value))
    if metrics:
        clips = store.predictions("clips", rows, ("video_id", "macs"))
        pages.append(cells.metrics_report(rows, videos, store.read("samples"), clips, chosen.value))
    warn(store)
    _write("\n\n".join(pages), out)


def _format(asked: Format | None, out: Path | None) -> Format:
    """Return the format that was asked for, by its name or by that of the file."""
    if asked is not None:
        return asked
    if out is None:
        return Format.console
    if out.suffix not in ENDINGS:
        raise UsageError(f"{out}: give --format, or a name that ends in {', '.join(ENDINGS)}")
    return ENDINGS[out.suffix]


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
