"""What a report holds of each context, from rows alone: sentences, chart, tables, pictures, failures, provenance."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vpbench.render.analyses.part import Found
from vpbench.render.report import analyses, charts, claims, evidence, pictures
from vpbench.render.report.pictures import Picture
from vpbench.render.tables import cells as tables_cells
from vpbench.render.tables import columns as tables_columns
from vpbench.render.tables import decoding
from vpbench.render.tables import metrics as tables_metrics
from vpbench.render.tables import notes as tables_notes
from vpbench.render.tables.layout import Grid, Layout
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED, contexts, judged, plain, records, setup
from vpbench.rows.fates import Shown
from vpbench.rows.kinds import Cell
from vpbench.rows.schema import Result, Row
from vpbench.rows.statistics import metrics

#: with more settings than this in a context, resampling all of them takes minutes: `vpbench table --metrics` does it
MOST_RESAMPLED = 500
_LAYOUT = Layout.of("markdown")
_VERDICT = "what is shown"
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


@dataclass(frozen=True)
class Stored:
    """The tables of a results folder: `results` one row per cell as `store.latest` gives, not empty; the others whole.

    `clips` needs no more than `config_id`, `video_id` and `macs`; `shown` are the clips whose tokens were kept;
    `analysed`: what analyses come to.
    """

    results: pd.DataFrame
    videos: pd.DataFrame
    samples: pd.DataFrame
    clips: pd.DataFrame
    shown: Sequence[Shown]
    analysed: Sequence[Found] = ()


@dataclass(frozen=True)
class Section:
    """One context: rows that may be compared with each other.

    `chart`, `summary`, `table` and `metrics` (None where there are none) are what the page's script draws, as plain
    JSON; `summary` has a line per method.
    `reading`: the way from files to the model; `notes`, `metric_notes`: how to read tables. `failures`: name, status
    and reason of each cell that is not ok; `unread`: videos or frames that could not be read, and why. `provenance`:
    names and their values. `answers`: analyses, as their tables are drawn; `unanswered`: why others are not there.
    """

    title: str
    setup: str
    methods: set[str]
    settings: int
    claims: claims.Claims
    chart: dict[str, Any]
    summary: dict[str, Any]
    table: dict[str, Any]
    reading: list[str]
    notes: list[str]
    metrics: dict[str, Any] | None
    metric_notes: list[str]
    answers: list[tuple[analyses.Answer, dict[str, Any]]]
    unanswered: list[str]
    pictures: list[Picture]
    failures: list[tuple[str, str, str]]
    unread: list[tuple[str, str]]
    provenance: list[tuple[str, list[str]]]


def sections(stored: Stored) -> list[Section]:
    """Return a section for every context."""
    built = tables_cells.build(stored.results, stored.videos)
    found = []
    for label, group in contexts(stored.results):
        rows = sorted(records(group), key=tables_cells.order)
        found.append(_section(label, group, rows, plain(built[built["context"] == label]), stored))
    charts.give_looks([section.chart for section in found])
    return found


def _title(row: Result, label: str, others: pd.DataFrame) -> str:
    """Name a context by backbone and dataset; where others share both, by all that sets it apart."""
    same = others[(others["backbone"] == row["backbone"]) & (others["dataset"] == row["dataset"])]
    return label if len(contexts(same)) > 1 else f"{row['backbone']} on {row['dataset']}"


def _section(label: str, group: pd.DataFrame, rows: list[Result], shown: list[Cell], stored: Stored) -> Section:
    videos = _videos(rows, stored.clips)
    columns = zip(rows, shown, videos, strict=True)
    cells: list[Cell] = [{**row, **added, "videos": count} for row, added, count in columns]
    judged = evidence.judge(cells)
    named = claims.names(cells)
    said = claims.of(cells, judged)
    pareto, pareto_notes = _metrics(group, stored)
    answers, unanswered = analyses.of(rows, label, stored.analysed, _LAYOUT.split)
    reading = decoding.lines(rows)
    notes = tables_notes.lines(rows, shown, stored.videos, "dense")
    return Section(
        title=_title(cells[0], label, stored.results),
        setup=setup(cells[0]),
        methods={cell["method"] for cell in cells},
        settings=len(cells),
        claims=said,
        chart=charts.chart(cells, named),
        summary=_summary(said),
        table=_settings(cells, {e.cell["config_id"]: claims.verdict(e) for e in judged}),
        reading=reading,
        notes=[line for line in notes if line not in reading],
        metrics=pareto,
        metric_notes=pareto_notes,
        answers=[(answer, _listing(answer.grid)) for answer in answers],
        unanswered=unanswered,
        pictures=pictures.of(cells, named, stored.shown),
        failures=[
            (named[cell["config_id"]], cell["status"], cell["error"] or "no reason recorded")
            for cell in cells
            if cell["status"] != "ok"
        ],
        unread=_unread(cells),
        provenance=_provenance(cells),
    )


def _videos(rows: Sequence[Result], clips: pd.DataFrame) -> list[int | None]:
    """Return how many videos the quality of each row rests on; rows of detectors count frames, so it is looked up."""
    if not kinds.detects(rows[0]):
        return [judged(row) for row in rows]
    own = clips[clips["config_id"].isin([row["config_id"] for row in rows])]
    counts = own.groupby("config_id")["video_id"].nunique()
    return [int(counts[row["config_id"]]) if row["config_id"] in counts.index else None for row in rows]


def _unread(rows: Sequence[Result]) -> list[tuple[str, str]]:
    """Return what any row could not read, and why, once."""
    listed = dict.fromkeys(row["failures"] for row in rows if row["failures"] is not None)
    found = {(each["video"], each["reason"]) for text in listed for each in json.loads(text)}
    return sorted(found)


def _settings(cells: Sequence[Cell], verdicts: dict[str, str]) -> dict[str, Any]:
    """Return the columns of `vpbench table`, and what is shown of each cell."""
    grid = tables_columns.columns(cells, _LAYOUT, "dense")
    columns = {**grid.columns, _VERDICT: [verdicts.get(cell["config_id"], "") for cell in cells]}
    listed = _listing(Grid(columns, {*grid.text, _VERDICT}, grid.groups))
    return listed | {"measured": [cell["status"] in MEASURED for cell in cells]}


def _summary(said: claims.Claims) -> dict[str, Any]:
    """Return a line per method."""
    columns = dict(zip(claims.SUMMARY, zip(*said.summary, strict=True), strict=True)) if said.summary else {}
    return _listing(Grid(columns, frozenset({claims.SUMMARY[0], claims.SUMMARY[-1]}), []))


def _metrics(group: pd.DataFrame, stored: Stored) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the Pareto metrics of a context and how to read them; None and the reason where there are none."""
    if len(group) > MOST_RESAMPLED:
        return None, [f"More than {MOST_RESAMPLED} settings: `vpbench table --metrics` gives the Pareto metrics."]
    found = metrics.of(group, stored.videos, stored.samples, stored.clips)
    if not any(metric.value is not None for each in found for metric in each.values.values()):
        return None, tables_metrics.notes(found) if found else []
    return _listing(tables_metrics.grid(found, _LAYOUT)), tables_metrics.notes(found)


