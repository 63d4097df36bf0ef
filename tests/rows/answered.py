"""Rows whose answers are given, video by video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from golden_rows import Row, frame, measured

from vpbench.rows.contexts import records
from vpbench.rows.schema import Result


def cell(method: str = "dense", keep: float | None = None, **changes: Any) -> Row:
    """Return a row that keeps as many tokens as it was asked to."""
    tokens = 512 * (keep or 1.0)
    return measured() | {
        "method": method,
        "config_id": f"{method}-{keep}",
        "prediction_id": f"{method}-{keep}",
        "keep_nominal": keep,
        "keep_realised": keep or 1.0,
        "tokens_kept_mean": tokens,
        **changes,
    }


def results(*cells: Row) -> list[Result]:
    return records(frame(list(cells)))


def videos(answers: Mapping[str, Any], **columns: Sequence[Any]) -> pd.DataFrame:
    """Return rows of the videos table: who was right where, by config_id, with columns that all share."""
    rows = [
        {"run_id": "r", "prediction_id": name, "video_id": f"v{i:03d}", "correct": bool(right), "agree": bool(right)}
        | {column: values[i] for column, values in columns.items()}
        for name, own in answers.items()
        for i, right in enumerate(own)
    ]
    return frame(rows, "videos")
