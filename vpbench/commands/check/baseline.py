"""The baseline: a JSON file with a line per clip, so that a change of one clip is a change of one line."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import vpbench
from vpbench.commands.check.facts import Facts, Stored
from vpbench.errors import NothingMeasured, UsageError, VpbenchError
from vpbench.storage import make_folder, write_whole

#: the one that comes with the package
COMMITTED = vpbench.PACKAGE / "commands" / "check" / "baseline.json"
_SCHEMA = 1
#: levels of the file that have a line per entry: sections, cells, their fields, their clips
_LEVELS = 4


@dataclass(frozen=True)
class Baseline:
    """What a file holds.

    `written`: versions and CPU it was made with, to explain differences; `inputs`: digests by backbone; `cells`: by
    `backbone/method`.
    """

    written: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    cells: Mapping[str, Stored] = field(default_factory=dict)


def read(path: Path) -> Baseline:
    """Read a baseline; raises NothingMeasured where there is none, UsageError for a file that is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != _SCHEMA:
            raise UsageError(f"{path}: schema {content['schema']} is not {_SCHEMA}; write it anew with --update")
        cells = {name: _cell(cell) for name, cell in content["cells"].items()}
        return Baseline(content["written"], content["inputs"], cells)
    except FileNotFoundError as error:
        raise NothingMeasured(f"{path}: no baseline to compare with; write one with --update") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name another baseline with --baseline") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a baseline ({type(error).__name__}: {error}); restore the file") from error


def write(path: Path, baseline: Baseline) -> None:
    """Write a baseline whole or not at all; raises VpbenchError where that cannot be."""
    cells = {name: asdict(cell) for name, cell in sorted(baseline.cells.items())}
    content = {"schema": _SCHEMA, "written": baseline.written, "inputs": baseline.inputs, "cells": cells}
    try:
        make_folder(path.parent)
        write_whole(path, (_lines(content, 0) + "\n").encode())
    except OSError as error:
        raise VpbenchError(f"{path}: cannot write ({error.strerror}); name another file with --baseline") from error


def _lines(value: Any, level: int) -> str:
    if not isinstance(value, Mapping) or level == _LEVELS or not value:
        return json.dumps(value)
    inner = ",\n".join(" " * (level + 1) + f"{json.dumps(k)}: {_lines(v, level + 1)}" for k, v in value.items())
    return "{\n" + inner + "\n" + " " * level + "}"


def _cell(stored: dict[str, Any]) -> Stored:
    clips = {
        name: Facts(
            tuple((int(a), int(m)) for a, m in clip["tokens"]),
            int(clip["macs"]),
            {str(site): str(kept) for site, kept in clip["sets"].items()},
            tuple(map(float, clip["values"])),
        )
        for name, clip in stored["clips"].items()
    }
    return Stored(**stored | {"clips": clips})
