"""`vpbench finish`: rows anew from what was measured."""

import typer

from vpbench.commands.options import NamedResults, Results, results_folder, warn
from vpbench.errors import NothingMeasured, UsageError


def finish(results: Results = None, out: NamedResults = None) -> None:
    """Derive all rows of a results folder anew from what was predicted and timed, as after a mend in statistics."""
    from vpbench.rows.store import Store
    from vpbench.run.finish import finish_all

    if results is not None and out is not None:
        raise UsageError("two results folders are named; name one")
    folder = results_folder(results or out, "plans/*.json")
    store = Store(folder, writable=False)
    rows = finish_all(store)
    warn(store)
    if not rows:
        raise NothingMeasured(f"{folder} holds no plans to derive rows from; run or sweep with --out {folder} first")
    typer.echo(f"{len(rows)} rows derived anew in {folder}")
