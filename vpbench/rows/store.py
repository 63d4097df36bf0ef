"""Keep rows in folders of Parquet files: one file per part, written whole or not at all.

Nothing is ever appended or merged in place, so any number of processes may write into the same folder.
"""

from __future__ import annotations

import errno
import os
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vpbench.errors import UsageError, VpbenchError
from vpbench.rows.schema import SCHEMA_VERSION, SCHEMAS, TABLE_KEY, VERSION_KEY

STALE_S = 3600.0  # a temporary file this old has lost its writer
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Store:
    """The tables under `folder`. `problems` names every file that reading skipped, and what to do about it.

    With `writable` (the default) the folder is made if need be and left-over temporary files are removed; without, it
    must exist. Raises UsageError where the folder cannot be used so.
    """

    def __init__(self, folder: Path, *, writable: bool = True) -> None:
        self.folder = folder
        self.problems: list[str] = []
        if writable:
            self._prepare()
        elif not folder.is_dir():
            raise UsageError(f"{folder}: no such results folder; run or sweep with --out {folder} first")

    def write(self, table: str, part: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace one part of a table by `rows`; readers see the old part or the new one, never a mixture.

        Nullable columns and `schema_version` may be left out. Raises ValueError for an unknown key, a missing or null
        required one, a value of another type and an unusable part name; VpbenchError where the disk is full or refuses.
        """
        if not _PART.fullmatch(part):
            raise ValueError(f"{part!r} cannot name a file of a table: use letters, digits and _ . = -")
        replace_file(_to_arrow(table, rows), self._file(table, part))

    def read(self, table: str, prefix: str = "", columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all rows of a table in the newest schema, in order of part names; columns have Arrow types.

        With `prefix`, only the parts whose names start with it (those of one configuration start with its id); with
        `columns`, only these. Damaged, empty and foreign files are skipped and named in `problems`.
        """
        wanted = SCHEMAS[table].names if columns is None else list(columns)
        read = (self._read_part(table, path, wanted) for path in self._files(table, prefix))
        pieces = [piece for piece in read if piece is not None]
        whole = pa.concat_tables([SCHEMAS[table].empty_table().select(wanted), *pieces])
        frame: pd.DataFrame = whole.to_pandas(types_mapper=pd.ArrowDtype)
        return frame

    def parts(self, table: str) -> set[str]:
        """Return the names of the parts on disk, whether readable or not."""
        return {path.stem for path in self._files(table)}

    def has(self, table: str, part: str) -> bool:
        """Tell whether a whole part is on disk; a torn one counts as missing, so that it is measured again."""
        try:
            pq.read_metadata(self._file(table, part))
        except (OSError, pa.ArrowException):
            return False
        return True

    def adopt(self, tables: Sequence[str], known: str, config_id: str) -> None:
        """Write the rows of configuration `known` once more, as those of another; damaged parts are left out."""
        for table in tables:
            for path in self._files(table, f"{known}-"):
                part = self._read_part(table, path)
                if part is not None:
                    place = part.schema.get_field_index("config_id")
                    field = part.schema.field(place)
                    own = part.set_column(place, field, pa.array([config_id] * len(part), field.type))
                    replace_file(own, self._file(table, config_id + path.stem.removeprefix(known)))

    def done(self) -> set[str]:
        """Return the config_ids that have a results row with status `ok`."""
        results = self.read("results")
        return set(results.loc[results["status"] == "ok", "config_id"])

    def _file(self, table: str, part: str) -> Path:
        return self.folder / f"{table}.parquet" / f"{part}.parquet"

    def _files(self, table: str, prefix: str = "") -> list[Path]:
        """List the parts; dot files belong to writers that are still busy, or dead."""
        found = (self.folder / f"{table}.parquet").glob("*.parquet")
        return sorted(path for path in found if path.name.startswith(prefix) and not path.name.startswith("."))

    def _prepare(self) -> None:
        try:
            for table in SCHEMAS:
                folder = self.folder / f"{table}.parquet"
                folder.mkdir(parents=True, exist_ok=True)
                _remove_stale(folder)
            probe = self.folder / f".probe.{os.getpid()}.{uuid.uuid4().hex}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"{self.folder}: cannot write results here ({error.strerror}); name another folder with --out, "
                "or make this one writable"
            ) from error

    def _read_part(self, table: str, path: Path, columns: Sequence[str] | None = None) -> pa.Table | None:
        wanted = SCHEMAS[table].names if columns is None else list(columns)
        try:
            # the bytes first: with memory mapping, a file cut short meanwhile would end the process, not raise
            file = pq.ParquetFile(pa.BufferReader(path.read_bytes()))
            content = file.read([name for name in wanted if name in file.schema_arrow.names])
            return _in_newest_schema(table, content).select(wanted)
        except (OSError, pa.ArrowException, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            again = "" if table == "results" else " with --force"  # results alone decide what is done
            advice = f"delete it and run the same command again{again}"
            problem = f"{path}: not a whole {table} file, skipped ({reason}); {advice}"
            if problem not in self.problems:
                self.problems.append(problem)
            return None


def latest(results: pd.DataFrame) -> pd.DataFrame:
    """Keep one row per configuration, scenario and batch: the newest with status `ok`, else the newest.

    Dense is measured again in every block of a sweep, and `--force` measures anything again.
    """
    key = ["config_id", "scenario", "batch_size"]
    ranked = results.assign(_ok=results["status"] == "ok").sort_values(["_ok", "timestamp_utc"], kind="stable")
    return ranked.drop_duplicates(key, keep="last").drop(columns="_ok").sort_index().reset_index(drop=True)


def replace_file(content: pa.Table, target: Path) -> None:
    """Write a Parquet file whole or not at all; raises VpbenchError where the disk is full or refuses."""
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        _write_whole(content, temporary, target)
    except OSError as error:
        advice = "free some space" if error.errno in _FULL else "make the folder writable"
        raise VpbenchError(
            f"{target}: cannot write ({error.strerror or error}); {advice} and run the same command again"
        ) from error


def _to_arrow(table: str, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """Check keys before Arrow does: it drops unknown keys and fills missing ones without a word."""
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


def _write_whole(content: pa.Table, temporary: Path, target: Path) -> None:
    try:
        with temporary.open("wb") as stream:
            pq.write_table(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, nor need it be
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # otherwise the new name may be lost with the power
    finally:
        os.close(folder)


def _in_newest_schema(table: str, content: pa.Table) -> pa.Table:
    """Add columns that came later as nulls; raises ValueError for what this version cannot know."""
    metadata = content.schema.metadata or {}
    if metadata.get(TABLE_KEY) != table.encode() or VERSION_KEY not in metadata:
        raise ValueError("not written by vpbench")
    if int(metadata[VERSION_KEY]) > SCHEMA_VERSION:
        raise ValueError(f"schema {int(metadata[VERSION_KEY])} is newer than this vpbench knows ({SCHEMA_VERSION})")
    schema = SCHEMAS[table]
    columns = [
        content[field.name].cast(field.type)
        if field.name in content.schema.names
        else pa.nulls(len(content), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _remove_stale(folder: Path) -> None:
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()
        except FileNotFoundError:
            continue  # its writer finished, or another process tidied up first
