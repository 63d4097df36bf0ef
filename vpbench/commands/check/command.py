"""`vpbench check`: hold all methods to a committed baseline, or write it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpbench.commands.options import named
from vpbench.errors import UsageError

if TYPE_CHECKING:
    from vpbench.commands.check.gate import Request


Names = Annotated[str | None, typer.Option("--method", help="only these, separated by commas (default: all)")]
Backbones = Annotated[str | None, typer.Option("--backbone", help="only these, separated by commas (default: all)")]
Update = Annotated[bool, typer.Option("--update", help="write the baseline and print what changed")]
NoTime = Annotated[bool, typer.Option("--no-time", help="compare no times")]
OnlyTime = Annotated[bool, typer.Option("--only-time", help="compare times alone")]
BaselineFile = Annotated[Path | None, typer.Option(help="another baseline than the one that comes with vpbench")]
Junit = Annotated[Path | None, typer.Option(help="write the verdicts as JUnit XML")]
Markdown = Annotated[Path | None, typer.Option(help="write a summary as Markdown, as for $GITHUB_STEP_SUMMARY")]


def check(
    method: Names = None, backbone: Backbones = None, update: Update = False, no_time: NoTime = False,
    only_time: OnlyTime = False, baseline: BaselineFile = None, junit: Junit = None, markdown: Markdown = None,
) -> None:  # fmt: skip
    """Compare what every method does on a few embedded clips with the baseline: a gate for CI.

    Exit code: 0 all as it was, 1 something differs or is gone, 2 usage, 3 nothing to compare.
    """
    from vpbench.commands.check import baseline as check_baseline
    from vpbench.commands.check import gate, report

    if only_time and (no_time or update):
        raise UsageError("--only-time compares times alone; leave --no-time and --update out")
    if update and (junit or markdown):
        raise UsageError("--update compares nothing; leave --junit and --markdown out")
    asked = gate.Request(named(method), named(backbone), not only_time, not no_time)
    path = baseline or check_baseline.COMMITTED
    if update:
        _update(path, asked)
        return
    stored = check_baseline.read(path)
    verdicts = gate.check(stored, asked)
    for line in report.lines(verdicts, stored.written):
        typer.echo(line)
    if junit is not None:
        report.write_junit(junit, verdicts)
    if markdown is not None:
        report.write_markdown(markdown, verdicts, stored.written)
    if any(verdict.state == "FAIL" for verdict in verdicts):
        raise typer.Exit(1)


def _update(path: Path, asked: "Request") -> None:
    from vpbench.commands.check import baseline as check_baseline
    from vpbench.commands.check.update import update

    old = check_baseline.read(path) if path.exists() else check_baseline.Baseline()
    new, changes = update(old, asked)
    for line in changes:
        typer.echo(line)
    if changes:
        check_baseline.write(path, new)
    typer.echo(f"{path}: {len(changes)} changes, {len(new.cells)} cells")
