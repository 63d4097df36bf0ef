"""Published figures, line by line, beside what is counted here and what was measured here."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from vpbench import plan, registry
from vpbench.plan import presets
from vpbench.render.tables.published import Line
from vpbench.rows.contexts import MEASURED, judged, records, weights_said
from vpbench.rows.kinds import judged_unit
from vpbench.rows.published import VIEWS, Figure
from vpbench.rows.schema import Result

if TYPE_CHECKING:
    from vpbench.api import Classifier
    from vpbench.backbones.vitdet.network import ViTDet


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


def lines(figures: Sequence[Figure], results: pd.DataFrame | None) -> list[Line]:
    """Put each figure beside our count and beside the newest fitting row of `results` (None: nothing was measured)."""
    rows = [] if results is None else [row for row in records(results) if row["status"] in MEASURED]
    rows.sort(key=lambda row: row["timestamp_utc"], reverse=True)
    counter, cells = _Counter(), dict[tuple[str, str, str], plan.Cell | None]()
    found = []
    for figure in figures:
        key = (figure.method, figure.backbone, figure.preset)
        if key not in cells:
            cells[key] = _cell(*key)
        found.append(_line(figure, cells[key], counter, rows))
    return found


def _line(figure: Figure, cell: plan.Cell | None, counter: "_Counter", rows: Sequence[Result]) -> Line:
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


class _Counter:
    """Counts settings, each once: backbones are built on the meta device and stay."""

    def __init__(self) -> None:
        self._models: dict[plan.Setting, Classifier] = {}
        self._detectors: dict[plan.Setting, ViTDet] = {}
        self._known: dict[tuple[plan.Setting, str, str, bool], tuple[float | None, float | None]] = {}

    def count(self, cell: plan.Cell, figure: Figure) -> tuple[float | None, float | None]:
        """Return the GMACs of a cell in the figure's convention and in ours, per view, video or frame as it says."""
        way = figure.convention or "fvcore"
        key = (cell.setting, cell.label, way, figure.metric == "gmacs_per_video")
        if key not in self._known:
            detects = registry.backbone(cell.setting.backbone).task == "detection"
            found = self._frames(cell) if detects else self._clip(cell, way)
            times = (VIEWS if figure.metric == "gmacs_per_video" else 1) / 1e9
            self._known[key] = (found[0] and found[0] * times, found[1] and found[1] * times)
        return self._known[key]

    def _frames(self, cell: plan.Cell) -> tuple[float | None, float | None]:
        from vpbench.tasks.detection import count as count_frames

        if cell.setting not in self._detectors:
            self._detectors[cell.setting] = count_frames.detector(cell.setting)
        if count_frames.follows_content(self._detectors[cell.setting], cell):
            return None, None
        mean = count_frames.counts(self._detectors[cell.setting], cell).mean
        return (None, None) if mean is None else (mean.rgtp, mean.ours)

    def _clip(self, cell: plan.Cell, way: str) -> tuple[float | None, float | None]:
        from vpbench.tasks.recognition import count

        if cell.setting not in self._models:
            self._models[cell.setting] = count.backbone(cell.setting)
        found = count.counts(self._models[cell.setting], cell, (), "torch" if way == "mmcv" else None)
        if not found:
            return None, None  # the count follows the content of clips
        return {"fvcore": found[0].published_macs, "mmcv": found[0].mmcv, "rgtp": found[0].rgtp}[way], found[0].macs
