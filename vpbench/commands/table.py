"""`vpbench table`: numbers of a results folder as text."""

from enum import StrEnum
from typing import Annotated

import typer

from vpbench.commands.options import Results, results_folder, warn
from vpbench.commands.output import AsFormat, Format, Out, Wide, format_of, width_of, write
from vpbench.errors import NothingMeasured


class Against(StrEnum):
    """What methods are compared with."""

    dense = "dense"
    random = "random"


def table(
    results: Results = None,
    format: AsFormat = None,
    against: Annotated[
        Against,
        typer.Option(help="what differences, p-values and speed-ups are to: dense, or random of as many tokens"),
    ] = Against.dense,
    metrics: Annotated[
        bool,
        typer.Option("--metrics", help="also one line per method: Pareto metrics with intervals (csv: only these)"),
    ] = False,
    wide: Wide = False,
    out: Out = None,
) -> None:
    """Print what every cell kept, cost and got right; with --metrics also one line per method."""
    from vpbench.render.tables import cells
    from vpbench.rows.store import Store, latest

    chosen, width = format_of(format, out), width_of(wide, out)
    folder = results_folder(results)
    store = Store(folder, writable=False)
    rows = latest(store.read("results"))
    if rows.empty:
        warn(store)
        raise NothingMeasured(f"{folder} holds no results; run `vpbench run` or `vpbench sweep` with --out {folder}")
    videos = store.predictions("videos", rows)
    timed = metrics or against is Against.random or chosen is Format.csv
    samples = store.read("samples") if timed else None
    pages = []
    if not (metrics and chosen is Format.csv):
        pages.append(cells.report(rows, videos, chosen.value, samples, against.value, width))
    if metrics:
        clips = store.predictions("clips", rows, ("video_id", "macs"))
        pages.append(cells.metrics_report(rows, videos, store.read("samples"), clips, chosen.value, width))
    warn(store)
    write("\n\n".join(pages), out)
