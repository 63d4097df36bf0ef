"""Tables for people: what each cell kept, cost and got right, with intervals, beside dense and random."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from vpbench.errors import NothingMeasured
from vpbench.render.tables import columns
from vpbench.render.tables import metrics as tables_metrics
from vpbench.render.tables import notes as tables_notes
from vpbench.render.tables.layout import Layout
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED, contexts, peak_mb, plain, records, top1_interval
from vpbench.rows.kinds import Cell
from vpbench.rows.names import Names
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls, losses, metrics, paired
from vpbench.rows.statistics.rounds import StoredRounds

Against = Literal["dense", "random"]


@dataclass(frozen=True)
class Only:
    """What of a table is shown: `methods` (none: all; dense is always there) and `columns` by their names in CSV."""

    methods: frozenset[str] = frozenset()
    columns: Sequence[str] = ()

    def shows(self, method: str) -> bool:
        """Say whether lines of a method are shown."""
        return not self.methods or method == "dense" or method in self.methods

    def of_frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return these rows and columns of `build`, intervals with what they are of; raises UsageError for others."""
        rows = frame[frame["method"].map(self.shows)]
        if not self.columns:
            return rows
        for name in self.columns:
            columns.headers(name)
        ends = [f"{name}{end}" for name in self.columns for end in ("", "_lo", "_hi")]
        return rows[["context", "method", "setting", *(name for name in ends if name in frame.columns)]]


#: every row and column
ALL = Only()


