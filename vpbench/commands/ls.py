"""`vpbench ls`: what can be named."""

from __future__ import annotations

from enum import StrEnum

import typer


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
    from vpbench.backbones.catalog import CATALOG
    from vpbench.data.protocols import catalog
    from vpbench.plan import presets

    if what is What.backbones:
        lines = {name: entry.summary for name, entry in CATALOG.items()}
    elif what is What.protocols:
        lines = catalog.summaries()
    elif what is What.presets:
        lines = presets.summaries()
    else:
        kind: registry.Kind = "methods" if what is What.methods else "datasets"
        lines = {name: registry.summary(kind, name) for name in registry.names(kind)}
    width = max((len(name) for name in lines), default=0)
    for name, text in lines.items():
        typer.echo(f"{name:<{width}}  {text}")
