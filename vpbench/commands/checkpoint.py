"""`vpbench checkpoint`: what a weights file is, and how to make ours of it."""

from pathlib import Path
from typing import Annotated

import typer

from vpbench.commands import options

app = typer.Typer(help="Look into weight files and convert them.", no_args_is_help=True)

Weights = Annotated[
    str, typer.Argument(help="a file, a folder, an index of shards, or org/name on a hub", metavar="WEIGHTS")
]


@app.command("inspect")
def inspect_(weights: Weights, weights_key: options.WeightsKey = None) -> None:
    """Say what a checkpoint is, in which layout, which backbone it fits, and what it holds besides."""
    from vpbench.backbones import loading
    from vpbench.backbones.checkpoints import reading

    for name, value in reading.inspect(Path(loading.local(weights)), weights_key).items():
        typer.echo(f"{name:<12} {value}")


@app.command()
def convert(
    weights: Weights,
    out: Annotated[Path, typer.Argument(help="where to write, ends in .safetensors", metavar="OUT")],
    force: Annotated[bool, typer.Option("--force", help="overwrite OUT")] = False,
    weights_key: options.WeightsKey = None,
) -> None:
    """Write a checkpoint, scorers included, as safetensors under vpbench's names; `--weights OUT` then loads it."""
    from vpbench.backbones import loading
    from vpbench.backbones.checkpoints import places, reading

    reading.convert(Path(loading.local(weights)), out, force, weights_key)
    typer.echo(f"{out}  sha256 {places.digest(out)}")
