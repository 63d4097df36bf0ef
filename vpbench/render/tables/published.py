"""The table of published figures: a page per backbone, with the sources and reasons that its lines name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from vpbench.render.tables.layout import Grid, Layout, letter
from vpbench.rows.published import WAYS, Figure

#: what metrics are called; their unit is the end of their name
QUANTITIES = {
    "top1_pct": "top-1, %",
    "top5_pct": "top-5, %",
    "verb_top1_pct": "verb top-1, %",
    "noun_top1_pct": "noun top-1, %",
    "action_top1_pct": "action top-1, %",
    "map50_pct": "mAP50, %",
    "top1_delta_pp": "top-1 vs dense, pp",
    "gmacs_per_view": "GMACs / view",
    "gmacs_per_video": "GMACs / video",
    "gmacs_per_frame": "GMACs / frame",
    "gmacs_change_pct": "GMACs, change, %",
    "tokens_change_pct": "tokens, change, %",
    "throughput_gain_pct": "throughput, gain, %",
    "finetune_time_change_pct": "fine-tuning time, change, %",
    "training_speed_gain_pct": "training speed, gain, %",
    "finetune_hours": "fine-tuning, hours",
    "clips_per_s": "clips / s",
    "frames_per_s": "frames / s",
    "images_per_s": "images / s",
    "speedup": "speed-up",
}
_TEXT = frozenset({"method", "setting", "dataset", "quantity", "source", "why"})
#: columns, those first that count most; the notes say which datasets, and what the source and the reasons are
_RANKS = (
    *("method", "setting", "quantity", "published", "counted\nits way", "off\n%", "measured", "off"),
    *("source", "why", "dataset", "counted\nour way"),
)
#: signs of a setting in words; what a note says further is not part of the setting
_LONG = 44


def report(lines: "Sequence[Line]", reasons: Mapping[str, str], fmt: str, width: float | None = None) -> str:
    """Return all lines in a format, a page per backbone, the console's so wide. Raises UsageError for an unknown."""
    layout = Layout.of(fmt, width, "vpbench published")
    if fmt == "csv":
        return frame(lines).to_csv(index=False)
    backbones = dict.fromkeys(line.figure.backbone for line in lines)
    pages = []
    for name in sorted(backbones, key=lambda backbone: (not backbone, backbone)):
        own = sorted(
            (line for line in lines if line.figure.backbone == name),
            key=lambda line: (line.figure.method != "dense", line.figure.method),
        )
        pages.append(layout.page(name or "other networks, or none that is named", _grid(own), _notes(own, reasons)))
    return layout.document(pages)