def _listing(grid: Grid) -> dict[str, Any]:
    """Return a table as the page's script draws it: columns, texts by row, and what each text is sorted by."""
    rows = [list(texts) for texts in zip(*grid.columns.values(), strict=True)]
    numbers = [name not in grid.text for name in grid.columns]
    titles = [name.replace("-\n", "").replace("\n", " ") for name in grid.columns]
    return {
        "columns": [{"title": title, "number": number} for title, number in zip(titles, numbers, strict=True)],
        "rows": rows,
        "keys": [[_key(text, number) for text, number in zip(row, numbers, strict=True)] for row in rows],
        "measured": [True] * len(rows),
    }


def _key(text: str, number: bool) -> str | float | None:
    """Return what a text is sorted by: the number that it begins with, or its words; None for nothing."""
    if not number:
        return text or None
    found = _NUMBER.match(text)
    return float(found.group()) if found else None


#: where the rows of a context come from: the name of what is listed, and the columns of the results table that it joins
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


def _provenance(rows: Sequence[Result]) -> list[tuple[str, list[str]]]:
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


def _libraries(rows: Iterable[Result]) -> list[str]:
    versions = [json.loads(text) for text in dict.fromkeys(row["lib_versions"] for row in rows)]
    return _few([", ".join(f"{name} {version}" for name, version in each.items()) for each in versions if each])


def _few(values: list[str]) -> list[str]:
    return values if len(values) <= _LISTED else [*values[:_LISTED], f"and {len(values) - _LISTED} more"]
