"""Columns of what could be read, of tokens and of operations of a cell, from its stored clips or frames."""

import json
from contextlib import AbstractContextManager

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from vpbench.api import Pruner
from vpbench.measure.watch.sites import standing_in
from vpbench.rows.schema import Result

#: a run with a larger share of unreadable videos is incomplete
FAILED_SHARE = 0.01


def foreseeing(pruner: Pruner) -> AbstractContextManager[None]:
    """Let a method that runs blocks say what they would take instead, while nothing but counts is looked at."""
    stands = {"run_block": lambda own, *given: pruner.foreseen(*given)} if pruner.acts_at("run_block") else {}
    return standing_in(pruner, stands)


def outcome(seen: pd.DataFrame, name: str, unit: str) -> Result:
    """Columns of what could be read: rows of `seen`, called `unit`, named by its column `name`."""
    broken = seen[seen["error"].notna()]
    failures = [{"video": v, "reason": e} for v, e in zip(broken[name], broken["error"], strict=True)]
    few = len(broken) <= FAILED_SHARE * len(seen)
    return {
        "status": "ok" if few else "incomplete",
        "error": None if few else f"{len(broken)} of {len(seen)} {unit} unreadable",
        "n_clips": len(seen) - len(broken),
        "n_failed": len(broken),
        "failures": json.dumps(failures) if failures else None,
    }


def cost(clips: pd.DataFrame, dense: pd.DataFrame) -> Result:
    """Columns of tokens and operations, from rows of the clips table of a cell and of dense that could be read."""
    return _tokens(readable(clips), readable(dense)) | _cost(readable(clips), readable(dense))


def readable(clips: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of what could be read."""
    return clips[clips["error"].isna()]


def _tokens(clips: pd.DataFrame, dense: pd.DataFrame) -> Result:
    per_clip = _layers(clips).mean(axis=1)
    # a pyramid's layers have different tokens even when it is dense
    whole = _layers(dense).mean()
    low, high = np.quantile(per_clip, (0.05, 0.95))
    return {
        "tokens_kept_mean": float(per_clip.mean()),
        "tokens_kept_p5": float(low),
        "tokens_kept_p95": float(high),
        "keep_realised": float(per_clip.mean() / whole),
    }


def _layers(clips: pd.DataFrame) -> np.ndarray:
    """Return the tokens of each clip in each layer, `[clips, layers]`; there may be too many for Python's lists."""
    column = pa.array(clips["tokens_layer"], pa.list_(pa.int32()))
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(pc.unique(pc.list_value_length(column))) > 1:
        raise ValueError("clips of one network have token counts of as many layers")
    return column.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(column), -1)


def _cost(clips: pd.DataFrame, dense: pd.DataFrame) -> Result:
    macs = clips["macs"].to_numpy(dtype=np.float64)
    effective = float((macs - clips["padding_macs"].to_numpy(dtype=np.float64)).mean())
    return {
        "gmacs_effective": effective / 1e9,
        "gmacs_executed": float(macs.mean() / 1e9),
        "gmacs_p95": float(np.quantile(macs, 0.95) / 1e9),
        "gflops_executed": float(2 * macs.mean() / 1e9),
        "gmacs_dense": float(dense["macs"].to_numpy(dtype=np.float64).mean() / 1e9),
        "pad_waste": float(macs.mean()) / effective - 1,
    }
