"""`vpbench ls`: what can be named."""

import sys
from enum import StrEnum

import typer

from vpbench.commands.output import fold


class What(StrEnum):
    """What `ls` can list."""

    methods = "methods"
    datasets = "datasets"
    protocols = "protocols"
    backbones = "backbones"
    presets = "presets"


def ls(what: What) -> None:
    """List methods, datasets, protocols, backbones or presets."""
    from vpbench import registry

    if what is What.protocols:
        from vpbench.data import protocols

        lines = protocols.summaries()
    elif what is What.presets:
        from vpbench.plan import presets

        lines = presets.summaries()
    elif what is What.backbones:
        lines = registry.summaries("backbones")
    else:
        lines = registry.summaries("methods" if what is What.methods else "datasets")
    width = max((len(name) for name in lines), default=0)
    for name, text in lines.items():
        typer.echo(fold(f"{name:<{width}}  {text}", width + 2, sys.stdout))
