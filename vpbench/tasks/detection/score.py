"""Columns of quality of a cell on a dataset of boxes, from its stored frames and detections."""

import json
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd

from vpbench.plan import Setting
from vpbench.rows.schema import Result
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


def score(setting: Setting, own: Stored, dense: Stored, control: Stored | None) -> Result:
    """Return what follows from the predictions of one cell, of dense and of the method's random control."""
    frames = own["clips"]
    spent = frames["decode_ms"].dropna().astype(float)
    return {
        **outcome(frames, "clip_id", "frames"),
        **_operations(frames, dense["clips"]),
        **quality(setting, own, dense, control),
        "decode_ms": float(spent.median()) if len(spent) else None,
    }


def _operations(frames: pd.DataFrame, dense: pd.DataFrame) -> Result:
    """Columns of tokens and operations per frame."""
    read = readable(frames)
    extra: Result = {
        "gmacs_transformer": float(read["transformer_macs"].to_numpy(dtype=np.float64).mean() / 1e9),
        "gmacs_rgtp": float(read["rgtp_macs"].to_numpy(dtype=np.float64).mean() / 1e9),
    }
    return cost(frames, dense) | extra


def quality(setting: Setting, own: Stored, dense: Stored, control: Stored | None) -> Result:
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
    delta = None if own.prediction_id == dense.prediction_id else _difference(truth, _read(dense, truth), found)
    if delta is not None:
        row |= {"delta_pp": delta.value, "delta_ci_lo": delta.lo, "delta_ci_hi": delta.hi}
    beside = None if control is None else _difference(truth, _read(control, truth), found)
    if beside is not None:
        row |= {"vs_random_pp": beside.value, "vs_random_ci_lo": beside.lo, "vs_random_ci_hi": beside.hi}
    return row


def _read(of: Stored, truth: Truth) -> stored.Read:
    return stored.read(Store(of.folder, writable=False).read_arrow(TABLE, only={of.prediction_id}), truth)


def _precision(truth: Truth, own: stored.Read) -> Result:
    found = own.found.only(own.read)
    scores = evaluate(truth, found)
    row: Result = {"map_definition": DEFINITION, "problems": _json(Counter(own.problems) + Counter(scores.problems))}
    if not len(truth.frame):
        return row
    share = map50_interval(truth, found)
    row |= {"map50_ci_lo": 100 * share.lo, "map50_ci_hi": 100 * share.hi}
    row |= {"map50": _known(scores.map50), "map": _known(scores.map)}
    if (truth.track >= 0).any():
        slow, medium, fast = (_known(value) for value in motion.map50_by_speed(truth, found).values())
        row |= {"map50_slow": slow, "map50_medium": medium, "map50_fast": fast}
    return row


def _difference(truth: Truth, reference: stored.Read, own: stored.Read) -> intervals.Interval | None:
    both = reference.read & own.read
    shared = truth.only(both)
    if not len(shared.frame):
        return None
    return map50_difference_pp(shared, reference.found.only(both), own.found.only(both))


def _known(share: float) -> float | None:
    return None if share == NO_OBJECTS else 100 * share


def _json(problems: Mapping[str, int]) -> str | None:
    return json.dumps(dict(problems)) if problems else None
