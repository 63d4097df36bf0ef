"""Where the rows of a context come from: command, machine, commit, versions, weights, data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from vpbench.rows.schema import Row

#: what is listed: its name, and the columns of the results table that it joins
_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("command", ("command",)),
    ("machine", ("device_name",)),
    ("device, threads", ("device", "n_threads")),
    ("precision, execution", ("dtype", "matmul_precision", "exec_mode", "attn_impl")),
    ("scenario, batch", ("scenario", "batch_size", "batching")),
    ("profile", ("profile",)),
    ("rounds, processes", ("n_rounds", "n_process")),
    ("commit", ("git_commit",)),
    ("torch, CUDA, driver", ("torch_version", "cuda_version", "driver")),
    ("backbone, million parameters", ("backbone", "backbone_params_m")),
    ("weights, SHA-256", ("weights_kind", "weights_sha256")),
    ("dataset, split", ("dataset", "split")),
    ("clip list, SHA-256", ("clip_list_sha256",)),
    ("protocol, views", ("protocol", "views")),
    ("frames, stride, pixels", ("frames", "stride", "resolution")),
    ("decoder, workers", ("decoder", "workers")),
    ("seeds", ("seed",)),
    ("schema", ("schema_version",)),
    ("runs", ("run_id",)),
)
#: of more different values than this the others are counted, not listed
_LISTED = 12


def of(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Return names and their different values, in the order of the rows; what no row knows is left out."""
    first, last = min(row["timestamp_utc"] for row in rows), max(row["timestamp_utc"] for row in rows)
    measured = [f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"]
    found = [("measured", measured), *((name, _values(rows, columns)) for name, columns in _COLUMNS)]
    return [(name, values) for name, values in [*found, ("libraries", _libraries(rows))] if values]


def _values(rows: Iterable[Row], columns: Sequence[str]) -> list[str]:
    joined = dict.fromkeys(", ".join(_said(row[name]) for name in columns if row[name] is not None) for row in rows)
    return _few([value for value in joined if value])


def _said(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _libraries(rows: Iterable[Row]) -> list[str]:
    versions = [json.loads(text) for text in dict.fromkeys(row["lib_versions"] for row in rows)]
    return _few([", ".join(f"{name} {version}" for name, version in each.items()) for each in versions if each])


def _few(values: list[str]) -> list[str]:
    return values if len(values) <= _LISTED else [*values[:_LISTED], f"and {len(values) - _LISTED} more"]
