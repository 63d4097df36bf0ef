"""Published figures, line by line, beside what is counted here and what was measured here."""

import json
from collections.abc import Callable, Sequence

import pandas as pd

from vpbench import plan, registry
from vpbench.commands.published.counts import Counter, Kept, stored
from vpbench.plan import presets
from vpbench.render.tables.published import Line
from vpbench.rows.contexts import MEASURED, judged, records, weights_said
from vpbench.rows.kinds import judged_unit
from vpbench.rows.published import VIEWS, Figure
from vpbench.rows.schema import Result

#: what of a measured row is a figure of this metric; papers print other units
MEASURES: dict[str, Callable[[Result], float | None]] = {
    "top1_pct": lambda row: row["top1"],
    "top5_pct": lambda row: row["top5"],
    "verb_top1_pct": lambda row: row["verb_top1"],
    "noun_top1_pct": lambda row: row["noun_top1"],
    "action_top1_pct": lambda row: row["action_top1"],
    "map50_pct": lambda row: row["map50"],
    "top1_delta_pp": lambda row: row["delta_pp"],
    "gmacs_per_view": lambda row: row["gmacs_executed"],
    "gmacs_per_video": lambda row: row["gmacs_executed"] * VIEWS,
    "gmacs_per_frame": lambda row: row["gmacs_transformer"],
    "speedup": lambda row: row["speedup"],
    "throughput_gain_pct": lambda row: row["speedup"] and 100 * (row["speedup"] - 1),
    "clips_per_s": lambda row: row["clips_per_s"],
    "gmacs_change_pct": lambda row: 100 * (row["gmacs_executed"] / row["gmacs_dense"] - 1),
    "tokens_change_pct": lambda row: 100 * (row["keep_realised"] - 1),
}
QUALITY = frozenset(name for name in MEASURES if name.startswith(("top", "verb", "noun", "action", "map50")))


def lines(figures: Sequence[Figure], results: pd.DataFrame | None, known: Kept | None = None) -> list[Line]:
    """Put each figure beside our count and beside the newest fitting row of `results` (None: nothing was measured).

    known: counts that are not made anew, to which others are added; None for those that come with the package.
    """
    rows = [] if results is None else [row for row in records(results) if row["status"] in MEASURED]
    rows.sort(key=lambda row: row["timestamp_utc"], reverse=True)
    counter, cells = Counter(stored() if known is None else known), dict[tuple[str, str, str], plan.Cell | None]()
    found = []
    for figure in figures:
        key = (figure.method, figure.backbone, figure.preset)
        if key not in cells:
            cells[key] = _cell(*key)
        found.append(_line(figure, cells[key], counter, rows))
    return found


def _line(figure: Figure, cell: plan.Cell | None, counter: Counter, rows: Sequence[Result]) -> Line:
    way, counted, ours = "", None, None
    if cell is not None and figure.metric.startswith("gmacs_per_"):
        way = figure.convention or "fvcore"
        counted, ours = counter.count(cell, figure)
    row = None if cell is None else next((row for row in rows if _fits(row, figure, cell)), None)
    measure = MEASURES.get(figure.metric)
    value = None if row is None or measure is None else measure(row)
    how = "" if row is None or value is None else _how(row)
    return Line(figure, way, counted, ours, value, how, _missing(figure, cell) if value is None else "")


def _how(row: Result) -> str:
    """Say what a row was measured on: whoever compares it with a paper has to know."""
    seen = f"{judged(row)} of {row['n_expected']} {judged_unit(row)}s of {row['dataset']}/{row['split']}"
    views = "" if row["protocol"] is None else f", {row['protocol']}"
    where = f"{row['device_name']}, {row['dtype']}, {row['exec_mode']}, batch {row['batch_size']}"
    return f"{seen}{views}; {weights_said(row['weights_kind'])}; {where}; {row['timestamp_utc']:%Y-%m-%d}"


def _missing(figure: Figure, cell: plan.Cell | None) -> str:
    if figure.metric not in MEASURES:
        return "not measured here"
    if cell is None:
        return "no setting here"
    if figure.metric in QUALITY:
        return f"not run: weights, {figure.dataset or 'data'}"
    return "not run"


def _cell(method: str, backbone: str, preset: str) -> plan.Cell | None:
    """Return the setting of a figure as a cell; None where none is known."""
    if backbone not in registry.names("backbones") or not (preset or method == "dense"):
        return None
    dense = {"method": ["dense"], "backbone": backbone}
    asked = plan.options(presets.find(preset) if preset else dense, preset or "options")
    cells = plan.cells(asked, plan.setting(asked, 1))
    return next(cell for cell in cells if cell.method == method and cell.match is None)


def _fits(row: Result, figure: Figure, cell: plan.Cell) -> bool:
    """Say whether a row was measured at the setting of a figure: method, backbone, parameters, size and dataset."""
    if row["method"] != cell.method or row["backbone"] != cell.setting.backbone or row["matched_to"] is not None:
        return False
    config = registry.backbone(cell.setting.backbone).sizes
    if row["frames"] != config.frames or row["resolution"] != config.height:
        return False
    if figure.dataset and figure.metric in QUALITY and row["dataset"] != figure.dataset:
        return False
    params = json.loads(row["method_params"])
    return all(params.get(name) == value for name, value in cell.params)