def _grid(lines: "Sequence[Line]") -> Grid:
    sources, letters = _sources(lines), _letters(lines)
    columns = {
        "method": [line.figure.method for line in lines],
        "setting": [_setting(line) for line in lines],
        "dataset": [line.figure.dataset for line in lines],
        "quantity": [QUANTITIES.get(line.figure.metric, line.figure.metric) for line in lines],
        "published": [f"{line.figure.value:g}" for line in lines],
        "counted\nits way": [_number(line.counted) for line in lines],
        "off\n%": [_off(line.counted_off_pct, "") for line in lines],
        "counted\nour way": [_number(line.ours) for line in lines],
        "measured": [_number(line.measured) + letters.get(line.how, "") or line.state for line in lines],
        "off": [_measured_off(line) for line in lines],
        "source": [f"[{sources[line.figure.source]}]" for line in lines],
        "why": [line.figure.why for line in lines],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    return Grid(kept, _TEXT, [line.figure.method for line in lines], _RANKS)


def _setting(line: "Line") -> str:
    """Name a setting: a preset, or what the note says first; costs of dense need no words."""
    preset = line.figure.preset.partition("/")[2]
    if preset or (line.figure.method == "dense" and line.figure.metric.startswith("gmacs")):
        return preset
    words = line.figure.note.partition(";")[0]
    return words if len(words) <= _LONG else words[: _LONG - 3].rstrip() + "..."


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if abs(value) >= 1000 else f"{value:.2f}"


def _off(value: float | None, unit: str) -> str:
    return "" if value is None else f"{round(value, 1) + 0.0:+.1f}{unit}"  # never -0.0


def _measured_off(line: "Line") -> str:
    return _off(line.measured_off, " pp" if line.figure.metric.endswith(("_pct", "_pp")) else " %")


def _sources(lines: "Sequence[Line]") -> dict[str, int]:
    return {source: number for number, source in enumerate(dict.fromkeys(line.figure.source for line in lines), 1)}


def _letters(lines: "Sequence[Line]") -> dict[str, str]:
    several = dict.fromkeys(line.how for line in lines if line.how)
    return {how: f"({letter(number)})" for number, how in enumerate(several)}


def _notes(lines: "Sequence[Line]", reasons: Mapping[str, str]) -> list[str]:
    counted = [line for line in lines if line.counted is not None]
    notes = [f"published figures of {lines[0].figure.backbone or 'other networks'}, with what is counted and measured"]
    if counted:
        ways = dict.fromkeys(line.way for line in counted)
        notes.append("our way: multiply-accumulates of layers, attention and the method; its way, where it is another:")
        notes += [f"{WAYS[way][0]}: {WAYS[way][1]}" for way in ways]
    notes += _measured_notes(lines)
    notes += [f"[{number}] {source}" for source, number in _sources(lines).items()]
    names = dict.fromkeys(name for line in lines for name in line.figure.why.split())
    return [*notes, *(f"{name}: {reasons[name]}" for name in names)]


def _measured_notes(lines: "Sequence[Line]") -> Iterator[str]:
    states = {line.state.partition(":")[0] for line in lines}
    if any(line.measured is not None for line in lines):
        yield "measured: the newest row of the same setting; off: from what was published, GMACs from our own count"
        yield from (f"{mark} {how}" for how, mark in _letters(lines).items())
    if any(line.state.startswith("not run:") for line in lines):
        yield "not run: nothing measured fits; it takes fine-tuned weights (--weights FILE) and the dataset (--root)"
    if "not run" in states:
        yield "not run, of costs and times: `vpbench run --preset NAME` measures them, with --weights random too"
    if "no setting here" in states:
        yield "no setting here: the source names none that vpbench could run"
    if "not measured here" in states:
        yield "not measured here: vpbench does not measure this quantity"


def frame(lines: "Sequence[Line]") -> pd.DataFrame:
    """Return one row per figure with all numbers, for CSV."""
    rows = []
    for line in lines:
        found = line.figure.model_dump()
        why = found.pop("why")
        rows.append(
            found
            | {"counted_way": line.way, "counted": line.counted, "counted_off_pct": line.counted_off_pct}
            | {"counted_ours": line.ours, "measured": line.measured, "measured_off": line.measured_off}
            | {"measured_how": line.how, "state": line.state, "why": why}
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Line:
    """One figure, and in its unit what we count and what we measured; None where there is nothing.

    `counted`: in the figure's own convention, or fvcore's where it names none (`way`); `ours`: in our own. `measured`:
    of the newest row that fits, `how` on what and when. `state`: what is missing where nothing was measured.
    """

    figure: Figure
    way: str
    counted: float | None
    ours: float | None
    measured: float | None
    how: str
    state: str

    @property
    def counted_off_pct(self) -> float | None:
        """Return by how many percent the count is above the figure."""
        return None if self.counted is None else 100 * (self.counted / self.figure.value - 1)

    @property
    def measured_off(self) -> float | None:
        """Return how far above the figure it was measured, in points if that is in percent, else in percent of it."""
        if self.measured is None:
            return None
        if self.figure.metric.endswith(("_pct", "_pp")):
            return self.measured - self.figure.value
        # what is measured is counted our way
        whole = self.ours if self.ours is not None else self.figure.value
        return 100 * (self.measured / whole - 1)
