"""Keep rows in folders of Parquet files: one file per part, written whole or not at all.

Nothing is ever appended or merged in place, so any number of processes may write into the same folder.
"""

import contextlib
import errno
import os
import re
import shlex
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vpbench.errors import UsageError, VpbenchError
from vpbench.rows.schema import PREDICTED, SCHEMA_VERSION, SCHEMAS, TABLE_KEY, VERSION_KEY
from vpbench.storage import create, make_folder, on_disk, write_whole

STALE_S = 3600.0  # a temporary file this old has lost its writer
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*")
#: rows of one id that are worth a row group of their own
_GROUP_ROWS = 1000
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: what of a part replaces what an earlier one holds of it
_PAIR = ["prediction_id", "video_id"]
#: metadata of a part: the tables whose parts of the same name make it whole
_WHOLE_WITH = b"vpbench.whole_with"
# before version 7 detections were no table of the store
_DETECTIONS_VERSION = b"vpbench.detections_version"

#: inode, bytes and time of change in ns
_Stamp: TypeAlias = tuple[int, int, int]
#: rows as dicts, or as Arrow columns of the newest schema
Rows: TypeAlias = "Sequence[Mapping[str, object]] | pa.Table"


class Store:
    """The tables under `folder`. `problems` names every file that reading skipped, and what to do about it.

    With `writable` (the default) the folder is made if need be and left-over temporary files are removed; without, it
    must exist. Raises UsageError where the folder cannot be used so.
    """

    def __init__(self, folder: Path, *, writable: bool = True) -> None:
        self.folder = folder
        self.problems: list[str] = []
        #: what stood in a file when it was read last: the ids of its rows, which spares opening it for others
        self._known: dict[Path, tuple[_Stamp, frozenset[str | None]]] = {}
        #: files that were found whole, with those that make them so
        self._whole: dict[Path, tuple[_Stamp, ...]] = {}
        if writable:
            self._prepare()
        elif not folder.is_dir():
            raise UsageError(f"{folder}: no such results folder; run or sweep with --out {folder} first")

    def write(self, table: str, part: str, rows: Rows) -> None:
        """Replace one part of a table by `rows`; readers see the old part or the new one, never a mixture.

        Nullable columns and `schema_version` may be left out. Raises ValueError for an unknown key, a missing or null
        required one, a value of another type and an unusable part name; VpbenchError where the disk is full or refuses.
        """
        self.write_together(part, {table: rows})

    def write_together(self, part: str, tables: Mapping[str, Rows]) -> None:
        """Write a part of several tables, in their order; readers see none of it where one is missing or torn.

        Raises as `write` does.
        """
        if not _PART.fullmatch(part):
            raise ValueError(f"{part!r} cannot name a file of a table: use letters, digits and _ . = -")
        for table, rows in tables.items():
            content = rows if isinstance(rows, pa.Table) else to_arrow(table, rows)
            if others := " ".join(other for other in tables if other != table):
                content = content.replace_schema_metadata({**(content.schema.metadata or {}), _WHOLE_WITH: others})
            replace_file(content, self._file(table, part))

    def read(
        self,
        table: str,
        prefix: str = "",
        columns: Sequence[str] | None = None,
        only: Collection[str] | None = None,
        parts: Collection[str] | None = None,
    ) -> pd.DataFrame:
        """Return all rows of a table in the newest schema, in order of part names; columns have Arrow types.

        With `prefix`, only the parts whose names start with it, with `parts`, those of these names; with `columns`,
        only these; with `only`, rows of these ids (`prediction_id` of what was predicted, `config_id` else). What was
        predicted again replaces what was there of the same video. Damaged, empty and foreign files are skipped and
        named in `problems`.
        """
        frame: pd.DataFrame = self.read_arrow(table, prefix, columns, only, parts).to_pandas(types_mapper=pd.ArrowDtype)
        return frame

    def read_arrow(
        self,
        table: str,
        prefix: str = "",
        columns: Sequence[str] | None = None,
        only: Collection[str] | None = None,
        parts: Collection[str] | None = None,
    ) -> pa.Table:
        """Do as `read`; return Arrow columns, for tables that are too large to be anything else."""
        wanted = SCHEMAS[table].names if columns is None else list(columns)
        keys = _PAIR if table in PREDICTED else []
        needed = list(dict.fromkeys((*wanted, *keys, *(("config_id",) if only is not None and not keys else ()))))
        files = (path for path in self._files(table, prefix) if parts is None or path.stem in parts)
        read = (self._read_part(table, path, needed, only) for path in files)
        pieces = [piece for piece in read if piece is not None and len(piece)]
        if keys:
            pieces = _newest(pieces)
        whole = pa.concat_tables([SCHEMAS[table].empty_table().select(needed), *pieces])
        return whole.select(wanted)

    def predictions(self, table: str, results: pd.DataFrame, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return what each configuration of `results` predicted: rows of a table with `config_id` in front.

        Configurations that differ only in how they were run share their predictions, and have the same rows here.
        """
        named = None if columns is None else list(dict.fromkeys(("prediction_id", *columns)))
        pairs = results[["config_id", "prediction_id"]].drop_duplicates()
        found = self.read(table, columns=named, only=set(pairs["prediction_id"]))
        return pairs.merge(found, on="prediction_id", how="inner")

    def parts(self, table: str) -> set[str]:
        """Return the names of the parts on disk, whether readable or not."""
        return {path.stem for path in self._files(table)}

    def drop(self, table: str, prefix: str) -> None:
        """Remove the parts whose names start with `prefix`: what they hold is about to be measured again."""
        for path in self._files(table, prefix):
            path.unlink(missing_ok=True)

    def has(self, table: str, part: str) -> bool:
        """Tell whether a whole part is on disk; a torn one counts as missing, so that it is measured again."""
        try:
            pq.read_metadata(_opened(self._file(table, part)))
        except (OSError, pa.ArrowException):
            return False
        return True

    def _file(self, table: str, part: str) -> Path:
        return self.folder / f"{table}.parquet" / f"{part}.parquet"

    def _files(self, table: str, prefix: str = "") -> list[Path]:
        """List the parts; dot files belong to writers that are still busy, or dead."""
        found = (self.folder / f"{table}.parquet").glob("*.parquet")
        return sorted(path for path in found if path.name.startswith(prefix) and not path.name.startswith("."))

    def _prepare(self) -> None:
        try:
            for table in SCHEMAS:
                make_folder(self.folder / f"{table}.parquet")
            probe = self.folder / f".probe.{os.getpid()}.{uuid.uuid4().hex}.tmp"
            create(probe, b"")
            now = probe.stat().st_mtime
            probe.unlink()
            for table in SCHEMAS if on_disk(self.folder) else ():
                _remove_stale(self.folder / f"{table}.parquet", now)
        except OSError as error:
            raise UsageError(
                f"{self.folder}: cannot write results here ({error.strerror or error}); name another folder with "
                "--out, or make this one writable"
            ) from error

    def _read_part(
        self, table: str, path: Path, columns: Sequence[str], only: Collection[str] | None
    ) -> pa.Table | None:
        try:
            stamp = _stamp(path)
            known = self._known.get(path)
            if only is not None and known is not None and known[0] == stamp and known[1].isdisjoint(only):
                return None
            file = pq.ParquetFile(_opened(path))
            held = None if only is None else _held(file, table)
            if held is not None and None not in held:
                self._known[path] = stamp, frozenset(held)
            metadata = file.schema_arrow.metadata or {}
            others = metadata.get(_WHOLE_WITH, b"").decode().split()
            if not self._is_whole(path, stamp, others):
                return None  # its writer was stopped before the rest was there, or that was torn: it is written again
            content = _in_newest_schema(table, path.stem, _groups(file, table, columns, held, only or ()), columns)
        except (OSError, pa.ArrowException, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            problem = f"{path}: not a whole {table} file, skipped ({reason}); delete it and {self._remedy(table)}"
            if problem not in self.problems:
                self.problems.append(problem)
            return None
        if only is None:
            return content
        return content.filter(pc.is_in(content[_key(table)], pa.array(list(only), pa.string())))

    def _is_whole(self, path: Path, stamp: _Stamp, others: Sequence[str]) -> bool:
        """Tell whether the parts of other tables are there that a part needs; each is looked into but once."""
        try:
            stamps = stamp, *(_stamp(self._file(other, path.stem)) for other in others)
        except FileNotFoundError:
            return False
        if self._whole.get(path) != stamps and not all(self.has(other, path.stem) for other in others):
            return False
        self._whole[path] = stamps
        return True

    def _remedy(self, table: str) -> str:
        """Say what brings a part back: results are derived from the other tables, which were measured."""
        if table == "results":
            return f"run `vpbench finish --out {shlex.quote(str(self.folder))}`"
        return "run the same command again"


def results_folders(top: Path, parts: str = "results.parquet/*.parquet") -> list[Path]:
    """Return the folders, `top` itself and up to three levels below it, that hold such parts; the last written first.

    They are never read together: one folder's rows of a configuration would take the place of another's, and both were
    timed beside a dense of their own.
    """
    found = {path.parents[1] for depth in range(4) for path in top.glob("*/" * depth + parts)}
    return sorted(found, key=lambda folder: (_written(folder, parts), folder), reverse=True)


def _written(folder: Path, parts: str) -> int:
    """Return when a part was last written, in ns; a sweep that goes on may remove some meanwhile."""
    times = [0]
    for path in (*folder.glob("*.parquet/*.parquet"), *folder.glob(parts)):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime_ns)
    return max(times)


def latest(results: pd.DataFrame) -> pd.DataFrame:
    """Keep one row per configuration, scenario and batch: the newest with status `ok`, else the newest.

    Dense is measured again in every block of a sweep, and `--force` measures anything again.
    """
    key = ["config_id", "scenario", "batch_size"]
    ranked = results.assign(_ok=results["status"] == "ok").sort_values(["_ok", "timestamp_utc"], kind="stable")
    return ranked.drop_duplicates(key, keep="last").drop(columns="_ok").sort_index().reset_index(drop=True)


def replace_file(content: pa.Table, target: Path) -> None:
    """Write a Parquet file whole or not at all; raises VpbenchError where the disk is full or refuses."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, content.schema) as writer:
        for group in _by_id(content):
            writer.write_table(group)
    try:
        write_whole(target, memoryview(sink.getvalue()))
    except OSError as error:
        advice = "free some space" if error.errno in _FULL else "make the folder writable"
        raise VpbenchError(
            f"{target}: cannot write ({error.strerror or error}); {advice} and run the same command again"
        ) from error


def to_arrow(table: str, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Return rows as a table of the newest schema; raises ValueError as `Store.write` does.

    Keys are checked here, since Arrow drops unknown ones and fills missing ones without a word.
    """
    schema = SCHEMAS[table]
    stamp = {"schema_version": SCHEMA_VERSION} if "schema_version" in schema.names else {}
    rows = [{**stamp, **row} for row in rows]
    for row in rows:
        if unknown := sorted(set(row) - set(schema.names)):
            raise ValueError(f"table {table} has no column {', '.join(unknown)}")
        missing = [field.name for field in schema if not field.nullable and row.get(field.name) is None]
        if missing:
            raise ValueError(f"a row of table {table} lacks {', '.join(missing)}")
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(f"table {table}: {error}") from error


def _opened(path: Path) -> Any:
    """Return a file for Arrow to read; no memory mapping, which a file cut short meanwhile would turn into a crash."""
    return pa.OSFile(str(path)) if on_disk(path) else pa.BufferReader(path.read_bytes())


def _by_id(content: pa.Table) -> Iterator[pa.Table]:
    """Cut rows by `prediction_id`: each is a row group, so that one configuration is read without the others.

    Not where each has few rows: describing the groups would then take longer than reading them all.
    """
    named = "prediction_id" in content.schema.names
    if not named or len(ids := pc.unique(content["prediction_id"])) < 2 or len(content) < _GROUP_ROWS * len(ids):
        yield content
        return
    for each in ids:
        yield content.filter(pc.equal(content["prediction_id"], each))


def _groups(
    file: pq.ParquetFile, table: str, columns: Sequence[str], held: Sequence[str | None] | None, only: Collection[str]
) -> pa.Table:
    """Read the row groups that may hold rows of the ids in `only`; all, where nobody asked what each of them holds."""
    there, key = file.schema_arrow.names, _key(table)
    named = {name: "config_id" if name == key and key not in there else name for name in columns}
    names = [name for name in named.values() if name in there]
    if held is None:
        return file.read(names)
    return file.read_row_groups([number for number, own in enumerate(held) if own is None or own in only], names)


def _held(file: pq.ParquetFile, table: str) -> list[str | None] | None:
    """Return the id that all rows of each row group have, None where its statistics tell none; None without ids.

    Before version 7 there was one kind of id.
    """
    there = file.schema_arrow.names
    place = next((there.index(name) for name in (_key(table), "config_id") if name in there), None)
    if place is None:
        return None
    metadata, held = file.metadata, list[str | None]()
    for number in range(metadata.num_row_groups):
        stored = metadata.row_group(number).column(place).statistics
        alone = stored is not None and stored.has_min_max and stored.min == stored.max
        held.append(str(stored.min) if alone else None)
    return held


def _stamp(path: Path) -> _Stamp:
    """Return what tells a file from the one that replaced it."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _key(table: str) -> str:
    return "prediction_id" if table in PREDICTED else "config_id"


def _newest(pieces: Sequence[pa.Table]) -> list[pa.Table]:
    """Leave out rows of a video that a later part holds anew."""
    taken: set[tuple[str, str]] = set()
    kept = []
    for piece in reversed(pieces):
        each = piece.select(_PAIR).group_by(_PAIR).aggregate([])
        own = set(zip(*(each[name].to_pylist() for name in _PAIR), strict=True))
        if again := own & taken:
            pairs = zip(*(piece[name].to_pylist() for name in _PAIR), strict=True)
            piece = piece.filter(pa.array([pair not in again for pair in pairs]))
        taken |= own
        kept.append(piece)
    return kept[::-1]


def _in_newest_schema(table: str, part: str, content: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Name columns as they are now and add those that came later as nulls; refuse what this version cannot know."""
    metadata = content.schema.metadata or {}
    if metadata.get(TABLE_KEY) != table.encode():
        raise ValueError("not written by vpbench")
    version = int(metadata.get(VERSION_KEY, metadata.get(_DETECTIONS_VERSION, b"-1")))
    if version < 0:
        raise ValueError("not written by vpbench")
    if version > SCHEMA_VERSION:
        raise ValueError(f"schema {version} is newer than this vpbench knows ({SCHEMA_VERSION})")
    schema, there = SCHEMAS[table], content.schema.names
    if "prediction_id" in schema.names and "prediction_id" not in there and "config_id" in there:
        content = content.append_column("prediction_id", content["config_id"])
    if table == "samples" and "block" not in there:
        # before version 7 it was said by the part's name alone: `<config>-<run>-<block>`
        block = pa.array(["-".join(part.split("-")[-2:])] * len(content), pa.string())
        content = content.append_column("block", block)
    there = content.schema.names
    found = [
        content[name].cast(schema.field(name).type)
        if name in there
        else pa.nulls(len(content), schema.field(name).type)
        for name in columns
    ]
    return pa.table(found, schema=pa.schema([schema.field(name) for name in columns], metadata=schema.metadata))


def _remove_stale(folder: Path, now: float) -> None:
    """Remove temporary files whose writers are long gone; `now` by the clock that stamps files, maybe a server's."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # its writer finished, or another process tidied up first
            if now - path.stat().st_mtime > STALE_S:
                path.unlink()
