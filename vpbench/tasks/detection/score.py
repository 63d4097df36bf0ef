"""Turn what was found and measured on a dataset of boxes into rows of the `results` table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vpbench.measure.rounds import Timed
from vpbench.rows.schema import Row
from vpbench.rows.statistics import intervals
from vpbench.tasks import columns, task
from vpbench.tasks import cost as tasks_cost
from vpbench.tasks.attach import Attached
from vpbench.tasks.detection import motion, stored
from vpbench.tasks.detection.boxes import Truth
from vpbench.tasks.detection.precision import DEFINITION, NO_OBJECTS, evaluate
from vpbench.tasks.detection.resampled import map50_difference_pp, map50_interval
from vpbench.tasks.detection.session import DetectionSession, digest
from vpbench.tasks.detection.stored import Stored
from vpbench.tasks.detection.walk import TRANSFORMER


def seen(session: DetectionSession) -> task.Seen:
    """Say what cells that find objects see."""
    return task.Seen(
        "detection",
        session.frames,
        digest(session.videos),
        None,
        1,
        session.dataset.decoder,
        session.config.frames,
        session.config.stride,
        session.config.side,
        session.config.tokens,
        sum(p.numel() for p in session.model.parameters()),
    )


def cost(frames: pd.DataFrame, dense: pd.DataFrame) -> Row:
    """Columns of tokens and operations per frame. frames, dense: rows of the clips table of this cell and of dense."""
    read = frames[frames["error"].isna()]
    extra = {
        "gmacs_transformer": float(read["transformer_macs"].to_numpy(dtype=np.float64).mean() / 1e9),
        "gmacs_rgtp": float(read["rgtp_macs"].to_numpy(dtype=np.float64).mean() / 1e9),
    }
    return tasks_cost.cost(frames, dense) | extra


def time(timed: Timed, config_id: str, dense_id: str) -> Row:
    """Columns of time per frame, whole and without pyramid and head."""
    wall, dense = (timed.wall_ns(f"{name}{TRANSFORMER}") for name in (config_id, dense_id))
    process = np.zeros(len(wall), dtype=int)
    middle = intervals.median_interval(wall / 1e6 / timed.clips_per_call, process)
    faster = intervals.speedup(dense, wall, process)
    return columns.time(timed, config_id, dense_id) | {
        **_triple("transformer_ms", middle, "_p50"),
        **_triple("transformer_speedup", faster),
    }


def _triple(name: str, found: intervals.Interval, value: str = "") -> Row:
    return {f"{name}{value}": found.value, f"{name}_ci_lo": found.lo, f"{name}_ci_hi": found.hi}


def samples(run_id: str, timed: Timed, dense_id: str) -> Mapping[str, Sequence[Row]]:
    """Raw samples by configuration; those without pyramid and head have a scope of their own."""
    found = dict(columns.samples(run_id, timed, dense_id))
    for name in (name for name in found if name.endswith(TRANSFORMER)):
        own = {"config_id": name.removesuffix(TRANSFORMER), "scope": "transformer"}
        found[name] = [row | own for row in found[name]]
    return found


def quality(session: DetectionSession, ready: Attached, dense_id: str, control: str | None, folder: Path) -> Row:
    """Columns of precision, against dense and the random control (its id, or None); none with random weights.

    Precision is over the frames that could be read, differences over those that could be read for both. Raises
    UsageError where detections are missing or damaged.
    """
    config_id, truth = ready.cell.config_id, session.truth
    own = stored.read(folder, config_id, truth)
    if session.setting.weights == "random":
        return {"problems": _json(own.problems)}
    row = _precision(truth.only(own.read), own)
    if config_id != dense_id:
        row |= _difference("delta", truth, stored.read(folder, dense_id, truth), own)
    if control is not None:
        row |= _difference("vs_random", truth, stored.read(folder, control, truth), own)
    return row


def _precision(truth: Truth, own: Stored) -> Row:
    found = own.found.only(own.read)
    scores = evaluate(truth, found)
    row: Row = {"map_definition": DEFINITION, "problems": _json(Counter(own.problems) + Counter(scores.problems))}
    if not len(truth.frame):
        return row
    row |= _triple("map50", _percent(map50_interval(truth, found)))
    row |= {"map50": _known(scores.map50), "map": _known(scores.map)}
    if (truth.track >= 0).any():
        row |= {f"map50_{name}": _known(value) for name, value in motion.map50_by_speed(truth, found).items()}
    return row


def _difference(name: str, truth: Truth, reference: Stored, own: Stored) -> Row:
    both = reference.read & own.read
    shared = truth.only(both)
    if not len(shared.frame):
        return {}
    found = map50_difference_pp(shared, reference.found.only(both), own.found.only(both))
    return {f"{name}_pp": found.value, f"{name}_ci_lo": found.lo, f"{name}_ci_hi": found.hi}


def _known(share: float) -> float | None:
    return None if share == NO_OBJECTS else 100 * share


def _percent(found: intervals.Interval) -> intervals.Interval:
    return intervals.Interval(100 * found.value, 100 * found.lo, 100 * found.hi)


def _json(problems: Mapping[str, int]) -> str | None:
    return json.dumps(dict(problems)) if problems else None
