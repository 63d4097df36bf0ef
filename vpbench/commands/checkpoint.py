"""`vpbench checkpoint`: what a weights file is, and how to make ours of it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look into weight files and convert them.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="a .pth, .pt, .ckpt or .safetensors file", metavar="FILE")]


@app.command("inspect")
def inspect_(file: File) -> None:
    """Say what a file is, in which layout, which backbone it fits, and what it holds besides."""
    from vpbench.backbones.checkpoints import reading

    for key, value in reading.inspect(file).items():
        typer.echo(f"{key:<12} {value}")


@app.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Argument(help="where to write, ends in .safetensors", metavar="OUT")],
    force: Annotated[bool, typer.Option("--force", help="overwrite OUT")] = False,
) -> None:
    """Write a checkpoint, scorers included, as safetensors under vpbench's names; `--weights OUT` then loads it."""
    from vpbench.backbones.checkpoints import files, reading

    reading.convert(file, out, force)
    typer.echo(f"{out}  sha256 {files.digest(out)}")
