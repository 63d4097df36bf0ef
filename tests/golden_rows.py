"""Made-up but plausible rows: dense, random, rlt and sta on 300 clips, the same numbers every time."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from vpbench.rows.schema import PREDICTED, SCHEMAS
from vpbench.rows.statistics import paired

Row = dict[str, Any]
VIDEOS = 300
KEEPS = (0.2, 0.4, 0.6, 0.8, 1.0)
# top-1 at each keep; dense has 88 %
CURVES = {"random": (61, 76, 83, 86.5, 88), "rlt": (72, 84, 87, 88, 88), "sta": (55, 78, 86, 87.6, 88)}
DENSE_GMACS = 1.9


def identity(method: str = "dense", keep: float | None = None, **changes: Any) -> Row:
    """Return the required columns, as a failed cell has them."""
    return {
        "run_id": "r1",
        "config_id": f"{method}-{keep}",
        "prediction_id": f"{method}-{keep}",
        "schema_version": 1,
        "timestamp_utc": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "status": "failed",
        "profile": "ci",
        "command": "vpbench sweep",
        "method": method,
        "method_version": "0",
        "method_params": json.dumps({} if keep is None else {"keep": keep} if method == "random" else {"knob": keep}),
        "keep_nominal": keep,
        "training_free": True,
        "weights_kind": "embedded",
        "weights_sha256": "ab" * 32,
        "seed": 0,
        "reference": method if method in ("dense", "random") else "method",
        "backbone": "videomae_embedded",
        "backbone_params_m": 2.9,
        "dataset": "synthmotion",
        "split": "test",
        "n_clips": 0,
        "n_expected": VIDEOS,
        "n_failed": 0,
        "views": 1,
        "frames": 16,
        "stride": 2,
        "resolution": 64,
        "clip_list_sha256": "cd" * 32,
        "decoder": "pyav",
        "device": "cpu",
        "device_name": "Intel Xeon Processor @ 2.70GHz",
        "n_threads": 2,
        "dtype": "fp32",
        "matmul_precision": "highest",
        "attn_impl": "sdpa",
        "exec_mode": "eager",
        "batching": "single",
        "batch_size": 1,
        "scenario": "latency",
        "torch_version": "2.13.0",
        "lib_versions": "{}",
        "tokens_dense": 512,
        **changes,
    }


def correctness(method: str, keep: float | None) -> np.ndarray:
    """Return which clips a cell gets right: dense's answers with a few flips, so that pairs are correlated."""
    rng = np.random.default_rng(0)
    dense = np.arange(VIDEOS) < 0.88 * VIDEOS
    if keep is None or keep == 1:
        return dense
    losses = round((88 - CURVES[method][KEEPS.index(keep)]) / 100 * VIDEOS) + 3
    rng = np.random.default_rng(round(1000 * keep) + len(method))
    right = dense.copy()
    right[rng.choice(np.flatnonzero(dense), losses, replace=False)] = False
    right[rng.choice(np.flatnonzero(~dense), 3, replace=False)] = True
    return right


def measured(method: str = "dense", keep: float | None = None, **changes: Any) -> Row:
    """Return the row of a cell that went well."""
    share = keep or 1.0
    realised = share * (0.997 if method == "rlt" and share < 1 else 1.09 if method == "sta" and share < 1 else 1)
    ratio = realised * (0.75 + 0.25 * realised)
    rng = np.random.default_rng(round(100 * share) + len(method))
    wall = 38 * (ratio * 0.95 + 0.05 + (0.05 if method == "sta" else 0)) * rng.uniform(0.98, 1.02)
    pair = paired.paired_difference(correctness("dense", None), correctness(method, keep), np.arange(VIDEOS))
    return identity(method, keep) | {
        "status": "ok",
        "n_clips": VIDEOS,
        "tokens_kept_mean": 512 * realised,
        "tokens_kept_p5": 512 * realised,
        "tokens_kept_p95": 512 * realised,
        "keep_realised": realised,
        "gmacs_effective": DENSE_GMACS * ratio,
        "gmacs_executed": DENSE_GMACS * ratio,
        "gmacs_dense": DENSE_GMACS,
        "wall_ms_p50": wall,
        "wall_ms_ci_lo": wall * 0.98,
        "wall_ms_ci_hi": wall * 1.03,
        "speedup": 38 / wall,
        "speedup_ci_lo": 37 / wall,
        "speedup_ci_hi": 39 / wall,
        "aa_ratio": 1.002,
        "aa_ci_lo": 0.995,
        "aa_ci_hi": 1.009,
        "mem_peak_rss_mb": 14 + 26 * realised * rng.uniform(0.98, 1.02),
        "top1": 100 * float(correctness(method, keep).mean()),
        "top5": 97.0,
        "delta_pp": pair.delta_pp.value,
        "delta_ci_lo": pair.delta_pp.lo,
        "delta_ci_hi": pair.delta_pp.hi,
        "disc_b": pair.b,
        "disc_c": pair.c,
        "mcnemar_p": pair.p_mid,
        "agree": 1 - (pair.b + pair.c) / VIDEOS,
        "kl": 0.1,
        "logit_rel_l2": 0.1,
        "noisy": False,
        **changes,
    }


def clip_rows(method: str = "dense", keep: float | None = None) -> list[Row]:
    """Return the clips table of one cell."""
    return [
        {
            "run_id": "r1",
            "prediction_id": f"{method}-{keep}",
            "clip_id": f"v{i:03d}-0",
            "video_id": f"v{i:03d}",
            "view": 0,
            "label": 1,
            "pred": int(right),
            "top5": [1, 2, 3, 4, 5],
            "correct": bool(right),
            "tokens_in": 512,
            "tokens_layer": [512, 512],
            "macs": 10**9,
            "kl": 0.0,
            "logit_rel_l2": 0.0,
            "agree": True,
        }
        for i, right in enumerate(correctness(method, keep))
    ]


def video_rows(method: str = "dense", keep: float | None = None) -> list[Row]:
    """Return the videos table of one cell, whose videos have one view each."""
    names = ("run_id", "prediction_id", "video_id", "label", "pred", "top5", "correct", "kl", "agree")
    return [{"views": 1} | {name: row[name] for name in names} for row in clip_rows(method, keep)]


def sweep() -> list[Row]:
    """Return the rows of a whole sweep."""
    return [measured(), *(measured(method, keep) for method in CURVES for keep in KEEPS)]


def sweep_videos() -> list[Row]:
    """Return the videos of a whole sweep."""
    cells = [("dense", None), *((method, keep) for method in CURVES for keep in KEEPS)]
    return [row for method, keep in cells for row in video_rows(method, keep)]


def frame(rows: list[Row], table: str = "results") -> pd.DataFrame:
    """Return rows as `Store.read` does, or `Store.predictions`: there `config_id` is `prediction_id` unless given."""
    arrow = pa.Table.from_pylist(rows, schema=SCHEMAS[table])
    if table in PREDICTED:
        ids = [row.get("config_id", row["prediction_id"]) for row in rows]
        arrow = arrow.add_column(0, "config_id", pa.array(ids, pa.string()))
    found: pd.DataFrame = arrow.to_pandas(types_mapper=pd.ArrowDtype)
    return found
