"""What two results folders have to agree on, whoever measured them: everything but times, runs and machines' states."""

from __future__ import annotations

from pathlib import Path

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


def alike(one: Path, other: Path) -> None:
    """Check that two folders hold the same rows, column by column, to the last bit."""
    compared = 0
    for table, keys in KEYS.items():
        first, second = (_sorted(folder, table, keys) for folder in (one, other))
        assert list(first) == list(second)
        assert len(first) == len(second), table
        for column in first.columns.difference(list(OWN)):
            pd.testing.assert_series_equal(first[column], second[column], check_exact=True, obj=f"{table}.{column}")
            compared += len(first)
    assert compared, "nothing was compared"


def _sorted(folder: Path, table: str, keys: list[str]) -> pd.DataFrame:
    store = Store(folder, writable=False)
    found = store.read(table)
    assert not store.problems
    if table != "detections":
        assert not found.duplicated(keys).any(), table
    return found.sort_values(keys, kind="stable").reset_index(drop=True)
