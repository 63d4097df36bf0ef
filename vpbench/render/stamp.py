"""Whether files that were drawn earlier still show what rows say: a stamp beside them holds what they were drawn of."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from vpbench.errors import VpbenchError
from vpbench.rows.contexts import records
from vpbench.storage import write_whole


def fresh(stamp: Path, rows: pd.DataFrame, asked: Sequence[str] = ()) -> list[Path]:
    """Return the files that a stamp is for; empty where one is missing, or was drawn of other rows or by other code.

    rows: of the results table; asked: whatever else decided what was drawn, such as names of figures.
    """
    digest, names = _held(stamp)
    files = [stamp.parent / name for name in names]
    return files if digest == _digest(rows, asked) and all(path.is_file() for path in files) else []


def renew(stamp: Path, rows: pd.DataFrame, files: Sequence[Path], asked: Sequence[str] = ()) -> None:
    """Write down what files below the stamp's folder were drawn of, and remove those of the stamp before that are not.

    rows, asked: as in `fresh`. Raises VpbenchError where the folder cannot be written.
    """
    drawn = [path.relative_to(stamp.parent).as_posix() for path in files]
    try:
        for name in set(_held(stamp)[1]) - set(drawn):
            (stamp.parent / name).unlink(missing_ok=True)  # nobody would draw it anew
        write_whole(stamp, json.dumps({"digest": _digest(rows, asked), "files": drawn}).encode())
    except OSError as error:
        raise VpbenchError(f"{stamp}: cannot write ({error.strerror or error}); make the folder writable") from error


def _held(stamp: Path) -> tuple[str, list[str]]:
    """Return the digest and the names in a stamp; nothing where there is none, or a torn one: then all is drawn."""
    try:
        held = json.loads(stamp.read_text(encoding="utf-8"))
        # a results folder may come from elsewhere: nothing outside of it is looked at, let alone removed
        home = stamp.parent.resolve()
        inside = [name for name in map(str, held["files"]) if (home / name).resolve().is_relative_to(home)]
        return str(held["digest"]), inside
    except (OSError, ValueError, KeyError, TypeError):
        return "", []


def _digest(rows: pd.DataFrame, asked: Sequence[str]) -> str:
    """Hash rows, in whatever order, and the code that makes pictures of them; rows say when they were measured."""
    each = sorted(json.dumps(row, sort_keys=True, default=str) for row in records(rows))
    return hashlib.sha256("\n".join([_code(), *asked, *each]).encode()).hexdigest()


@cache
def _code() -> str:
    """Hash the files of the rooms that turn rows into pictures."""
    package, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for room in ("render", "rows") for path in (package / room).rglob("*") if path.is_file()):
        if path.suffix != ".pyc":
            found.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes())
    return found.hexdigest()
