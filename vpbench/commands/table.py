"""`vpbench table`: numbers of a results folder as text."""

from typing import Annotated, Literal

import typer

from vpbench.commands.options import Results, stored, warn
from vpbench.commands.output import AsFormat, Out, Wide, format_of, width_of, write
from vpbench.errors import UsageError


def table(
    results: Results = None,
    format: AsFormat = None,
    against: Annotated[
        Literal["dense", "random"],
        typer.Option(help="what differences, p-values and speed-ups are to: dense, or random of as many tokens"),
    ] = "dense",
    metrics: Annotated[
        bool,
        typer.Option("--metrics", help="also one line per method: Pareto metrics with intervals (csv: only these)"),
    ] = False,
    by: Annotated[
        Literal["cells", "weights"],
        typer.Option(help="cells: a table for each weights; weights: off the shelf and fine-tuned side by side"),
    ] = "cells",
    wide: Wide = False,
    out: Out = None,
) -> None:
    """Print what every cell kept, cost and got right; with --metrics also one line per method."""
    from vpbench.render.tables import by_weights, cells

    chosen, width = format_of(format, out), width_of(wide, out)
    store, rows = stored(results)
    videos = store.predictions("videos", rows)
    if by == "weights":
        if metrics or against == "random":
            raise UsageError("--by weights has one table; leave --metrics and --against out")
        warn(store)
        write(by_weights.report(rows, videos, chosen, width), out)
        return
    timed = metrics or against == "random" or chosen == "csv"
    samples = store.read("samples") if timed else None
    pages = []
    if not (metrics and chosen == "csv"):
        pages.append(cells.report(rows, videos, chosen, samples, against, width))
    if metrics:
        clips = store.predictions("clips", rows, ("video_id", "macs"))
        pages.append(cells.metrics_report(rows, videos, store.read("samples"), clips, chosen, width))
    warn(store)
    write("\n\n".join(pages), out)
