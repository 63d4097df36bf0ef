"""`vpbench table`: numbers of a results folder as text."""

from typing import Annotated, Literal

import typer

from vpbench.commands.options import Results, named, stored, warn
from vpbench.commands.output import AsFormat, Out, Wide, format_of, width_of, write


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
    analysis: Annotated[
        str | None, typer.Option(help="these instead, separated by commas: hard, overlap, strata, frames, views")
    ] = None,
    wide: Wide = False,
    out: Out = None,
) -> None:
    """Print what every cell kept, cost and got right; with --metrics also one line per method."""
    from vpbench.render.tables import cells

    chosen, width = format_of(format, out), width_of(wide, out)
    store, rows = stored(results)
    if analysis is not None:
        from vpbench.render.analyses import catalog
        from vpbench.render.analyses.part import Stored

        text = catalog.report(Stored(rows, store.predictions), named(analysis), chosen, width)
        warn(store)
        write(text, out)
        return
    videos = store.predictions("videos", rows)
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
