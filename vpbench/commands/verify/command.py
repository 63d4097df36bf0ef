"""`vpbench verify`: run parity cases."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    folders: Annotated[list[Path], typer.Argument(help="a parity case, or folders of cases", metavar="CASE_DIR...")],
) -> None:
    """Run parity cases and compare every tensor with what the published implementations computed."""
    from vpbench.commands.verify import cases

    raise typer.Exit(cases.verify(folders, typer.echo, lambda problem: typer.echo(problem, err=True)))
