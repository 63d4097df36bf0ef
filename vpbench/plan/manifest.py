"""What a group of cells was frozen to before any of it ran: written into the results folder, whole or not at all.

Whoever works on the group takes parameters and facts from here, so that nobody derives another threshold, and rows can
be derived again from what was stored without loading a network.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vpbench.errors import VpbenchError
from vpbench.plan.cell import Cell, Setting
from vpbench.storage import make_folder, write_whole

FOLDER = "plans"
#: shards that items are cut into at most, and steps (videos, or frames of detectors) of each at least
SHARDS, LEAST = 1024, 8


@dataclass(frozen=True)
class Frozen:
    """One cell of a group: its parameters, or why it cannot run."""

    #: of the run that froze it
    run_id: str
    config_id: str
    prediction_id: str
    method: str
    given: Mapping[str, Any]
    keep: float | None
    match: str | None
    copies: str | None
    label: str
    #: of the method's code
    version: str
    training_free: bool
    reference: str
    parameters: Mapping[str, Any] | None = None
    caveat: str | None = None
    #: seconds that its network took, and setting the parameters and attaching
    setup_s: float | None = None
    status: str = "ok"
    error: str | None = None


@dataclass(frozen=True)
class Run:
    """What holds for cells that were frozen together."""

    command: str
    machine: Mapping[str, Any]
    #: whether the machine was unfit for timing from the start
    noisy: bool


@dataclass(frozen=True)
class Manifest:
    """A group of cells, dense first: what they share, and what was known when they were frozen, for their rows."""

    run_id: str
    runs: Mapping[str, Run]
    setting: Mapping[str, Any]
    #: the fields of `tasks.task.Seen`
    seen: Mapping[str, Any]
    weights_kind: str
    weights: str | None
    #: what attention runs on `equal` and on `ragged` batches
    kernels: Mapping[str, str]
    cells: tuple[Frozen, ...]
    #: cells that are timed side by side, besides dense; None before any was
    block: int | None = None
    #: the key of the weights in a file with several
    weights_key: str | None = None
    #: what is predicted, in pieces that one worker does undivided: by item the videos or frames that it is worth
    shards: tuple[Mapping[str, int], ...] = ()

    @property
    def dense(self) -> Frozen:
        """The cell that all are compared with."""
        return self.cells[0]

    def shared(self) -> Setting:
        """Return the setting of all cells."""
        return Setting(**self.setting)

    def cell(self, config_id: str) -> Frozen:
        """Return a cell by its id."""
        return next(cell for cell in self.cells if cell.config_id == config_id)

    def control(self, cell: Frozen) -> Frozen | None:
        """Return the random control that came along with a cell whose tokens are no plain stream."""
        wanted = (f"{cell.method}_random", cell.given, cell.keep)
        return next((each for each in self.cells if (each.method, each.given, each.keep) == wanted), None)

    def write(self, out: Path) -> None:
        """Write it whole or not at all; raises VpbenchError where the disk is full or refuses."""
        target = out / FOLDER / f"{self.dense.config_id}.json"
        try:
            make_folder(target.parent)
            write_whole(target, json.dumps(asdict(self), indent=1).encode())
        except OSError as error:
            raise VpbenchError(
                f"{target}: cannot write ({error.strerror or error}); free some space and run it again"
            ) from error


def read(out: Path, dense_id: str) -> Manifest | None:
    """Return the manifest of a group, None where there is none; raises VpbenchError for one that is damaged."""
    path = out / FOLDER / f"{dense_id}.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        runs = {run_id: Run(**run) for run_id, run in found["runs"].items()}
        own = {"runs": runs, "cells": tuple(Frozen(**cell) for cell in found["cells"])}
        return Manifest(**found | own | {"shards": tuple(found.get("shards", ()))})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise VpbenchError(f"{path}: damaged ({error}); delete it and run the same command again") from error


def every(out: Path) -> list[Manifest]:
    """Return all manifests of a results folder."""
    names = sorted(path.stem for path in (out / FOLDER).glob("*.json"))
    return [manifest for name in names if (manifest := read(out, name)) is not None]


def frozen(run_id: str, cell: Cell, version: str, training_free: bool, reference: str, **found: Any) -> Frozen:
    """Return a cell as it is written down; `found`: what attaching it told."""
    return Frozen(
        run_id,
        cell.config_id,
        cell.prediction_id,
        cell.method,
        dict(cell.params),
        cell.keep,
        cell.match,
        cell.copies,
        cell.label,
        version,
        training_free,
        reference,
        **found,
    )


def merged(known: Manifest | None, own: Manifest) -> Manifest:
    """Return a group's manifest with the cells that were frozen before; their parameters stay as they were."""
    if known is None:
        return own
    mine: Sequence[str] = [cell.config_id for cell in own.cells]
    rest = tuple(cell for cell in known.cells if cell.config_id not in mine)
    cells, runs = (*own.cells, *rest), {**known.runs, **own.runs}
    return replace(own, runs=runs, cells=cells, block=known.block, shards=known.shards or own.shards)


def cut(steps: Mapping[str, int]) -> tuple[Mapping[str, int], ...]:
    """Cut items into shards of about equal steps, in order."""
    enough, shards, filled = max(LEAST, sum(steps.values()) / SHARDS), list[dict[str, int]](), 0
    for item, own in steps.items():
        if not shards or filled >= enough:
            shards, filled = [*shards, {}], 0
        shards[-1][item] = own
        filled += own
    return tuple(shards)
