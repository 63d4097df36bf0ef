"""What two results folders have to agree on, whoever measured them: everything but times, runs and machines' states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from vpbench.rows.store import Store

#: columns that tell of a run or of a time
OWN = {
    "run_id", "command", "timestamp_utc", "decode_ms", "preprocess_ms", "setup_s", "load_before", "load_after",
}  # fmt: skip
KEYS = {
    "results": ["config_id"],
    "videos": ["prediction_id", "video_id"],
    "clips": ["prediction_id", "clip_id"],
    "detections": ["prediction_id", "video_id", "frame", "score", "x1"],
    "fates": ["prediction_id", "clip_id", "stage"],
}


def alike(one: Path, other: Path, exact: bool = True) -> None:
    """Check that two folders hold the same rows, column by column.

    To the last bit, or else as far as float32 goes: sums depend on how many clips went together, which follows the time
    that they took, in one process too.
    """
    compared = 0
    how: dict[str, Any] = {"check_exact": True} if exact else {"rtol": 1e-3, "atol": 1e-6}
    for table, keys in KEYS.items():
        first, second = (_sorted(folder, table, keys) for folder in (one, other))
        assert list(first) == list(second)
        assert len(first) == len(second), table
        for column in first.columns.difference(list(OWN)):
            floats = pd.api.types.is_float_dtype(first[column].dtype)
            own = how if floats else {"check_exact": True}
            pd.testing.assert_series_equal(first[column], second[column], obj=f"{table}.{column}", **own)
            compared += len(first)
    assert compared, "nothing was compared"


def _sorted(folder: Path, table: str, keys: list[str]) -> pd.DataFrame:
    store = Store(folder, writable=False)
    found = store.read(table)
    assert not store.problems
    if table != "detections":
        assert not found.duplicated(keys).any(), table
    return found.sort_values(keys, kind="stable").reset_index(drop=True)
