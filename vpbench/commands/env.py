"""`vpbench env`: the machine."""

import typer

from vpbench.commands.options import Device


def env(device: Device = None) -> None:
    """Show machine, threads, versions and git state, and what would spoil a measurement."""
    from dataclasses import asdict

    from vpbench.measure import machine

    found = machine.snapshot(device or "cpu")
    facts = asdict(found) | ({} if found.gpu or found.gpu_unknown else {"gpu": {}, "gpu_unknown": {}})
    for key, value in facts.items():
        for name, each in value.items() if isinstance(value, dict) else [("", value)]:
            typer.echo(f"{f'{key} {name}'.strip():<34} {'unknown' if each is None else each}")
    for warning in machine.warnings(found):
        typer.echo(f"warning: {warning}")
