"""How rows of each task are read: what they are per, and which quality they have."""

from typing import TypedDict

from vpbench.rows.schema import Null, Result
from vpbench.rows.statistics import intervals


class _Shown(TypedDict, total=False):
    context: str
    setting: str
    gmacs: float | Null
    top1_lo: float | Null
    top1_hi: float | Null
    delta_pp_lo: float | Null
    delta_pp_hi: float | Null
    p_mid: float | Null
    p_holm: float | Null
    loss_bound_pp: float | Null
    no_loss: bool | Null
    ms_per_clip: float | Null
    ms_per_clip_lo: float | Null
    ms_per_clip_hi: float | Null
    speedup_lo: float | Null
    speedup_hi: float | Null
    peak_mb: float | Null
    map50_lo: float | Null
    map50_hi: float | Null
    transformer_speedup_lo: float | Null
    transformer_speedup_hi: float | Null
    train_ms_lo: float | Null
    train_ms_hi: float | Null
    train_speedup_lo: float | Null
    train_speedup_hi: float | Null
    train_ms: float | Null
    vs_random_pp_lo: float | Null
    vs_random_pp_hi: float | Null
    vs_random_interpolated: bool | Null
    vs_random_p_mid: float | Null
    vs_random_p_holm: float | Null
    vs_random_gmacs: float | Null
    vs_random_speedup: float | Null
    vs_random_speedup_lo: float | Null
    vs_random_speedup_hi: float | Null
    reason: str | Null
    unit: str
    videos: int | Null  # fmt: skip


class Cell(Result, _Shown, total=False):
    """A row with what `render.tables.cells.build` makes of it, or that alone; `videos`: what its quality rests on."""


def detects(row: Result) -> bool:
    """Say whether a row of the results table is a detector's."""
    return bool(row["task"] == "detection")


def unit(row: Result) -> str:
    """Return what a row's numbers are per."""
    return "frame" if detects(row) else "clip"


def judged_unit(row: Result) -> str:
    """Return what a row's quality is counted over."""
    return "frame" if detects(row) else "video"


def map50_interval(row: Result) -> intervals.Interval | None:
    """Return mAP50 in percent with its 95 % interval over videos; None without trained weights."""
    if row["map50"] is None:
        return None
    return intervals.Interval(row["map50"], row["map50_ci_lo"], row["map50_ci_hi"])


def numbers(row: Result) -> Cell:
    """Return the columns that only detectors have, and those of training steps; empty ones for others."""
    precision = map50_interval(row)
    return {
        "map50": precision and precision.value,
        "map50_lo": precision and precision.lo,
        "map50_hi": precision and precision.hi,
        "map": row["map"],
        "map50_slow": row["map50_slow"],
        "map50_medium": row["map50_medium"],
        "map50_fast": row["map50_fast"],
        "transformer_speedup": row["transformer_speedup"],
        "transformer_speedup_lo": row["transformer_speedup_ci_lo"],
        "transformer_speedup_hi": row["transformer_speedup_ci_hi"],
        "gmacs_transformer": row["gmacs_transformer"],
        "train_ms": row["train_ms_p50"],
        "train_ms_lo": row["train_ms_ci_lo"],
        "train_ms_hi": row["train_ms_ci_hi"],
        "train_speedup": row["train_speedup"],
        "train_speedup_lo": row["train_speedup_ci_lo"],
        "train_speedup_hi": row["train_speedup_ci_hi"],
        "mem_train_mb": row["mem_train_mb"],
    }


def versus_random(row: Result) -> Cell:
    """Return the difference to the random control, which was found where the detections were at hand."""
    known = row["vs_random_pp"] is not None
    return {
        "vs_random_pp": row["vs_random_pp"],
        "vs_random_pp_lo": row["vs_random_ci_lo"],
        "vs_random_pp_hi": row["vs_random_ci_hi"],
        "vs_random_interpolated": False if known else None,
    }


#: what quality can be, and what its axis is called
QUALITIES = {"top1": "top-1 accuracy, %", "map50": "mAP50, %", "agree": "agreement with dense, %"}
