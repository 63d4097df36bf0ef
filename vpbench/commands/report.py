"""`vpbench report`: everything that a results folder shows, as one page."""

from pathlib import Path
from typing import Annotated

import typer

from vpbench.commands.options import Results, results_folder, warn
from vpbench.errors import NothingMeasured

#: what is read of the clips table, which is the largest
_OF_CLIPS = ("video_id", "macs")


def report(
    results: Results = None,
    out: Annotated[Path | None, typer.Option(help="the page to write (default: RESULTS/report.html)")] = None,
) -> None:
    """Write one HTML page that answers which method to use; it opens without network and server."""
    typer.echo(str(write(results_folder(results), out)))


def write(results: Path, out: Path | None = None) -> Path:
    """Write the report of a results folder and return its path; raises NothingMeasured where the folder is empty."""
    from vpbench.render.report import content, page
    from vpbench.rows import fates
    from vpbench.rows.store import Store, latest

    store = Store(results, writable=False)
    rows = latest(store.read("results"))
    if rows.empty:
        raise NothingMeasured(f"{results} holds no results; run `vpbench run` or `vpbench sweep` with --out {results}")
    videos, clips = store.predictions("videos", rows), store.predictions("clips", rows, _OF_CLIPS)
    samples = store.read("samples")
    stored = content.Stored(rows, videos, samples, clips, fates.shown(store.predictions("fates", rows)))
    target = out or results / "report.html"
    page.write(target, page.render(content.sections(stored), str(results), store.problems))
    warn(store)
    return target
