"""`vpbench contract`: hold a method or a backbone, own or another package's, to what every one of them promises."""

import warnings
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vpbench.errors import UsageError, near_matches
from vpbench.progress import task

if TYPE_CHECKING:
    from vpbench.commands.contract.promise import Verdict

Kind = Literal["method", "backbone"]


def contract(
    name: Annotated[str, typer.Argument(help="a method or a backbone; see `vpbench ls`")],
    kind: Annotated[Kind | None, typer.Option(help="which of the two, where both have the name")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="also what is kept or could not be checked")] = False,
) -> None:
    """Check all that a method or a backbone promises, on tiny networks with random weights."""
    of = kind_of(name, kind)
    import torch

    from vpbench.commands.contract import backbones, methods

    torch.set_num_threads(1)  # networks are tiny: threads would wait for each other longer than they work
    checks = methods.checks(name) if of == "method" else backbones.checks(name)
    found: list[Verdict] = []
    with task(f"{of} {name}", len(checks), "parts") as progress, warnings.catch_warnings(action="ignore"):
        for check in checks:
            found += check()
            progress.advance()
    for verdict in found:
        if verbose or verdict.state == "broken":
            typer.echo(line(verdict))
    broken, unchecked = (sum(each.state == state for each in found) for state in ("broken", "unchecked"))
    held = len(found) - unchecked
    said = f"{of} {name}: {broken} of {held} promises broken" if broken else f"{of} {name}: all {held} promises kept"
    typer.echo(said + f"; {unchecked} could not be checked, --verbose says why" * bool(unchecked and not verbose))
    raise typer.Exit(1 if broken else 0)


def kind_of(name: str, kind: Kind | None) -> Kind:
    """Tell whether a name is a method's or a backbone's; raises UsageError where it is both, or neither."""
    from vpbench import registry

    found: list[Kind] = []
    if name in registry.names("methods"):
        found.append("method")
    if name in registry.names("backbones") or ":" in name:
        found.append("backbone")
    if kind is not None:
        registry.check("methods" if kind == "method" else "backbones", name)
        return kind
    if len(found) > 1:
        raise UsageError(f"{name!r} is a method and a backbone; give --kind method or --kind backbone")
    if not found:
        known = [*registry.names("methods"), *registry.names("backbones")]
        raise UsageError(f"no method and no backbone is called {name!r}{near_matches(name, known)}")
    return found[0]


#: how a verdict begins
_MARKS = {"kept": "kept  ", "broken": "BROKEN", "unchecked": "-     "}


def line(verdict: "Verdict") -> str:
    """Say a verdict in one line: which promise, where, and what was found and is to be done, or what holds."""
    where = f" on {verdict.place}" * bool(verdict.place)
    return f"{_MARKS[verdict.state]} {verdict.promise}{where}: {verdict.text or verdict.says}"
