"""`vpbench plot`: the figures of a results folder, on paper or slides."""

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from vpbench.commands.options import Results, named, results_folder, stored, warn
from vpbench.errors import NothingMeasured, UsageError, near_matches
from vpbench.progress import say

#: beside figures that `refresh` has drawn: what they were drawn of
STAMP = ".drawn.json"


def plot(
    results: Results = None,
    out: Annotated[Path | None, typer.Option(help="folder for the figures (default: RESULTS/figures)")] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            help="pareto, speed_vs_flops, keep, stages, tokens, or an analysis: hard, overlap, strata, frames, views; "
            "or several separated by commas (default: all)"
        ),
    ] = None,
    y: Annotated[str | None, typer.Option(help="top1, map50 or agree (default: the first that is known)")] = None,
    size: Annotated[str, typer.Option(help="paper (columns of LaTeX) or slide (16:9, large letters)")] = "paper",
    format: Annotated[str, typer.Option(help="png, pdf, svg, or several separated by commas")] = "png,pdf,svg",
) -> None:
    """Draw accuracy and speed against cost, tokens and stages of a results folder."""
    from vpbench.render.analyses import catalog as analyses
    from vpbench.render.analyses.part import Stored
    from vpbench.render.figures import catalog
    from vpbench.rows.store import Store, latest

    names, known = named(figure), [*catalog.FIGURES, *analyses.ANALYSES]
    for name in (name for name in names if name not in known):
        raise UsageError(f"unknown figure {name!r}{near_matches(name, known)}")
    asked = catalog.Request([name for name in names if name not in analyses.ANALYSES], named(format), y, size)
    asked.check()
    folder = results_folder(results)
    store = Store(folder, writable=False)
    rows = latest(store.read("results"))
    target, own = out or folder / "figures", [name for name in names or analyses.ANALYSES if name in analyses.ANALYSES]
    if asked.figures or not names:
        drawn = catalog.draw(
            rows, lambda config_id: store.predictions("clips", rows[rows["config_id"] == config_id]), target, asked
        )
        _name(drawn)
    if own:
        analysed = analyses.draw(Stored(rows, store.predictions), own, target, asked.formats, size)
        _name(analysed)
        if names and not asked.figures and not analysed.files:
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
