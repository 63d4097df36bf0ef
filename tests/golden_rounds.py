"""Samples that belong to golden rows: rounds of one block, whose median ratios are the rows' speed-ups."""

from __future__ import annotations

from typing import Any

import numpy as np

Row = dict[str, Any]
ROUNDS = 31
BLOCK = "b1"


def with_samples(rows: list[Row], dense: str = "dense-None", seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Return rows with the speed-ups of made-up rounds, and the samples table; one block, dense in it.

    Each row is as much faster as it executes fewer GMACs, give or take some percent in each round.
    """
    rng = np.random.default_rng(seed)
    base = np.round(38e6 * rng.lognormal(0, 0.05, ROUNDS))
    timed, samples = [], []
    for row in rows:
        share = row["gmacs_executed"] / row["gmacs_dense"]
        own = base if row["config_id"] == dense else np.round(base * share * rng.lognormal(0, 0.02, ROUNDS))
        timed.append(row | {"speedup": float(np.median(base / own)), "block": BLOCK})
        samples += rounds(row["config_id"], own, row["run_id"])
    return timed, samples


def rounds(
    config_id: str, wall_ns: np.ndarray, run_id: str = "r1", process: int = 0, block: str | None = BLOCK
) -> list[Row]:
    """Return the samples of one configuration in one block."""
    fixed: Row = {"run_id": run_id, "config_id": config_id, "block": block, "process": process, "scope": "model"}
    return [
        fixed | {"round": number, "order": 0, "wall_ns": int(wall), "clips": 1, "dropped": False}
        for number, wall in enumerate(wall_ns)
    ]
