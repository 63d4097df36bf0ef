"""`vpbench plot`: the figures of a results folder, on paper or slides."""

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vpbench.commands.options import PATH, Results, named, picked, results_folder, stored, warn
from vpbench.errors import NothingMeasured, UsageError, near_matches
from vpbench.progress import say

#: beside figures that `refresh` has drawn: what they were drawn of
STAMP = ".drawn.json"


def plot(
    results: Results = None,
    out: Annotated[Path | None, typer.Option(help="folder for the figures (default: RESULTS/figures)", **PATH)] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            help="pareto, speed_vs_flops, keep, stages, tokens, or an analysis: hard, overlap, strata, frames, views; "
            "or several separated by commas (default: all)"
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="these beside dense and random, separated by commas (default: all)")
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(help="of pareto: gmacs, ms, rate, memory, e2e, rgtp, several by commas (default: all known)"),
    ] = None,
    y: Annotated[str | None, typer.Option(help="top1, map50 or agree (default: the first that is known)")] = None,
    panels: Annotated[
        Literal["cost", "method"],
        typer.Option(help="of pareto: a panel for each cost, or one for each method against the first of them"),
    ] = "cost",
    title: Annotated[str, typer.Option(help="a line above each figure (default: none)")] = "",
    caption: Annotated[
        str | None, typer.Option(help="below each figure, '' for nothing (default: what it is drawn from)")
    ] = None,
    size: Annotated[str, typer.Option(help="paper (columns of LaTeX) or slide (16:9, large letters)")] = "paper",
    format: Annotated[str, typer.Option(help="png, pdf, svg, or several separated by commas")] = "png,pdf,svg",
) -> None:
    """Draw accuracy and speed against cost, tokens and stages of a results folder."""
    from vpbench.render.analyses import catalog as analyses
    from vpbench.render.analyses.part import Stored
    from vpbench.render.figures import catalog
    from vpbench.rows.store import Store, latest

    figures, known = named(figure), [*catalog.FIGURES, *analyses.ANALYSES]
    for name in (name for name in figures if name not in known):
        raise UsageError(f"unknown figure {name!r}{near_matches(name, known)}")
    drawable = [name for name in figures if name not in analyses.ANALYSES]
    asked = catalog.Request(drawable, named(format), y, size, named(method), named(x), panels, title, caption)
    asked.check()
    folder = results_folder(results)
    store = Store(folder, writable=False)
    rows = latest(store.read("results"))
    picked("method", method, set(rows["method"]))
    target = out or folder / "figures"
    if drawable or not figures:
        drawn = catalog.draw(
            rows, lambda config_id: store.predictions("clips", rows[rows["config_id"] == config_id]), target, asked
        )
        _name(drawn)
    own = [name for name in figures or analyses.ANALYSES if name in analyses.ANALYSES]
    if own:
        analysed = analyses.draw(Stored(rows, store.predictions), own, target, asked.formats, size, asked.sheet)
        _name(analysed)
        if figures and not drawable and not analysed.files:
            raise NothingMeasured(f"nothing to draw of {', '.join(own)}")
    warn(store)


def refresh(results: Path, backbone: str, figure: str | None = None) -> None:
    """Draw one backbone's figures as images into a folder of their own; what rows and code still stand for is left.

    Raises NothingMeasured where no figure can be drawn.
    """
    from vpbench.render import stamp
    from vpbench.render.figures import catalog

    store, rows = stored(results)
    rows, folder = rows[rows["backbone"] == backbone].reset_index(drop=True), own_folder(results, backbone)
    asked = catalog.Request(named(figure), ("png",))
    if stamp.fresh(folder / STAMP, rows, asked.figures):
        return
    drawn = catalog.draw(
        rows, lambda config_id: store.predictions("clips", rows[rows["config_id"] == config_id]), folder, asked
    )
    stamp.renew(folder / STAMP, rows, drawn.files, asked.figures)
    warn(store)
    _name(drawn)


def own_folder(results: Path, backbone: str) -> Path:
    """Return where `refresh` draws."""
    return results / "figures" / backbone


def _name(drawn: Any) -> None:
    """Print the files that were drawn, and why others were not."""
    for _, files in groupby(drawn.files, key=lambda path: path.with_suffix("")):
        first, *others = files
        typer.echo(", ".join([str(first), *(path.suffix for path in others)]))
    for line in drawn.left_out:
        say(line)
