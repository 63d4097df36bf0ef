"""`vpbench table`: numbers of a results folder as text."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vpbench.commands.options import warn
from vpbench.commands.output import AsFormat, Format, Out, format_of, write
from vpbench.errors import NothingMeasured


class Against(StrEnum):
    """What methods are compared with."""

    dense = "dense"
    random = "random"


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

    chosen = format_of(format, out)
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
    write("\n\n".join(pages), out)
