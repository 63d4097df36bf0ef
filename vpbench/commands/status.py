"""`vpbench status`: how far several workers are."""

import time
from typing import Annotated

import typer

from vpbench.commands.options import Results, results_folder
from vpbench.errors import NothingMeasured
from vpbench.progress import say

#: seconds between two looks
_EVERY_S = 5.0


def status(
    results: Results = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="show the progress of all workers until none is left")
    ] = False,
) -> None:
    """Say what of a plan is done, running, dead or missing, and how long the rest will take."""
    from vpbench.run.status import Watch

    folder = results_folder(results, "plans/*.json")
    watch = Watch(folder)
    if follow:
        _follow(watch)
    found = watch.statuses()
    if not found:
        raise NothingMeasured(f"{folder} holds no plans; `vpbench plan`, run or sweep with --out {folder} first")
    for each in found:
        for line in each.lines():
            typer.echo(line)


def _follow(watch: object) -> None:
    from vpbench.progress import task
    from vpbench.run.status import Watch

    assert isinstance(watch, Watch)
    watch.statuses()  # long enough to see who is alive
    before, total, alive = watch.shards()
    say(f"{alive} workers are at it" if alive else "no worker is at it")
    with task("all workers", total, "steps", before) as progress:
        while alive and before < total:
            time.sleep(_EVERY_S)
            done, total, alive = watch.shards()
            progress.advance(max(0, done - before))
            before = max(before, done)
