"""`vpbench check`: hold all methods to a committed baseline, or write it."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vpbench import CHECKOUT
from vpbench.commands.options import named
from vpbench.errors import UsageError

if TYPE_CHECKING:
    from vpbench.commands.check.baseline import Baseline
    from vpbench.commands.check.gate import Request, Verdict


Names = Annotated[str | None, typer.Option("--method", help="only these, separated by commas (default: all)")]
Backbones = Annotated[str | None, typer.Option("--backbone", help="only these, separated by commas (default: all)")]
Against = Annotated[
    str | None, typer.Option(metavar="REF", help="compare times with those of this commit, both measured here in turns")
]
Strict = Annotated[bool, typer.Option("--strict", help="fail for methods that the baseline lacks")]
Update = Annotated[bool, typer.Option("--update", help="write the baseline and print what changed")]
NoTime = Annotated[bool, typer.Option("--no-time", help="compare no times")]
OnlyTime = Annotated[bool, typer.Option("--only-time", help="compare times alone")]
BaselineFile = Annotated[Path | None, typer.Option(help="another baseline than the one that comes with vpbench")]
Junit = Annotated[Path | None, typer.Option(help="write the verdicts as JUnit XML")]
Markdown = Annotated[Path | None, typer.Option(help="write a summary as Markdown, as for $GITHUB_STEP_SUMMARY")]


def check(
    method: Names = None, backbone: Backbones = None, update: Update = False, no_time: NoTime = False,
    only_time: OnlyTime = False, against: Against = None, strict: Strict = False, baseline: BaselineFile = None,
    junit: Junit = None, markdown: Markdown = None,
) -> None:  # fmt: skip
    """Compare what every method does on a few embedded clips with the baseline: a gate for CI.

    Times are compared where a baseline of this very machine has them (--update --baseline FILE), or with another
    commit of a checkout (--against REF).
    Exit code: 0 all as it was, 1 something differs or is gone, 2 usage, 3 nothing to compare.
    """
    from vpbench.commands.check import baseline as check_baseline
    from vpbench.commands.check import gate, report

    if only_time and (no_time or update):
        raise UsageError("--only-time compares times alone; leave --no-time and --update out")
    if update and (junit or markdown):
        raise UsageError("--update compares nothing; leave --junit and --markdown out")
    if against is not None and (no_time or update):
        raise UsageError("--against compares times; leave --no-time and --update out")
    path = baseline or check_baseline.COMMITTED
    # what comes with vpbench has to hold on any machine, and times do not
    timed = not no_time and (path != check_baseline.COMMITTED or against is not None)
    asked = gate.Request(named(method), named(backbone), not only_time, timed, strict=strict)
    if update:
        _update(path, asked)
        return
    stored = check_baseline.read(path)
    verdicts = _verdicts(stored, asked, against)
    for line in report.lines(verdicts, stored.written):
        typer.echo(line)
    if junit is not None:
        report.write_junit(junit, verdicts)
    if markdown is not None:
        report.write_markdown(markdown, verdicts, stored.written)
    if any(verdict.state == "FAIL" for verdict in verdicts):
        raise typer.Exit(1)


def _verdicts(stored: "Baseline", asked: "Request", against: str | None) -> "list[Verdict]":
    from vpbench.commands.check import gate
    from vpbench.commands.check.against import Turns, checked_out

    if against is None:
        return gate.check(stored, asked)
    with checked_out(against) as tree:
        return gate.check(stored, dataclasses.replace(asked, turns=Turns(tree, against)))


def _update(path: Path, asked: "Request") -> None:
    from vpbench.commands.check import baseline as check_baseline
    from vpbench.commands.check.update import update

    if path == check_baseline.COMMITTED and not (CHECKOUT / "pyproject.toml").is_file():
        raise UsageError("the baseline of an installed vpbench stays as it is; name a file of yours with --baseline")
    old = check_baseline.read(path) if path.exists() else check_baseline.Baseline()
    new, changes = update(old, asked)
    for line in changes:
        typer.echo(line)
    if changes:
        check_baseline.write(path, new)
    typer.echo(f"{path}: {len(changes)} changes, {len(new.cells)} cells")
