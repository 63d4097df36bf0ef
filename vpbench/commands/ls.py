"""`vpbench ls`: what can be named."""

import sys
from typing import Literal

import typer

from vpbench.progress import fold


def ls(what: Literal["methods", "datasets", "protocols", "backbones", "presets"]) -> None:
    """List methods, datasets, protocols, backbones or presets."""
    from vpbench import registry

    if what == "protocols":
        from vpbench.data import protocols

        lines = protocols.summaries()
    elif what == "presets":
        from vpbench.plan import presets

        lines = presets.summaries()
    else:
        lines = registry.summaries(what)
    width = max((len(name) for name in lines), default=0)
    for name, text in lines.items():
        typer.echo(fold(f"{name:<{width}}  {text}", width + 2, sys.stdout))
