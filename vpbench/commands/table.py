"""`vpbench table`: numbers of a results folder as text."""

from typing import Annotated, Literal

import typer

from vpbench.commands.options import Results, named, picked, stored, warn
from vpbench.commands.output import Across, AsFormat, Out, Wide, format_of, width_of, write
from vpbench.errors import UsageError


def table(
    results: Results = None,
    format: AsFormat = None,
    method: Annotated[
        str | None, typer.Option(help="rows of these methods and of dense, separated by commas (default: all)")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="tables of these, separated by commas (default: all)")] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="these, in this order, by their names in csv: keep_nominal, keep_realised, top1, map50, delta_pp, "
            "loss_bound_pp, p_holm, vs_random_pp, gmacs, ms_per_clip, speedup, peak_mb, agree, status, ... "
            "(default: what fits, in order of importance)"
        ),
    ] = None,
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
    by: Annotated[
        Literal["cells", "weights"],
        typer.Option(help="cells: a table for each weights; weights: off the shelf and fine-tuned side by side"),
    ] = "cells",
    across: Across = "page",
    wide: Wide = False,
    out: Out = None,
) -> None:
    """Print what every cell kept, cost and got right; with --metrics also one line per method.

    Statistics are of all rows, whichever are shown.
    """
    from vpbench.render.tables import by_weights, cells

    chosen = format_of(format, out)
    width = width_of(wide, out, chosen, across)
    store, rows = stored(results)
    if backbones := picked("backbone", backbone, set(rows["backbone"])):
        rows = rows[rows["backbone"].isin(backbones)].reset_index(drop=True)
    if analysis is not None:
        from vpbench.render.analyses import catalog
        from vpbench.render.analyses.part import Stored

        text = catalog.report(Stored(rows, store.predictions), named(analysis), chosen, width)
        warn(store)
        write(text, out)
        return
    only = cells.Only(picked("method", method, set(rows["method"])), named(columns))
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
        pages.append(cells.report(rows, videos, chosen, samples, against, width, only))
    if metrics:
        clips = store.predictions("clips", rows, ("video_id", "macs"))
        pages.append(cells.metrics_report(rows, videos, store.read("samples"), clips, chosen, width, only))
    warn(store)
    write("\n\n".join(pages), out)
