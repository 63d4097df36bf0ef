"""How commands that print tables write them: the format that was asked for, to the console or a file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vpbench.errors import UsageError, VpbenchError


class Format(StrEnum):
    """How a table is written."""

    console = "console"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"


#: formats by the ends of names of files
ENDINGS = {".md": Format.markdown, ".tex": Format.latex, ".csv": Format.csv, ".txt": Format.console}
AsFormat = Annotated[
    Format | None, typer.Option(help="console, markdown, latex (booktabs) or csv (default: by the end of --out)")
]
Out = Annotated[Path | None, typer.Option(help="write to this file: .md, .tex, .csv or .txt")]


def format_of(asked: Format | None, out: Path | None) -> Format:
    """Return the format that was asked for, by its name or by that of the file."""
    if asked is not None:
        return asked
    if out is None:
        return Format.console
    if out.suffix not in ENDINGS:
        raise UsageError(f"{out}: give --format, or a name that ends in {', '.join(ENDINGS)}")
    return ENDINGS[out.suffix]


def write(text: str, out: Path | None) -> None:
    """Print a table, or write it into a file and print its name; raises VpbenchError where the disk refuses."""
    if out is None:
        typer.echo(text.rstrip("\n"))
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise VpbenchError(f"{out}: cannot write ({error.strerror}); name another file with --out") from error
    typer.echo(str(out))
