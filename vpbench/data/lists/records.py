"""Lists of a user's own videos in any usual form: CSV, TSV, blanks, JSON lines; with a header, or known by its columns.

Without a header lines are `path label`, `path frames label` (folders of frames) or `path start end label` (seconds).
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpbench.data import Seconds
from vpbench.data.lists.text import MAX_LINE, checked_path, whole
from vpbench.data.lists.tree import ENDINGS
from vpbench.errors import UsageError

#: names of columns, in small letters with _ for all else, the first that is there counts
PATHS = (
    "path", "video", "file_name", "filename", "file", "video_path", "filepath", "file_path", "video_name", "videoname",
    "clip", "clip_path", "clip_name", "relative_path", "vid_name", "video_id", "name", "id",
    "youtube_id",
)  # fmt: skip
LABELS = (
    "label", "class", "class_name", "classname", "label_name", "category", "action", "activity", "target", "y",
    "label_id", "class_id", "class_index", "class_idx", "label_index", "label_idx",
)  # fmt: skip
STARTS = ("start", "start_time", "time_start", "start_sec", "start_seconds", "start_s", "t_start", "begin")
ENDS = ("end", "end_time", "time_end", "end_sec", "end_seconds", "end_s", "t_end", "stop", "stop_time")
SPLITS = ("split", "subset", "set", "partition", "phase", "usage")
#: lines that are looked at to tell the form of a list
LOOKED_AT = 200
_WHOLE = re.compile("[0-9]{1,9}")
_NUMBER = re.compile(r"[0-9]{1,7}(?:\.[0-9]{0,12})?")
_LAST = re.compile(r"(.*[^\s,;])[\s,;]+(\S+)")
_ENDED = re.compile(rf"(.*?(?:{'|'.join(map(re.escape, ENDINGS))})\"?)[\s,;]+(\S.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """A line of a list: a path as it is written, a label as text (number or name), and what else a list may say.

    `number`: of a label that is a name, where a list has both.
    """

    line: int
    path: str
    label: str
    number: str | None = None
    part: Seconds | None = None
    split: str | None = None


class NoLabels(UsageError):
    """A list names videos, but no labels."""


def is_whole(text: str) -> bool:
    """Tell whether a label is a whole number."""
    return _WHOLE.fullmatch(text) is not None


def records(source: Path, text: str, exists: Callable[[str], bool]) -> list[Record]:
    """Read a list; raises UsageError that names the first line which makes no sense, and what lines look like.

    exists: tells whether a path names something, where a form is not clear by itself (names that end in a number).
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if long := [number for number, line in lines if len(line) > MAX_LINE]:
        raise UsageError(f"{source} line {long[0]}: longer than any line of a list; give a list")
    if not lines:
        raise UsageError(f"{source}: empty; lines look like videos/a.mp4 0")
    if lines[0][1][0] in "{[":
        return _by_name(source, _objects(source, text))
    header = _header(lines[0][1])
    if header is not None:
        separator, columns = header
        return _by_name(source, _rows(source, lines[1:], separator, columns))
    found = _numbered(lines, exists) or _separated(lines) or _ended(lines)
    if found is None:
        raise _no_form(source, lines)
    return [_record(source, number, cells) for (number, _), cells in zip(lines, found, strict=True)]


def _no_form(source: Path, lines: Sequence[tuple[int, str]]) -> UsageError:
    number, line = next(((n, text) for n, text in lines if _ended([(n, text)]) is None), lines[0])
    return UsageError(
        f"{source} line {number}: {line[:60]!r} is no video; lines look like `videos/a.mp4 0`, `videos/a.mp4,jump`, "
        "`frames/a 120 0` or `videos/a.mp4 1.5 4 0` (seconds), or name their columns in a header (path,label)"
    )


