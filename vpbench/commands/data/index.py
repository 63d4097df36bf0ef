"""The frame index: what opening each video told, kept so that files which have not changed need no second look."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from vpbench.commands.data.probe import Probe
from vpbench.errors import UsageError
from vpbench.rows.store import replace_file

NAME = "index.parquet"
#: changes when the columns do, or what they mean
VERSION = b"1"
_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}


def _column(name: str, kind: Any) -> pa.Field:
    own, *optional = get_args(kind) or (kind,)
    return pa.field(name, _TYPES[own], nullable=bool(optional))


SCHEMA = pa.schema(
    [_column(name, kind) for name, kind in get_type_hints(Probe).items()], {b"vpbench_frame_index": VERSION}
)
Key = tuple[str, str, str]


class Index:
    """Probes by file, part and decoder; they hold as long as the file keeps its size and its time."""

    def __init__(self, probes: Iterable[Probe] = ()) -> None:
        self._probes: dict[Key, Probe] = {}
        self.add(probes)

    def __len__(self) -> int:
        return len(self._probes)

    def add(self, probes: Iterable[Probe]) -> None:
        """Put probes in, in place of older ones of the same file, part and decoder."""
        for probe in probes:
            self._probes[probe.path, probe.part, probe.decoder] = probe

    def find(self, path: Path, part: str, decoder: str, size: int, mtime_ns: int) -> Probe | None:
        """Return what is known of a file as it is now."""
        probe = self._probes.get((str(path), part, decoder))
        return probe if probe is not None and (probe.size, probe.mtime_ns) == (size, mtime_ns) else None

    def write(self, path: Path) -> None:
        """Replace the file as a whole; raises VpbenchError where the disk is full or refuses."""
        rows = [dataclasses.asdict(probe) for probe in self._probes.values()]
        replace_file(pa.Table.from_pylist(rows, schema=SCHEMA), path)

    @staticmethod
    def read(path: Path) -> "Index":
        """Read a file that `write` wrote; raises UsageError for any other."""
        try:
            content = pq.read_table(pa.BufferReader(path.read_bytes()))
        except FileNotFoundError as error:
            raise UsageError(f"{path}: no such index; `vpbench data prepare index` makes one") from error
        except (OSError, pa.ArrowException) as error:
            raise UsageError(f"{path}: not a frame index ({_first_line(error)}); {_ADVICE}") from error
        if content.schema.metadata != SCHEMA.metadata or not content.schema.equals(SCHEMA):
            raise UsageError(f"{path}: no frame index of this version of vpbench; {_ADVICE}")
        return Index(Probe(**row) for row in content.to_pylist())


_ADVICE = "delete it and make it again with `vpbench data prepare index`"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
