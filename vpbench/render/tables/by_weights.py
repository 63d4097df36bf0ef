"""Tables of the same cells with several weights: what they get right off the shelf, and what fine-tuned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpbench.errors import NothingMeasured
from vpbench.render.tables.layout import Grid, Layout
from vpbench.rows.contexts import CONTEXT, MEASURED, finetuned, records, weights_said
from vpbench.rows.names import Names
from vpbench.rows.schema import Result
from vpbench.rows.statistics import weights
from vpbench.rows.statistics.intervals import Interval

#: what rows of other weights may differ in
_OF_WEIGHTS = ("weights_kind", "weights_sha256")
_SHARED = [name for name in CONTEXT if name not in _OF_WEIGHTS]
#: method, setting, nominal keep ratio
_Cell = tuple[str, str, float | None]


@dataclass(frozen=True)
class _Family:
    """Rows that differ in their weights alone: by kind of weights, off the shelf first, then by cell."""

    kinds: Sequence[str]
    cells: dict[_Cell, dict[str, list[Result]]]
    #: how many weights there are of each kind
    counts: dict[str, int]


def report(results: pd.DataFrame, videos: pd.DataFrame, fmt: str = "console", width: float | None = None) -> str:
    """Return a table for rows that differ in their weights alone (`csv`: one table of all numbers).

    Raises NothingMeasured where nothing was measured with several weights, UsageError for an unknown format.
    """
    layout = Layout.of(fmt, width, "vpbench table --by weights")
    known = results[results["status"].isin(MEASURED) & results["top1"].notna()]
    found = [_family(records(group)) for _, group in known.groupby(_SHARED, dropna=False)] if len(known) else []
    families = [each for each in found if len(each.kinds) > 1]
    if not families:
        raise NothingMeasured(
            "nothing was measured with several weights; run the same again with --weights FILE of a fine-tuning"
        )
    once = videos.drop_duplicates(["prediction_id", "video_id"])
    right = {str(key): each.set_index("video_id")["correct"] for key, each in once.groupby("prediction_id")}
    if fmt == "csv":
        return pd.concat([_frame(each, right) for each in families]).to_csv(index=False)
    return layout.document([layout.page("", _grid(each, right, layout), _notes(each)) for each in families])


def _family(rows: Sequence[Result]) -> _Family:
    names, by_id = Names(rows), {row["config_id"]: row for row in rows}
    cells: dict[_Cell, dict[str, list[Result]]] = {}
    for row in sorted(rows, key=lambda row: ({"dense": 0, "random": 1}.get(row["method"], 2), row["method"])):
        target = by_id.get(row["matched_to"] or "")
        setting = names.setting(row) if row["matched_to"] is None else _matched(target, names)
        cell = (row["method"], setting, row["keep_nominal"])
        cells.setdefault(cell, {}).setdefault(row["weights_kind"], []).append(row)
    kinds = sorted({row["weights_kind"] for row in rows}, key=lambda kind: (finetuned(kind), kind))
    counts = {kind: len({r["weights_sha256"] for r in rows if r["weights_kind"] == kind}) for kind in kinds}
    return _Family(kinds, cells, counts)


def _matched(target: Result | None, names: Names) -> str:
    return "as another cell" if target is None else f"as {target['method']} {names.setting(target)}".rstrip()


def _of(rows: Sequence[Result], right: dict[str, "pd.Series[bool]"], ids: Sequence[str]) -> NDArray[np.bool_]:
    """Return what each row's predictions of these videos are, `[runs, videos]`."""
    return np.stack([right[str(row["prediction_id"])].reindex(list(ids)).to_numpy(dtype=bool) for row in rows])


def _numbers(
    family: _Family, cell: dict[str, list[Result]], right: dict[str, "pd.Series[bool]"]
) -> dict[str, tuple[Interval, Interval | None]]:
    """Return of each kind of weights the top-1, and what it gains over the first kind, where a cell has both."""
    known = {kind: rows for kind, rows in cell.items() if all(str(row["prediction_id"]) in right for row in rows)}
    seen = [right[str(row["prediction_id"])].dropna().index for rows in known.values() for row in rows]
    ids = sorted(set.intersection(*(set(each) for each in seen))) if seen else []
    if not ids:
        return {}
    first = known.get(family.kinds[0])
    found: dict[str, tuple[Interval, Interval | None]] = {}
    for kind, rows in known.items():
        own = _of(rows, right, ids)
        compared = first is not None and kind != family.kinds[0]
        found[kind] = (weights.mean(own), weights.gain(_of(first or [], right, ids), own) if compared else None)
    return found


def _letter(family: _Family, kind: str) -> str:
    return chr(ord("A") + family.kinds.index(kind))


def _grid(family: _Family, right: dict[str, "pd.Series[bool]"], layout: Layout) -> Grid:
    columns: dict[str, list[str]] = {"method": [], "setting": [], "keep\nnominal": []}
    columns |= {f"{_letter(family, kind)}\ntop-1, %": [] for kind in family.kinds}
    columns |= {f"{_letter(family, kind)} - A\npp": [] for kind in family.kinds[1:]}
    for (method, setting, keep), cell in family.cells.items():
        columns["method"].append(method)
        columns["setting"].append(setting)
        columns["keep\nnominal"].append("" if keep is None else f"{keep:g}")
        numbers = _numbers(family, cell, right)
        for kind in family.kinds:
            top1, gain = numbers.get(kind, (None, None))
            columns[f"{_letter(family, kind)}\ntop-1, %"].append(_written(top1, ".1f", layout))
            if kind != family.kinds[0]:
                columns[f"{_letter(family, kind)} - A\npp"].append(_written(gain, "+.1f", layout))
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    return Grid(shown, frozenset({"method", "setting"}), [cell[0] for cell in family.cells])


def _written(interval: Interval | None, form: str, layout: Layout) -> str:
    if interval is None:
        return ""
    ends = f"[{interval.lo:{form}}, {interval.hi:{form}}]"
    return f"{interval.value:{form}}{layout.split}{ends}"


def _notes(family: _Family) -> list[str]:
    said = []
    for kind in family.kinds:
        runs = family.counts[kind]
        said.append(f"{_letter(family, kind)}: {weights_said(kind)}" + (f", mean of {runs} runs" if runs > 1 else ""))
    first = next(iter(next(iter(family.cells.values())).values()))[0]
    said.append(f"{first['backbone']} on {first['dataset']}/{first['split']}; the same videos with all weights")
    said.append(
        "intervals: 95 %, of resampled videos and, where there are several, resampled runs; differences are paired"
    )
    return said


def _frame(family: _Family, right: dict[str, "pd.Series[bool]"]) -> pd.DataFrame:
    rows = []
    for (method, setting, keep), cell in family.cells.items():
        for kind, (top1, gain) in _numbers(family, cell, right).items():
            row: dict[str, Any] = {"method": method, "setting": setting, "keep_nominal": keep, "weights": kind}
            row |= {"runs": len(cell[kind]), "top1": top1.value, "top1_lo": top1.lo, "top1_hi": top1.hi}
            more = {} if gain is None else {"gain_pp": gain.value, "gain_pp_lo": gain.lo, "gain_pp_hi": gain.hi}
            rows.append(row | more)
    return pd.DataFrame(rows)
