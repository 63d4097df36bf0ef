"""`vpbench plot`: the figures of a results folder, on paper or slides."""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from vpbench.commands.options import Results, named, results_folder, warn
from vpbench.progress import say


def plot(
    results: Results = None,
    out: Annotated[Path | None, typer.Option(help="folder for the figures (default: RESULTS/figures)")] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            help="pareto, speed_vs_flops, keep, stages, tokens, or several separated by commas (default: all)"
        ),
    ] = None,
    y: Annotated[str | None, typer.Option(help="top1, map50 or agree (default: the first that is known)")] = None,
    size: Annotated[str, typer.Option(help="paper (columns of LaTeX) or slide (16:9, large letters)")] = "paper",
    format: Annotated[str, typer.Option(help="png, pdf, svg, or several separated by commas")] = "png,pdf,svg",
) -> None:
    """Draw accuracy and speed against cost, tokens and stages of a results folder."""
    from vpbench.render.figures import catalog
    from vpbench.rows.store import Store, latest

    asked = catalog.Request(named(figure), named(format), y, size)
    asked.check()
    folder = results_folder(results)
    store = Store(folder, writable=False)
    rows = latest(store.read("results"))
    drawn = catalog.draw(
        rows,
        lambda config_id: store.predictions("clips", rows[rows["config_id"] == config_id]),
        out or folder / "figures",
        asked,
    )
    warn(store)
    for _, files in groupby(drawn.files, key=lambda path: path.with_suffix("")):
        first, *others = files
        typer.echo(", ".join([str(first), *(path.suffix for path in others)]))
    for line in drawn.left_out:
        say(line)
