"""`vpbench report`: everything that a results folder shows, as one page."""

from pathlib import Path
from typing import Annotated

import typer

from vpbench.commands.options import PATH, Results, results_folder, stored, warn
from vpbench.errors import UsageError

#: what is read of the clips table, which is the largest
_OF_CLIPS = ("video_id", "macs")
#: the page, and beside it what it was made of, as `refresh` writes it
PAGE, STAMP = "report.html", ".report.json"


def report(
    results: Results = None,
    out: Annotated[Path | None, typer.Option(help="the page to write (default: RESULTS/report.html)", **PATH)] = None,
) -> None:
    """Write one HTML page that answers which method to use; it opens without network and server."""
    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: give a name that ends in .html")
    typer.echo(str(write(results_folder(results), out)))


def refresh(results: Path) -> Path:
    """Return the report of a results folder, written anew unless rows and code still stand for the one there."""
    from vpbench.render import stamp

    rows = stored(results)[1]  # before the page reads them: what is added meanwhile makes it old
    if not stamp.fresh(results / STAMP, rows):
        stamp.renew(results / STAMP, rows, [write(results)])
    return results / PAGE


def write(results: Path, out: Path | None = None) -> Path:
    """Write the report of a results folder and return its path; raises NothingMeasured where the folder is empty."""
    from vpbench.render.analyses import catalog as analyses
    from vpbench.render.analyses.part import Missing, Stored
    from vpbench.render.report import content, page
    from vpbench.rows import fates

    store, rows = stored(results)
    videos, clips = store.predictions("videos", rows), store.predictions("clips", rows, _OF_CLIPS)
    samples = store.read("samples")
    many = Missing(
        "analyses", "", f"more than {content.MOST_RESAMPLED} settings; `vpbench table --analysis` makes them"
    )
    analysed = analyses.every(Stored(rows, store.predictions)) if len(rows) <= content.MOST_RESAMPLED else [many]
    shown = content.Stored(rows, videos, samples, clips, fates.shown(store.predictions("fates", rows)), analysed)
    target = out or results / PAGE
    page.write(target, page.render(content.sections(shown), str(results), store.problems))
    warn(store)
    return target
