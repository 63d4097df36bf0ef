"""`vpbench data`: look through a copy of a dataset, and make one ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check the copy of a dataset on your disk, and prepare it for runs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="see `vpbench ls datasets`", metavar="NAME")]
Root = Annotated[Path | None, typer.Option(help="folder of the dataset (default: the environment's, VPBENCH_<NAME>)")]
Split = Annotated[str | None, typer.Option(help="split (default: test, or the dataset's first)")]
Decoder = Annotated[str, typer.Option(help="pyav or decord")]
Workers = Annotated[int | None, typer.Option(min=1, help="processes (default: one per core, 16 at most)")]


@app.command()
def check(
    name: Name, root: Root = None, split: Split = None, decoder: Decoder = "pyav", workers: Workers = None,
    quick: Annotated[bool, typer.Option("--quick", help="see what is there, but open no video")] = False,
    index: Annotated[Path | None, typer.Option(help="frame index (default: index.parquet in the root, if any)")] = None,
    json: Annotated[Path | None, typer.Option(help="file for the whole report, as JSON")] = None,
) -> None:  # fmt: skip
    """Count what is expected, found and readable, and name what is missing, broken or contradictory.

    Exit code: 0 all there, 1 something is missing, unreadable or contradictory, 2 usage, 3 nothing found.
    """
    from vpbench.prepare.command import run_check
    from vpbench.prepare.pool import default_workers

    report = run_check(name, root, split, decoder, workers or default_workers(), quick, index)
    for line in report.lines():
        typer.echo(line)
    if json is not None:
        report.write(json)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


prepare = typer.Typer(
    help="Make a copy of a dataset ready for runs. What is done already is skipped, so that a stopped run goes on.",
    no_args_is_help=True,
)
app.add_typer(prepare, name="prepare")

Out = Annotated[Path, typer.Option(help="folder to write into")]


@prepare.command()
def unpack(
    name: Annotated[str, typer.Argument(help="imagenet_vid", metavar="NAME")],
    archive: Annotated[Path, typer.Option(help="ILSVRC2015_VID.tar.gz, or the packed form as tar or zip")],
    out: Out,
) -> None:
    """Unpack the validation videos of ImageNet VID; the archive is checked member by member."""
    from vpbench.prepare.command import run_unpack

    _say(lambda: run_unpack(name, archive, out))


def _say(work: Callable[[], Iterable[str]]) -> None:
    """Print what some long work says in the end; Ctrl-C is no accident."""
    try:
        for line in work():
            typer.echo(line)
    except KeyboardInterrupt:
        typer.echo("stopped; what is done is kept, and the same command goes on from there", err=True)
        raise typer.Exit(130) from None
