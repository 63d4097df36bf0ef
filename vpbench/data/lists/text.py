"""Annotation files as text, read without trusting them: `path label` lists, CSV tables with a header, whole numbers."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vpbench.data.lists.paths import control_character, is_absolute, parts_of
from vpbench.errors import UsageError, near_matches, not_fetched

#: three times the longest real list (240,000 absolute paths); what is larger is no list
MAX_BYTES = 100_000_000
#: far above any path
MAX_LINE = 8192
_PATH_LABEL = re.compile(r"(.*[^\s,])[\s,]+([0-9]{1,9})")
_NUMBER = re.compile(r"[0-9]{1,9}")
#: words in the names of lists that do not tell one list of a dataset from another
_NEUTRAL = frozenset({"kinetics", "k", "something", "v", "ssv", "sthv", "list", "videos"})


class Listed(NamedTuple):
    """A line of a `path label` list."""

    line: int
    path: str
    label: int


def read_text(path: Path) -> str:
    """Read an annotation file; raises UsageError if it is too large or no text."""
    try:
        # a pipe would be waited for, and has no size
        if not path.is_file():
            raise UsageError(f"{path}: no file; give a list in its place")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UsageError(f"{path}: {size / 1e6:.0f} MB, more than any list of videos has; give the list itself")
        content = path.read_bytes()
        # what Windows calls Unicode, and PowerShell writes, begins with one of these marks
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; make it readable") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: not text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    if content and (said := not_fetched(content[:64])):
        raise UsageError(f"{path}: {said}")
    if "\0" in text:
        raise UsageError(f"{path}: binary, not a list of videos; give a list")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def has_header(text: str, *columns: str) -> bool:
    """Tell whether the first line names columns, rather than a video."""
    first = {name.strip().strip('"') for name in text.partition("\n")[0].split(",")}
    return first.issuperset(columns)


def path_labels(path: Path, text: str) -> list[Listed]:
    """Read lines of a path, blanks or a comma, and a label; paths may hold blanks and commas, and be quoted.

    Raises UsageError that names the first line which is none, or whose path would leave the root by way of `..`.
    """
    found: list[Listed] = []
    # not splitlines(), which also cuts at characters that a file name may hold
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped:
            continue
        match = _PATH_LABEL.fullmatch(stripped) if len(stripped) <= MAX_LINE else None
        if match is None:
            raise UsageError(
                f"{path} line {number}: {stripped[:60]!r} is no video; lines look like val/abseiling/x.mp4 0"
            )
        found.append(Listed(number, _checked_path(path, number, match[1]), int(match[2])))
    return found


def _checked_path(path: Path, number: int, text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    return checked_path(f"{path} line {number}", text)


def checked_path(where: str, text: str) -> str:
    """Return a path as a list may hold it, of any system; raises UsageError for one that names no file.

    So does one with `..`, unless it is absolute: that may name any file as it is.
    """
    if (refused := control_character(text)) is not None:
        raise UsageError(f"{where}: {text[:60]!r} names no file: it holds the control character {refused}")
    parts = parts_of(text)
    if not parts or parts[-1] == "..":
        raise UsageError(f"{where}: {text[:60]!r} names no file")
    if ".." in parts and not is_absolute(text):
        raise UsageError(f"{where}: {text[:60]!r} leaves the folder of the dataset; take out the ..")
    return text


def table(path: Path, text: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the named columns of each row of a CSV file with a header; blank rows are left out.

    Raises UsageError for a column that is missing and for a row that is too short.
    """
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(rows, [])]
        for name in columns:
            if name not in header:
                shown = [other[:40] for other in header[:40] if other.isprintable()]
                raise UsageError(f"{path}: has no column {name!r}{near_matches(name, shown)}")
        places = [header.index(name) for name in columns]
        for row in rows:
            if not row:
                continue
            if len(row) <= max(places):
                raise UsageError(f"{path} line {rows.line_num}: {len(row)} columns instead of {len(header)}")
            yield rows.line_num, [row[place].strip() for place in places]
    except csv.Error as error:
        raise UsageError(f"{path} line {rows.line_num}: not a CSV table ({error})") from error


def whole(path: Path, line: int, column: str, text: str) -> int:
    """Read a number of at most nine digits; raises UsageError that names its place."""
    if not _NUMBER.fullmatch(text):
        raise UsageError(f"{path} line {line}: {column} is {text[:20]!r}, not a whole number")
    return int(text)


def find_list(folders: Sequence[Path], words: Sequence[str]) -> Path | None:
    """Find the .csv or .txt file that is named after a split: `val.csv`, `kinetics_val.csv`, `k400_val_list.txt`.

    The first folder with one counts, in it the first of the words, then the shortest name.
    """
    for folder in folders:
        files = [file for file in _files(folder) if file.suffix in (".csv", ".txt")]
        for word in words:
            named = [file for file in files if set(re.findall("[a-z]+", file.stem.lower())) - _NEUTRAL == {word}]
            if named:
                return min(named, key=lambda file: (len(file.name), file.name))
    return None


def _files(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.iterdir() if file.is_file()]
    except OSError:
        return []
