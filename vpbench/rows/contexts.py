"""Which rows may be compared with each other, and what a single row says."""

from typing import Any

import pandas as pd

from vpbench.rows.schema import Result, Row
from vpbench.rows.statistics import intervals

MEASURED = ("ok", "incomplete")  # statuses of rows that hold numbers
# Rows with equal values here may be compared with each other; anything else is another table and another figure.
CONTEXT = (
    "backbone", "weights_kind", "weights_sha256", "dataset", "split", "clip_list_sha256", "protocol", "views", "frames",
    "stride", "resolution", "positions", "decoder", "device", "device_name", "n_threads", "dtype", "matmul_precision",
    "exec_mode", "batch_size", "scenario", "profile",
)  # fmt: skip
_SPEAKS_FOR_ITSELF = ("backbone", "dataset", "split", "device", "device_name", "dtype", "exec_mode", "scenario")


def contexts(results: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Split results into groups of comparable rows, each with a label of what sets it apart; empty for a single one."""
    if results.empty:
        return []
    groups = list(results.groupby(list(CONTEXT), dropna=False, sort=True))
    varying = [i for i, name in enumerate(CONTEXT) if results[name].nunique(dropna=False) > 1]
    found = []
    for _, group in groups:
        first: Row = records(group.iloc[:1])[0]
        named = [_named(CONTEXT[i], first[CONTEXT[i]]) for i in varying if first[CONTEXT[i]] is not None]
        found.append((" ".join(named), group.reset_index(drop=True)))
    return found


def _named(column: str, value: object) -> str:
    if column == "weights_kind" and finetuned(str(value)):
        return str(value)
    shown = str(value)[:8] if column.endswith("sha256") else str(value)
    return shown if column in _SPEAKS_FOR_ITSELF else f"{column.removesuffix('_sha256')}={shown}"


def records(results: pd.DataFrame) -> list[Result]:
    """Return rows of the results table as plain dicts, with None for null."""
    return plain(results)


def plain(table: pd.DataFrame) -> list[Any]:
    """Return rows of any table as plain dicts, with None for null; who calls says what they hold."""
    # column by column: to make Python objects of the whole table takes pandas three times as long
    found = [
        [None if missing else value for value, missing in zip(table[name].tolist(), table[name].isna(), strict=True)]
        for name in table.columns
    ]
    return [dict(zip(table.columns, row, strict=True)) for row in zip(*found, strict=True)]


def peak_mb(row: Result) -> float | None:
    """Return a row's peak memory in MB: allocated tensors on an accelerator, growth of resident memory on a CPU."""
    return row["mem_peak_rss_mb"] if row["mem_peak_alloc_mb"] is None else row["mem_peak_alloc_mb"]


def top1_interval(row: Result) -> intervals.Interval | None:
    """Return top-1 in percent with Wilson's 95 % interval over videos; None without labels or trained weights."""
    if row["top1"] is None or not judged(row):
        return None
    share = intervals.wilson(round(row["top1"] / 100 * judged(row)), judged(row))
    return intervals.Interval(row["top1"], 100 * share.lo, 100 * share.hi)


def judged(row: Result) -> int:
    """Return how many predictions a row's quality rests on: videos, each over all of its views; frames of detectors."""
    return row["n_clips"] if row["n_videos"] is None else row["n_videos"]


def finetuned(weights_kind: str) -> bool:
    """Whether weights were fine-tuned with a method (`train finetune`), and so are not off the shelf."""
    return weights_kind.startswith("fine-tuned with ")


def weights_said(weights_kind: str) -> str:
    """Say in words which weights a row is of."""
    return f"weights {weights_kind}" if finetuned(weights_kind) else f"{weights_kind} weights"


def setup(row: Result) -> str:
    """Name hardware, precision, threads, batch, backbone, weights and data of a context, from any of its rows."""
    threads = "" if row["n_threads"] is None else f", {row['n_threads']} thread{'s' * (row['n_threads'] != 1)}"
    weights = weights_said(row["weights_kind"]) + (f" ({row['weights_key']})" if row["weights_key"] else "")
    return (
        f"{row['device_name']} ({row['device']}{threads}), {row['dtype']}, {row['exec_mode']}, batch "
        f"{row['batch_size']}; {row['backbone']} with {weights} on {row['dataset']}/{row['split']}"
    )
