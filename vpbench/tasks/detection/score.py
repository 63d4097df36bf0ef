"""Columns of quality of a cell on a dataset of boxes, from its stored frames and detections."""

import json
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from vpbench.plan import Setting
from vpbench.rows.schema import Row
from vpbench.rows.statistics import intervals
from vpbench.rows.store import Store
from vpbench.tasks.cost import cost, outcome, readable
from vpbench.tasks.detection import motion, stored
from vpbench.tasks.detection.boxes import Truth
from vpbench.tasks.detection.precision import DEFINITION, NO_OBJECTS, evaluate
from vpbench.tasks.detection.resampled import map50_difference_pp, map50_interval
from vpbench.tasks.detection.session import annotated
from vpbench.tasks.detection.stored import TABLE
from vpbench.tasks.task import Stored


def score(setting: Setting, own: Stored, dense: Stored, control: Stored | None) -> Row:
    """Return what follows from the predictions of one cell, of dense and of the method's random control."""
    frames = own["clips"]
    spent = frames["decode_ms"].dropna().astype(float)
    return {
        **outcome(frames, "clip_id", "frames"),
        **_operations(frames, dense["clips"]),
        **quality(setting, own, dense, control),
        "decode_ms": float(spent.median()) if len(spent) else None,
    }


def _operations(frames: pd.DataFrame, dense: pd.DataFrame) -> Row:
    """Columns of tokens and operations per frame."""
    read = readable(frames)
    extra = {
        "gmacs_transformer": float(read["transformer_macs"].to_numpy(dtype=np.float64).mean() / 1e9),
        "gmacs_rgtp": float(read["rgtp_macs"].to_numpy(dtype=np.float64).mean() / 1e9),
    }
    return cost(frames, dense) | extra


def quality(setting: Setting, own: Stored, dense: Stored, control: Stored | None) -> Row:
    """Columns of precision, against dense and the random control; none with random weights.

    Precision is over the frames that could be read, differences over those that could be read for both. Raises
    UsageError where detections are missing.
    """
    dataset, videos = annotated(setting)
    truth = Truth.of((segment for each in videos.values() for segment in each), len(dataset.classes))
    found = _read(own, truth)
    if setting.weights == "random":
        return {"problems": _json(found.problems)}
    row = _precision(truth.only(found.read), found)
    if own.prediction_id != dense.prediction_id:
        row |= _difference("delta", truth, _read(dense, truth), found)
    if control is not None:
        row |= _difference("vs_random", truth, _read(control, truth), found)
    return row


def _read(of: Stored, truth: Truth) -> stored.Read:
    return stored.read(Store(of.folder, writable=False).read_arrow(TABLE, only={of.prediction_id}), truth)


def _triple(name: str, found: intervals.Interval) -> Row:
    return {name: found.value, f"{name}_ci_lo": found.lo, f"{name}_ci_hi": found.hi}


def _precision(truth: Truth, own: stored.Read) -> Row:
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


def _difference(name: str, truth: Truth, reference: stored.Read, own: stored.Read) -> Row:
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
