"""How rows of each task are read: what they are per, and which quality they have."""

from collections.abc import Mapping
from typing import Any

from vpbench.rows.schema import Row
from vpbench.rows.statistics import intervals

SPEEDS = ("slow", "medium", "fast")


def detects(row: Mapping[str, Any]) -> bool:
    """Say whether a row of the results table is a detector's."""
    return bool(row["task"] == "detection")


def unit(row: Mapping[str, Any]) -> str:
    """Return what a row's numbers are per."""
    return "frame" if detects(row) else "clip"


def judged_unit(row: Mapping[str, Any]) -> str:
    """Return what a row's quality is counted over."""
    return "frame" if detects(row) else "video"


def map50_interval(row: Mapping[str, Any]) -> intervals.Interval | None:
    """Return mAP50 in percent with its 95 % interval over videos; None without trained weights."""
    if row["map50"] is None:
        return None
    return intervals.Interval(row["map50"], row["map50_ci_lo"], row["map50_ci_hi"])


def numbers(row: Row) -> Row:
    """Return the columns that only detectors have; empty ones for others."""
    precision = map50_interval(row)
    speeds = [row[f"map50_{name}"] for name in SPEEDS]
    return {
        "map50": precision and precision.value,
        "map50_lo": precision and precision.lo,
        "map50_hi": precision and precision.hi,
        "map": row["map"],
        **{f"map50_{name}": value for name, value in zip(SPEEDS, speeds, strict=True)},
        "transformer_speedup": row["transformer_speedup"],
        "transformer_speedup_lo": row["transformer_speedup_ci_lo"],
        "transformer_speedup_hi": row["transformer_speedup_ci_hi"],
        "gmacs_transformer": row["gmacs_transformer"],
    }


def versus_random(row: Row) -> Row:
    """Return the difference to the random control, which was found where the detections were at hand."""
    known = row["vs_random_pp"] is not None
    return {
        "vs_random_pp": row["vs_random_pp"],
        "vs_random_pp_lo": row["vs_random_ci_lo"],
        "vs_random_pp_hi": row["vs_random_ci_hi"],
        "vs_random_interpolated": False if known else None,
    }


#: what quality can be, and what its axis is called
QUALITIES = {
    "top1": "top-1 accuracy, %",
    "map50": "mAP50, %",
    "agree": "agreement with dense, %",
}
