"""What tables and figures show of detectors, which are measured frame by frame: precision in place of top-1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vpbench.statistics import stats

Row = dict[str, Any]
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


def map50_interval(row: Mapping[str, Any]) -> stats.Interval | None:
    """Return mAP50 in percent with its 95 % interval over videos; None without trained weights."""
    if row["map50"] is None:
        return None
    return stats.Interval(row["map50"], row["map50_ci_lo"], row["map50_ci_hi"])


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


def by_speed(row: Row, split: str) -> str:
    """Write precision of slow, medium and fast objects, where tracks tell them apart."""
    found = [row[f"map50_{name}"] for name in SPEEDS]
    if all(value is None for value in found):
        return ""
    return " / ".join("-" if value is None else f"{value:.1f}" for value in found)


def test_lines(rows: Sequence[Row]) -> list[str]:
    """Say how precision and its intervals are to be read."""
    known = next((row for row in rows if row["map50"] is not None), None)
    times = (
        "ms/frame and speed-up: from pixels to boxes, over windows of frames with their dense ones; transformer: "
        "without pyramid and head"
    )
    if known is None:
        return ["mAP50 unknown (no objects or no trained weights)", times]
    lines = [
        f"mAP50: {known['map_definition']}",
        "intervals are 95 %: precision and its paired differences bootstrap over videos, times bootstrap over rounds",
        times,
    ]
    if any(row["map50_slow"] is not None for row in rows):
        lines.append(
            "slow / medium / fast: mAP50 of objects by their overlap with themselves 10 frames around (over 0.9, "
            "between, under 0.7)"
        )
    return lines
