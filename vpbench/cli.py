"""The command line. Heavy libraries are imported inside commands, so that help and mistakes answer at once."""

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from vpbench.commands import checkpoint, demo, env, finish, ls, plot, power, report, run, status, table
from vpbench.commands.check.command import check
from vpbench.commands.contract.command import contract
from vpbench.commands.data.command import app as data
from vpbench.commands.flops.command import flops
from vpbench.commands.published.command import published
from vpbench.commands.show.command import show
from vpbench.commands.train.command import app as train
from vpbench.commands.verify.command import verify
from vpbench.errors import VpbenchError
from vpbench.progress import say

app = typer.Typer(
    help="The reference benchmark for video token pruning: which method really buys speed, and what does it cost?",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)

#: the help's panels by what people do, and what is in each: commands, and groups of commands by name
PANELS: dict[str, tuple[Callable[..., None] | tuple[str, typer.Typer], ...]] = {
    "Measure": (demo.demo, run.run, run.sweep, run.plan, status.status, finish.finish, flops),
    "Look": (table.table, plot.plot, report.report, show, published),
    "Check": (check, verify),
    "Prepare": (ls.ls, env.env, power.power, ("data", data), ("checkpoint", checkpoint.app)),
    "Extend": (contract, ("train", train)),
}
for panel, commands in PANELS.items():
    for command in commands:
        if isinstance(command, tuple):
            app.add_typer(command[1], name=command[0], rich_help_panel=panel)
        else:
            app.command(rich_help_panel=panel)(command)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"vpbench {version('vpbench')}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; our own errors become one line and an exit code."""
    try:
        app()
    except VpbenchError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `vpbench table | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
