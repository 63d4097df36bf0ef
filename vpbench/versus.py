"""A method beside random selection of as many tokens, and beside its own controls, video by video."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vpbench import naming, stats

Row = dict[str, Any]

#: a control is "at the same token count" up to this share
SAME_COUNT = 0.01
#: `<method>_random` and `<method>_uniform` select like `<method>`, without looking; for all others there is `random`
KINDS = ("random", "uniform")


def random(rows: Sequence[Row | None], videos: pd.DataFrame) -> list[Row]:
    """Compare top-1 with random selection: paired where a cell of equal token count exists, else by interpolation.

    Returns `vs_random_pp` with its 95 % interval and `vs_random_interpolated` for each row, empty for None.
    """
    measured = [row for row in rows if row is not None and row["top1"] is not None]
    return [_random(row, measured, videos) if row in measured else _answer() for row in rows]


def _answer(interval: stats.Interval | None = None, value: float | None = None) -> Row:
    if interval is not None:
        lo, hi = interval.lo, interval.hi
        return {"vs_random_pp": interval.value, "vs_random_pp_lo": lo, "vs_random_pp_hi": hi,
                "vs_random_interpolated": False}  # fmt: skip
    interpolated = None if value is None else True
    return {"vs_random_pp": value, "vs_random_pp_lo": None, "vs_random_pp_hi": None,
            "vs_random_interpolated": interpolated}  # fmt: skip


def _random(row: Row | None, measured: Sequence[Row], videos: pd.DataFrame) -> Row:
    if row is None or row["method"] == "dense" or is_random(row):
        return _answer()
    names = ("random", f"{row['method']}_random")
    controls = [r for r in measured if r["method"] in names]
    twin = _same_count(row, controls)
    paired = None if twin is None else _paired(twin, row, videos)
    if paired is not None:
        return _answer(paired)
    # random that drops nothing is dense
    curve = [*controls, *(r for r in measured if r["method"] == "dense")]
    expected = _interpolated(row["gmacs_executed"], curve)
    return _answer(value=None if expected is None else row["top1"] - expected)


def is_random(row: Row) -> bool:
    """Say whether a row is itself a random control."""
    method: str = row["method"]
    return method == "random" or method.endswith("_random")


def control_lines(rows: Sequence[Row], videos: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each row whose method has controls of its own: by how much it is better, if that is shown."""
    for row in rows:
        found = []
        for kind in KINDS:
            twin = _same_count(row, [r for r in rows if r["method"] == f"{row['method']}_{kind}"])
            paired = None if twin is None or row["top1"] is None else _paired(twin, row, videos)
            if paired is not None:
                verdict = "better" if paired.lo > 0 else "worse" if paired.hi < 0 else "not shown to be better"
                found.append(f"{verdict} than {kind} ({paired.value:+.1f} [{paired.lo:+.1f}, {paired.hi:+.1f}] pp)")
        if found:
            keep = "" if row["keep_nominal"] is None else f" keep={row['keep_nominal']:g}"
            yield f"{row['method']}{keep} {naming.setting(row, rows)} at the same count: {', '.join(found)}"


def _same_count(row: Row, controls: Iterable[Row]) -> Row | None:
    """Pick the control made for this row, else one of the same nominal keep; same parameters and seed go first."""
    candidates = [
        r
        for r in controls
        if r["matched_to"] == row["config_id"] or (r["matched_to"] is None and r["keep_nominal"] == row["keep_nominal"])
    ]
    close = [
        r
        for r in candidates
        if abs(r["tokens_kept_mean"] - row["tokens_kept_mean"]) <= SAME_COUNT * row["tokens_kept_mean"]
    ]
    own = naming.own_params(row)
    close.sort(
        key=lambda r: (
            r["matched_to"] != row["config_id"],
            naming.own_params(r) != own,
            r["seed"] != row["seed"],
            r["seed"],
        )
    )
    return close[0] if close else None


def _paired(control: Row, row: Row, videos: pd.DataFrame) -> stats.Interval | None:
    def correct(config_id: str) -> pd.DataFrame:
        own = videos[(videos["config_id"] == config_id) & videos["correct"].notna()]
        return own.drop_duplicates("video_id", keep="last").set_index("video_id")

    pair = (correct(control["config_id"]), correct(row["config_id"])[["correct"]])
    both = pair[0].merge(pair[1], left_index=True, right_index=True, suffixes=("", "_method"))
    if both.empty:
        return None
    blind, method = both["correct"].to_numpy(dtype=bool), both["correct_method"].to_numpy(dtype=bool)
    return stats.paired_difference(blind, method, both.index.to_numpy(dtype=str)).delta_pp


def _interpolated(gmacs: float, curve: Sequence[Row]) -> float | None:
    """Return top-1 of the random curve at a cost, linear in its logarithm; None outside the measured range."""
    by_cost: dict[float, list[float]] = {}
    for row in curve:
        by_cost.setdefault(row["gmacs_executed"], []).append(row["top1"])
    costs = sorted(by_cost)
    if len(costs) < 2 or not costs[0] <= gmacs <= costs[-1]:
        return None
    return float(np.interp(math.log(gmacs), np.log(costs), [float(np.mean(by_cost[c])) for c in costs]))
