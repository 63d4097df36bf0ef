"""`vpbench finish`: rows anew from what was measured."""

import typer

from vpbench.commands.options import NamedResults, Results, results_folder, warn
from vpbench.errors import NothingMeasured, UsageError


def finish(results: Results = None, out: NamedResults = None) -> None:
    """Derive all rows of a results folder from what was predicted and timed: of workers, or after a mend in statistics.

    Names what is planned and not predicted yet; exits with 1 where there is any, or a cell failed.
    """
    from vpbench.rows.store import Store
    from vpbench.run.finish import finish_all, lacking, untimed

    if results is not None and out is not None:
        raise UsageError("two results folders are named; name one")
    folder = results_folder(results or out, "plans/*.json")
    store = Store(folder, writable=False)
    rows = finish_all(store)
    warn(store)
    if not rows:
        raise NothingMeasured(f"{folder} holds no plans to derive rows from; run or sweep with --out {folder} first")
    typer.echo(f"{len(rows)} rows derived anew in {folder}")
    missing = lacking(store)
    for label, items in missing.items():
        typer.echo(f"missing: {label}: {items}")
    if missing:
        typer.echo(f"a worker, or the same command again, predicts them; `vpbench status {folder}` says who is at it")
    if number := untimed(store, rows):
        typer.echo(f"times: {number} of {len(rows)} cells are planned to be timed, and are not yet")
    if missing or any(row["status"] not in ("ok", "refused") for row in rows):
        raise typer.Exit(1)
