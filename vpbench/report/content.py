"""What a report holds of each context, from rows alone: sentences, points and fronts, the table, notes, provenance."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vpbench import stats, table, table_frames, table_notes, table_text, versus
from vpbench.context import MEASURED, Row, contexts, peak_mb, records, setup
from vpbench.figures import points
from vpbench.report import claims, evidence
from vpbench.table_layout import Layout

#: columns of provenance: what they are called, and which columns of the results table they join
_PROVENANCE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("command", ("command",)),
    ("machine", ("device_name",)),
    ("device, threads", ("device", "n_threads")),
    ("precision, execution", ("dtype", "matmul_precision", "exec_mode", "attn_impl")),
    ("batch, scenario", ("batch_size", "batching", "scenario")),
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
_UNKNOWN = "no reason recorded"
_VERDICT = "what is shown"
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
#: more different values than this are counted, not listed
_LISTED = 12


@dataclass(frozen=True)
class Cost:
    """A cost axis: its key and name, where it is, where its interval is, and whether a noisy machine spoils it."""

    key: str
    name: str
    value: Callable[[Row], float | None]
    interval: tuple[str, str] | None = None
    timed: bool = False
    more_is_better: bool = False


def costs(unit: str) -> tuple[Cost, ...]:
    """Return the cost axes of rows that are per clip or per frame."""
    return (
        Cost("gmacs", f"GMACs per {unit}, as executed", lambda row: row["gmacs_executed"]),
        Cost("ms", f"ms per {unit}, median", lambda row: row["wall_ms_p50"], ("wall_ms_ci_lo", "wall_ms_ci_hi"), True),
        Cost("rate", f"{unit}s per second", lambda row: row["clips_per_s"], None, True, more_is_better=True),
        Cost("memory", "peak memory, MB", peak_mb),
    )


@dataclass(frozen=True)
class Section:
    """One context: rows that may be compared with each other.

    `chart` and `table` are what the page's script draws, as plain JSON; everything else is text. `cells`: the rows of
    the results table beside what `vpbench.table.build` says of them, in the order of the table.
    """

    title: str
    setup: str
    cells: list[dict[str, Any]]
    claims: claims.Claims
    chart: dict[str, Any]
    table: dict[str, Any]
    notes: list[str]
    failures: list[tuple[str, str, str]]
    provenance: list[tuple[str, list[str]]]


def sections(results: pd.DataFrame, videos: pd.DataFrame) -> list[Section]:
    """Return a section for every context of `results`, which must not be empty."""
    built = table.build(results, videos)
    found = [
        _section(label, sorted(records(group), key=table.order), records(built[built["context"] == label]), videos)
        for label, group in contexts(results)
    ]
    _give_looks([curve for section in found for curve in section.chart["curves"]])
    return found


def _give_looks(curves: Sequence[dict[str, Any]]) -> None:
    """Number what curves look like: the same name has the same look in every section."""
    names = sorted({curve["name"] for curve in curves if curve["kind"] == "method"})
    for curve in curves:
        curve["look"] = names.index(curve["name"]) if curve["kind"] == "method" else None


def _section(label: str, rows: list[Row], shown: list[Row], videos: pd.DataFrame) -> Section:
    cells = [row | added for row, added in zip(rows, shown, strict=True)]
    judged = evidence.judge(cells)
    named = claims.names(cells)
    verdicts = {e.cell["config_id"]: claims.verdict(e) for e in judged}
    return Section(
        label or f"{cells[0]['backbone']} on {cells[0]['dataset']}",
        setup(cells[0]),
        cells,
        claims.of(cells, judged),
        _chart(cells, named),
        _listing(cells, verdicts),
        table_notes.lines(rows, shown, videos, "dense", table.EPSILON_PP),
        [(named[c["config_id"]], c["status"], c["error"] or _UNKNOWN) for c in cells if c["status"] != "ok"],
        _provenance(cells),
    )


def _chart(cells: Sequence[Row], named: Mapping[str, str]) -> dict[str, Any]:
    """Return axes, curves, points and fronts; `row` of a point counts the lines of the table."""
    number = {cell["config_id"]: i for i, cell in enumerate(cells)}
    good = [cell for cell in cells if cell["status"] in MEASURED and cell["gmacs_executed"] is not None]
    qualities = [key for key in points.QUALITIES if any(points.point(cell, key) is not None for cell in good)]
    axes = [cost for cost in costs(table_frames.unit(cells[0])) if any(cost.value(cell) is not None for cell in good)]
    curves = points.curves(good)
    dense = [cell for cell in good if cell["method"] == "dense"]
    groups = {"dense": dense, **curves} if dense else curves
    curve_of = {cell["config_id"]: i for i, members in enumerate(groups.values()) for cell in members}
    ordered = [cell for members in groups.values() for cell in members]
    return {
        "qualities": [{"key": key, "name": points.QUALITIES[key]} for key in qualities],
        "costs": [{"key": c.key, "name": c.name, "timed": c.timed} for c in axes],
        "curves": [{"name": name, "kind": _kind(members[0])} for name, members in groups.items()],
        "points": [
            {
                "row": number[cell["config_id"]],
                "curve": curve_of[cell["config_id"]],
                "name": named[cell["config_id"]],
                "noisy": bool(cell["noisy"]),
                "x": {cost.key: _costed(cell, cost) for cost in axes},
                "y": {key: _quality(cell, key) for key in qualities},
            }
            for cell in ordered
        ],
        "fronts": {f"{key}/{cost.key}": _front(ordered, key, cost) for key in qualities for cost in axes},
    }


def _kind(row: Row) -> str:
    return "dense" if row["method"] == "dense" else "random" if versus.is_random(row) else "method"


def _costed(row: Row, cost: Cost) -> list[float | None] | None:
    """Return value and interval; None where there is no value, or none that a logarithmic axis can show."""
    value = cost.value(row)
    if value is None or value <= 0:
        return None
    ends = [None, None] if cost.interval is None else [row[name] for name in cost.interval]
    return [value, *ends]


def _quality(row: Row, key: str) -> list[float] | None:
    found = points.point(row, key)
    return None if found is None else [found.y, found.lo, found.hi]


def _front(rows: Sequence[Row], key: str, cost: Cost) -> list[int]:
    """Return the points on the front by ascending cost; what has a caveat takes no place there."""
    known = [
        (i, x[0], y[0])
        for i, row in enumerate(rows)
        if not row["caveat"] and (x := _costed(row, cost)) and (y := _quality(row, key)) and x[0] is not None
    ]
    sign = -1 if cost.more_is_better else 1
    return [known[i][0] for i in stats.front([sign * x for _, x, _ in known], [y for _, _, y in known])]


def _listing(cells: Sequence[Row], verdicts: Mapping[str, str]) -> dict[str, Any]:
    """Return the columns of `vpbench table` and what is shown of each cell: texts, and what they are sorted by."""
    grid = table_text.columns(cells, Layout.of("markdown"), "dense")
    columns = {**grid.columns, _VERDICT: [verdicts.get(cell["config_id"], "") for cell in cells]}
    words = {*grid.text, _VERDICT}
    rows = [list(texts) for texts in zip(*columns.values(), strict=True)]
    return {
        "columns": [{"title": name.replace("\n", " "), "number": name not in words} for name in columns],
        "rows": rows,
        "keys": [[_key(text, name not in words) for text, name in zip(row, columns, strict=True)] for row in rows],
        "measured": [cell["status"] in MEASURED for cell in cells],
    }


def _key(text: str, number: bool) -> str | float | None:
    """Return what a text of a table is sorted by: the number it begins with, or its words; None for nothing."""
    if not number:
        return text or None
    found = _NUMBER.match(text)
    return float(found.group()) if found else None


def _provenance(cells: Sequence[Row]) -> list[tuple[str, list[str]]]:
    first, last = min(cell["timestamp_utc"] for cell in cells), max(cell["timestamp_utc"] for cell in cells)
    measured = [f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"]
    joined = [(title, _values(cells, columns)) for title, columns in _PROVENANCE]
    found = [("measured", measured), *joined, ("libraries", _libraries(cells))]
    return [(title, values) for title, values in found if values]


def _values(cells: Iterable[Row], columns: Sequence[str]) -> list[str]:
    found = dict.fromkeys(", ".join(_said(cell[name]) for name in columns if cell[name] is not None) for cell in cells)
    known = [value for value in found if value]
    return known if len(known) <= _LISTED else [*known[:_LISTED], f"and {len(known) - _LISTED} more"]


def _said(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _libraries(cells: Iterable[Row]) -> list[str]:
    found = dict.fromkeys(cell["lib_versions"] for cell in cells)
    listed = [", ".join(f"{name} {version}" for name, version in json.loads(text).items()) for text in found]
    return [text for text in listed if text]