def _column(name: str) -> str:
    return re.sub("[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def _header(line: str) -> tuple[str, list[str]] | None:
    """Return separator and columns of a first line that names them; None for one that is a video."""
    for separator in ("\t", ",", ";", " "):
        columns = [_column(cell) for cell in _cells(line, separator)]
        # names alone name columns, too, where something else than blanks is between them
        plain = separator != " " and len(columns) > 1 and all(name.isidentifier() for name in columns)
        paths, labels = bool(set(columns) & set(PATHS)), bool(set(columns) & set(LABELS))
        if (paths and (labels or plain)) or (len(columns) > 1 and set(LABELS).issuperset(columns)):
            return separator, columns
    return None


def _cells(line: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in cells if cell or separator != " "]


def _rows(
    source: Path, lines: Iterable[tuple[int, str]], separator: str, columns: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, str]]]:
    for number, line in lines:
        cells = _cells(line, separator)
        if len(cells) != len(columns):
            raise UsageError(
                f"{source} line {number}: {len(cells)} columns instead of the {len(columns)} of the header; "
                'put cells that hold the separator into "quotes"'
            )
        yield number, dict(zip(columns, cells, strict=True))


def _objects(source: Path, text: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the objects of JSON lines, or of one JSON array, with their values as text."""
    lines = enumerate(text.split("\n"), start=1)
    try:
        whole = json.loads(text) if text.lstrip().startswith("[") else None
        pieces: Iterable[tuple[int, Any]] = (
            ((number, json.loads(line)) for number, line in lines if line.strip())
            if whole is None
            else enumerate(whole, start=1)
        )
        for number, found in pieces:
            if not isinstance(found, dict):
                raise UsageError(
                    f"{source} line {number}: not an object like {{'file_name': 'a.mp4', 'label': 'jump'}}"
                )
            yield number, {_column(str(key)): _text(value) for key, value in found.items()}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source}: not JSON, one object a line ({str(error).splitlines()[0]})") from error


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _by_name(source: Path, rows: Iterable[tuple[int, Mapping[str, str]]]) -> list[Record]:
    """Read rows by the names of their columns."""
    found = [(line, _trimmed(source, line, row)) for line, row in rows]
    if not found:
        raise UsageError(f"{source}: a header, but no videos below it")
    columns = list(dict.fromkeys(column for _, row in found for column in row))
    path = _first(source, columns, PATHS, "the video")
    label, number = _labels(source, columns, [row for _, row in found])
    start, end, split = (next((name for name in names if name in columns), None) for names in (STARTS, ENDS, SPLITS))
    if (start is None) != (end is None):
        raise UsageError(f"{source}: a column {start or end!r} without its {'end' if end is None else 'start'}; add it")
    if start is None and {"start_frame", "end_frame", "stop_frame"} & set(columns):
        raise UsageError(f"{source}: parts in frames; give columns start and end in seconds")
    return [
        Record(
            line,
            checked_path(f"{source} line {line}", row.get(path, "")),
            _label(source, line, row.get(label, "")),
            None if number is None else row.get(number, ""),
            None if start is None or end is None else _seconds(source, line, row.get(start, ""), row.get(end, "")),
            None if split is None else row.get(split, "") or None,
        )
        for line, row in found
    ]


def _trimmed(source: Path, line: int, row: Mapping[str, str]) -> Mapping[str, str]:
    """Return a row of Kinetics with the name of its file, which is trimmed: its times are no part of it."""
    id_, *times = (row.get(name, "") for name in ("youtube_id", "time_start", "time_end"))
    if not id_ or not all(times) or "path" in row:
        return row
    start, end = (whole(source, line, "a time of YouTube", time) for time in times)
    rest = {name: value for name, value in row.items() if name not in ("time_start", "time_end")}
    return rest | {"path": f"{id_}_{start:06d}_{end:06d}"}


def _first(source: Path, columns: Sequence[str], names: Sequence[str], what: str) -> str:
    found = next((name for name in names if name in columns), None)
    if found is None:
        kind = NoLabels if names is LABELS else UsageError
        raise kind(
            f"{source}: no column names {what}; it has {', '.join(columns[:10])[:200]!r}, and one should be called "
            f"{', '.join(names[:6])} or the like"
        )
    return found


def _labels(source: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> tuple[str, str | None]:
    """Choose the column of labels, and one of their numbers beside it, where there are both.

    Raises UsageError where two columns say two things.
    """
    present = [name for name in LABELS if name in columns]
    if not present:
        _first(source, columns, LABELS, "the label")
    numbers = [name for name in present if all(is_whole(row.get(name, "")) for row in rows)]
    names = [name for name in present if name not in numbers]
    for alike in (names, numbers):
        for other in alike[1:]:
            if any(row.get(alike[0]) != row.get(other) for row in rows):
                raise UsageError(f"{source}: columns {alike[0]!r} and {other!r} are both labels, and differ; drop one")
    if not names:
        return numbers[0], None
    return names[0], numbers[0] if numbers else None


def _numbered(lines: Sequence[tuple[int, str]], exists: Callable[[str], bool]) -> list[list[str]] | None:
    """Split lines that end in numbers, whatever separates them: paths may hold blanks and commas."""
    peeled = []
    for _, line in lines:
        match = _LAST.fullmatch(line)
        if match is None or not is_whole(match[2]):
            return None
        cells, rest = [match[2]], match[1]
        forms = [[_unquoted(rest), *cells]]
        while len(forms) < 3 and (match := _LAST.fullmatch(rest)) is not None and _NUMBER.fullmatch(match[2]):
            cells, rest = [match[2], *cells], match[1]
            forms.append([_unquoted(rest), *cells])
        peeled.append(forms)
    most = min(map(len, peeled)) - 1
    looked = peeled[:LOOKED_AT]
    columns = next((n for n in range(most + 1) if any(exists(forms[n][0]) for forms in looked)), most)
    return [forms[columns] for forms in peeled]


def _separated(lines: Sequence[tuple[int, str]]) -> list[list[str]] | None:
    """Split lines at tabs, commas or semicolons, where all of them so have two to four cells."""
    for separator in ("\t", ",", ";"):
        found = [_cells(line, separator) for _, line in lines]
        if len({len(cells) for cells in found}) == 1 and 2 <= len(found[0]) <= 4:
            return found
    return None


def _ended(lines: Sequence[tuple[int, str]]) -> list[list[str]] | None:
    """Split lines behind the ending of a video, or at blanks where there are two to four cells; labels are names."""
    found = []
    for _, line in lines:
        if (match := _ENDED.fullmatch(line)) is not None:
            numbers = re.fullmatch(rf"({_NUMBER.pattern})\s+({_NUMBER.pattern})\s+(\S.*)", match[2])
            found.append([_unquoted(match[1]), *(numbers.groups() if numbers else (match[2],))])
        else:
            cells = _cells(line, " ")
            if not 2 <= len(cells) <= 4:
                return None
            found.append(cells)
    return found


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _record(source: Path, line: int, cells: Sequence[str]) -> Record:
    path, *middle, label = cells
    checked = checked_path(f"{source} line {line}", path)
    if len(middle) == 1 and not is_whole(middle[0]):
        raise UsageError(
            f"{source} line {line}: of three columns the second is a number of frames, not {middle[0][:40]!r}; "
            "put paths that hold the separator into quotes, or name the columns in a header"
        )
    part = _seconds(source, line, *middle) if len(middle) == 2 else None
    return Record(line, checked, _label(source, line, label), part=part)


def _label(source: Path, line: int, text: str) -> str:
    if not text or not text.strip():
        raise UsageError(f"{source} line {line}: no label; give a number or a name")
    return text.strip()


def _seconds(source: Path, line: int, start: str, end: str) -> Seconds:
    for text in (start, end):
        if not _NUMBER.fullmatch(text):
            raise UsageError(f"{source} line {line}: {text[:20]!r} is no number of seconds; parts are start and end")
    part = Seconds(float(start), float(end))
    if not part.start < part.stop or not math.isfinite(part.stop):
        raise UsageError(f"{source} line {line}: the part from {start} s to {end} s holds nothing; check the list")
    return part
