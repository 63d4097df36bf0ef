"""`vpbench ls`: what can be named."""

from typing import Literal

import typer


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
        typer.echo(f"{name:<{width}}  {text}")