def build(results: pd.DataFrame, videos: pd.DataFrame, samples: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return one row per cell: numbers in the units of the results table, `*_lo` and `*_hi` 95 % intervals.

    `p_mid` is McNemar's mid-p against dense, `p_holm` the same corrected over the settings of a context, or over its
    controls; `loss_bound_pp`: the largest loss against dense that is not ruled out, for all these at once; `no_loss`:
    it lies below `losses.EPSILON_PP`.
    `vs_random_pp` compares top-1 with random dropping at the same token count, or, where `vs_random_interpolated`,
    with the random curve at the same GMACs; on detectors it compares `map50`, which they have in place of top-1. With
    a control of the same count come `vs_random_p_mid` and `vs_random_p_holm`, `vs_random_gmacs` (the row's GMACs over
    the control's) and, where `samples` has the rounds of both, `vs_random_speedup`. Rows are sorted by method (dense,
    random, others), then by keep.
    """
    found: list[Cell] = []
    for label, group in contexts(results):
        found += _context(label, sorted(records(group), key=order), videos, samples)
    return pd.DataFrame(found)


def _context(label: str, rows: Sequence[Result], videos: pd.DataFrame, samples: pd.DataFrame | None) -> Iterator[Cell]:
    dense = [row["config_id"] for row in rows if row["method"] == "dense"]
    rounds = None if samples is None else StoredRounds(samples, dense)
    measured = [row if row["status"] in MEASURED else None for row in rows]
    against = controls.beside_random(measured, videos, rounds)
    p_dense = _corrected([mid_p(row) for row in rows], rows)
    p_random = _corrected([random["vs_random_p_mid"] for random in against], rows)
    bounds = losses.bounds_pp(rows)
    names, several_seeds = Names(rows), len({row["seed"] for row in rows}) > 1
    by_id = {row["config_id"]: row for row in rows}
    for row, random, by_dense, by_random, bound in zip(rows, against, p_dense, p_random, bounds, strict=True):
        if kinds.detects(row):
            random = random | kinds.versus_random(row)
        shown = _identity(row, by_id, names, label, several_seeds) | _numbers(row)
        shown |= {"p_mid": mid_p(row), "p_holm": by_dense} | _loss(row, bound)
        yield shown | random | {"vs_random_p_holm": by_random} | _state(row)


def order(row: Result) -> tuple[Any, ...]:
    """Return what rows of a table are sorted by: dense, random, others by name; then by keep."""

    def last(value: float | None) -> float:
        return math.inf if value is None else value

    method: str = row["method"]
    rank = {"dense": 0, "random": 1}.get(method, 2)
    return rank, method, row["matched_to"] or "", last(row["keep_nominal"]), last(row["keep_realised"]), row["seed"]


def mid_p(row: Result) -> float | None:
    """Return McNemar's mid-p of a row against dense; None for dense itself and where top-1 is unknown."""
    if row["method"] == "dense" or row["disc_b"] is None or row["disc_c"] is None:
        return None
    return paired.mcnemar(row["disc_b"], row["disc_c"])[1]


def _loss(row: Result, bound: float | None) -> Cell:
    """Say what a row loses at most; rows of detectors do not say how many videos there are, so nothing is said."""
    bound = None if row["disc_b"] is None or row["disc_c"] is None else bound
    return {"loss_bound_pp": bound, "no_loss": None if bound is None else bound < losses.EPSILON_PP}


def _corrected(p_values: Sequence[float | None], rows: Sequence[Result]) -> list[float | None]:
    """Correct p-values after Holm, over settings and over controls, in place; None stays None."""
    found: list[float | None] = [None] * len(rows)
    for kind in (False, True):
        own = {i: p for i, p in enumerate(p_values) if p is not None and controls.is_control(rows[i]) is kind}
        for i, p in zip(own, paired.holm(list(own.values())), strict=True):
            found[i] = p
    return found


def _identity(row: Result, by_id: Mapping[str, Result], names: Names, label: str, several_seeds: bool) -> Cell:
    if row["matched_to"] is None:
        setting = names.setting(row)
    else:
        target = by_id.get(row["matched_to"])
        name = f"{target['method']} {names.setting(target)}" if target else row["matched_to"]
        setting = f"as {name}".rstrip()
    seed = f"seed={row['seed']}" if several_seeds else ""
    return {
        "context": label,
        "method": row["method"],
        "setting": f"{setting} {seed}".strip(),
        "keep_nominal": row["keep_nominal"],
        "keep_realised": row["keep_realised"],
    }


def _numbers(row: Result) -> Cell:
    top1 = top1_interval(row)
    compared = row["method"] != "dense"  # dense against itself says nothing
    delta = (row["delta_pp"], row["delta_ci_lo"], row["delta_ci_hi"]) if compared else (None, None, None)
    return {
        **_triple("top1", (top1.value, top1.lo, top1.hi) if top1 else (None, None, None)),
        **_triple("delta_pp", delta),
        "gmacs": row["gmacs_executed"],
        **_triple("ms_per_clip", (row["wall_ms_p50"], row["wall_ms_ci_lo"], row["wall_ms_ci_hi"])),
        **_triple("speedup", (row["speedup"], row["speedup_ci_lo"], row["speedup_ci_hi"])),
        "peak_mb": peak_mb(row),
        "agree": row["agree"],
        **kinds.numbers(row),
    }


def _triple(name: str, values: tuple[float | None, float | None, float | None]) -> Any:
    return dict(zip((name, f"{name}_lo", f"{name}_hi"), values, strict=True))


def _state(row: Result) -> Cell:
    state: Cell = {"n_clips": row["n_clips"], "noisy": row["noisy"], "status": row["status"], "reason": row["error"]}
    return state | {"caveat": row["caveat"], "unit": kinds.unit(row)}


def report(
    results: pd.DataFrame,
    videos: pd.DataFrame,
    fmt: str = "console",
    samples: pd.DataFrame | None = None,
    against: Against = "dense",
    width: float | None = None,
    only: Only = ALL,
) -> str:
    """Return all tables with their footers (`csv`: one table of all numbers, no footer).

    `against`: what differences, p-values and speed-ups of the columns are to; speed-ups over random need `samples`.
    `width`: of the console or of LaTeX, if columns are to be chosen by it. Statistics are those of all rows, whichever
    are shown: to leave some out makes no claim easier.
    Raises NothingMeasured without results, UsageError for an unknown format or column.
    """
    layout = Layout.of(fmt, width)
    if results.empty:
        raise NothingMeasured("no results to show; run or sweep first")
    frame = build(results, videos, samples)
    if fmt == "csv":
        return only.of_frame(frame).to_csv(index=False)
    parts = []
    for label, group in contexts(results):
        whole, rows = plain(frame[frame["context"] == label]), sorted(records(group), key=order)
        if own := [row for row in whole if only.shows(row["method"])]:
            notes = tables_notes.lines(rows, whole, videos, against, only.methods)
            parts.append(layout.page(label, columns.columns(own, layout, against, only.columns), notes))
    return layout.document(parts)


def metrics_report(
    results: pd.DataFrame,
    videos: pd.DataFrame,
    samples: pd.DataFrame,
    clips: pd.DataFrame | None = None,
    fmt: str = "console",
    width: float | None = None,
    only: Only = ALL,
) -> str:
    """Return the Pareto metrics of all methods, a table per context (`csv`: one, with a line per metric).

    The first arguments are those of `rows.statistics.metrics.of`, the last those of `report`. Raises NothingMeasured
    where no method was measured, UsageError for an unknown format.
    """
    layout = Layout.of(fmt, width, "vpbench table --metrics")
    found = metrics.of(results, videos, samples, clips)
    if not found:
        raise NothingMeasured("no Pareto metrics: nothing but dense was measured")
    found = [each for each in found if only.shows(each.method)]
    if fmt == "csv":
        return tables_metrics.frame(found).to_csv(index=False)
    return layout.document(tables_metrics.pages(found, layout))
