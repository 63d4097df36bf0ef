"""How commands write tables: in the format that was asked for, to the console or a file, as wide as it is."""

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from vpbench.commands.options import PATH
from vpbench.errors import UsageError, VpbenchError
from vpbench.storage import make_folder

Format = Literal["console", "markdown", "latex", "csv"]
#: formats by the ends of names of files
ENDINGS: dict[str, Format] = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".txt": "console"}
AsFormat = Annotated[
    Format | None, typer.Option(help="console, markdown, latex (booktabs) or csv (default: by the end of --out)")
]
Out = Annotated[Path | None, typer.Option(help="write to this file: .md, .tex, .csv or .txt", **PATH)]
Wide = Annotated[
    bool, typer.Option("--wide", help="all columns, however narrow terminal or paper (else in files and pipes: always)")
]
Across = Annotated[
    Literal["column", "page"],
    typer.Option(help="LaTeX: what fits across one column of a paper (3.25 in), or across its page (6.75 in)"),
]


def width_of(
    wide: bool = False, out: Path | None = None, fmt: Format = "console", across: str = "page"
) -> float | None:
    """Return how wide a table may be: as the terminal, or COLUMNS, says; None for a pipe, a file and where asked.

    Of LaTeX: in points, across the column or page of a paper; None where all is asked for.
    """
    if fmt == "latex" and not wide:
        from vpbench.render.tables.latex import WIDTHS

        return WIDTHS[across]
    if wide or out is not None or not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        return None
    return shutil.get_terminal_size().columns


def format_of(asked: Format | None, out: Path | None) -> Format:
    """Return the format that was asked for, by its name or by that of the file."""
    if asked is not None:
        return asked
    if out is None:
        return "console"
    if out.suffix not in ENDINGS:
        raise UsageError(f"{out}: give --format, or a name that ends in {', '.join(ENDINGS)}")
    return ENDINGS[out.suffix]


def write(text: str, out: Path | None) -> None:
    """Print a table, or write it into a file and print its name; raises VpbenchError where the disk refuses."""
    if out is None:
        typer.echo(text.rstrip("\n"))
        return
    write_file(out, text.rstrip("\n") + "\n", "--out", parents=True)
    typer.echo(str(out))


def write_file(path: Path, text: str, option: str, *, parents: bool = False) -> None:
    """Write a text file, and its folders with `parents`; raises VpbenchError, naming the option that named the file."""
    try:
        if parents:
            make_folder(path.parent)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise VpbenchError(
            f"{path}: cannot write ({error.strerror or error}); name another file with {option}"
        ) from error
