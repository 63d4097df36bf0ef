"""The command line. Heavy libraries are imported inside commands, so that help and mistakes answer at once."""

import os
import sys

import typer

from vpbench.commands import checkpoint, demo, env, finish, ls, plot, report, run, table
from vpbench.commands.check.command import check
from vpbench.commands.data.command import app as data
from vpbench.commands.flops.command import flops
from vpbench.commands.published.command import published
from vpbench.commands.show.command import show
from vpbench.commands.train.command import app as train
from vpbench.commands.verify.command import verify
from vpbench.errors import VpbenchError

app = typer.Typer(
    help="The reference benchmark for video token pruning: which method really buys speed, and what does it cost?",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (
    demo.demo,
    run.run,
    run.sweep,
    finish.finish,
    table.table,
    plot.plot,
    report.report,
    show,
    published,
    check,
    verify,
    flops,
    ls.ls,
    env.env,
):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(train, name="train")


def main() -> None:
    """Run the command line; our own errors become one line and an exit code."""
    try:
        app()
    except VpbenchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `vpbench table | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
