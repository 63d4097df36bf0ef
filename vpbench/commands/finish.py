"""`vpbench finish`: rows anew from what was measured."""

from pathlib import Path

import typer

from vpbench.commands.options import Out, warn
from vpbench.errors import NothingMeasured


def finish(out: Out = None) -> None:
    """Derive all rows of a results folder anew from what was predicted and timed, as after a mend in statistics."""
    from vpbench.rows.store import Store
    from vpbench.run.finish import finish_all

    folder = out or Path("out")
    store = Store(folder, writable=False)
    rows = finish_all(store)
    warn(store)
    if not rows:
        raise NothingMeasured(f"{folder} holds no plans to derive rows from; run or sweep with --out {folder} first")
    typer.echo(f"{len(rows)} rows derived anew in {folder}")
