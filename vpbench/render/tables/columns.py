"""The columns of a table of cells: how each number is written, and what is written behind it."""

import math
from collections.abc import Callable, Container, Sequence
from typing import Any

from vpbench.errors import UsageError, near_matches
from vpbench.render.tables.layout import Grid, Layout
from vpbench.rows.kinds import Cell


def by_speed(row: Cell, split: str) -> str:
    """Write precision of slow, medium and fast objects, where tracks tell them apart."""
    found = [row["map50_slow"], row["map50_medium"], row["map50_fast"]]
    if all(value is None for value in found):
        return ""
    return " / ".join("-" if value is None else f"{value:.1f}" for value in found)


Show = Callable[[Cell, str], str]
ALPHA = 0.05
CAVEAT = "†"  # behind the name of a method that must not be compared as it stands
NO_LOSS = "°"  # behind a difference that is shown to be no loss
_TEXT = frozenset({"method", "setting", "status"})


def columns(rows: Sequence[Cell], layout: Layout, against: str, names: Sequence[str] = ()) -> Grid:
    """Return the columns that have a number in any of these rows of `table.build`, as text.

    names: of the columns to show instead, in this order, as in CSV. Raises UsageError for one that does not exist.
    """
    named: dict[str, Show] = {"method": _name, "setting": _setting} if layout.grouped else {"method": method}
    middle = _MIDDLE | _AGAINST[against] | _END
    asked = [head for name in names for head in headers(name) if head in middle]
    shown = named | ({head: middle[head] for head in asked} if names else middle)
    found = {name: [show(row, layout.split) for row in rows] for name, show in shown.items()}
    found = {name: cells for name, cells in found.items() if any(cells)}
    setting = list(named)[-1]  # the column that has the settings in it
    told_apart = len({(row["method"], row["keep_nominal"]) for row in rows}) == len(rows)
    if names:
        ranks = ["method", *[setting] * (not told_apart or _KEEP not in asked), *asked, *asked]
    else:
        ranks = _ranks(found, against, setting, told_apart)
    return Grid(found, _TEXT, [row["method"] for row in rows], ranks, _HEADS)


def headers(name: str) -> list[str]:
    """Return the headers of a column by its name in CSV: the time of a clip or of a frame has two."""
    if name not in COLUMNS:
        raise UsageError(f"unknown column {name!r}{near_matches(name, COLUMNS)}")
    return [COLUMNS[name], *(["ms/frame"] if name == "ms_per_clip" else [])]


def _ranks(found: Container[str], against: str, setting: str, told_apart: bool) -> list[str]:
    """Put first what tells rows apart, then quality, differences and speed; intervals of the latter before the rest.

    setting: the column that has the settings in it; told_apart: rows are, without it.
    """
    quality = [name for name in _QUALITIES if name in found][:1]
    difference, speed = (
        ("vs dense\npp", "speed-up") if against == "dense" else ("vs random\npp", "speed-up\nover random")
    )
    first = ["method", _KEEP, *[setting] * (not told_apart), "status", *quality, difference, speed, "GMACs", _KEPT]
    rest = [*_MIDDLE, *_AGAINST[against], *_END]
    return [*first, difference, speed, *(name for name in rest if name not in first), setting, *rest]


def method(row: Cell, split: str) -> str:
    """Name a row's method and, behind `split`, its setting."""
    return split.join(part for part in (_name(row, split), row["setting"]) if part)


def _name(row: Cell, split: str) -> str:
    return f"{row['method']}{CAVEAT if row['caveat'] else ''}"


def _setting(row: Cell, split: str) -> str:
    return row["setting"]


def _p_value(name: str) -> Show:
    def show(row: Any, split: str) -> str:
        if row[name] is None:
            return ""
        return "<0.001" if row[name] < 0.001 else f"{row[name]:.3f}"

    return show


def three_digits(value: float) -> str:
    """Return the format that shows three digits of `value`; an interval is written like its estimate."""
    return f".{max(0, 2 - math.floor(math.log10(value)))}f" if value > 0 else ".2f"


def _plain(name: str, form: str) -> Show:
    def show(row: Any, split: str) -> str:
        return "" if row[name] is None else format(row[name], form)

    return show


def _interval(name: str, form: str | None, mark: Callable[[Cell], str] = lambda row: "") -> Show:
    def show(row: Any, split: str) -> str:
        if row[name] is None:
            return ""
        spec = form or three_digits(row[name])
        text = format(row[name], spec) + mark(row)
        if row[f"{name}_lo"] is None:
            return text
        return f"{text}{split}[{row[f'{name}_lo']:{spec}}, {row[f'{name}_hi']:{spec}}]"

    return show


def _only(unit: str, show: Show) -> Show:
    return lambda row, split: show(row, split) if row["unit"] == unit else ""


def _significant(p: float | None) -> str:
    return "*" if p is not None and p < ALPHA else ""


def _noisy(row: Cell) -> str:
    return "!" if row["noisy"] else ""


def _bound(row: Cell, split: str) -> str:
    """Write the bound of the loss, never below itself; where a gain is certain, it loses nothing."""
    if row["loss_bound_pp"] is None:
        return ""
    return f"{max(0.0, math.ceil(10 * row['loss_bound_pp'] - 1e-9) / 10):.1f}"


def _no_loss(row: Cell) -> str:
    return NO_LOSS if row["no_loss"] else ""


def _random(significant: bool) -> Show:
    def mark(row: Cell) -> str:
        chance = "~" if row["vs_random_interpolated"] else ""
        return chance + (_significant(row["vs_random_p_holm"]) if significant else "")

    return _interval("vs_random_pp", "+.1f", mark)


_KEEP, _KEPT = "keep\nnominal", "keep\nrealised"
#: shorter headers, for narrow terminals
_HEADS = {_KEEP: "keep", _KEPT: "kept"}
#: the first that there is says how good a row is
_QUALITIES = ("top-1\n%", "mAP50\n%", "agree\n%")
_MIDDLE: dict[str, Show] = {
    _KEEP: _plain("keep_nominal", "g"),
    _KEPT: _plain("keep_realised", ".3f"),
    "top-1\n%": _interval("top1", ".1f"),
    "mAP50\n%": _interval("map50", ".1f"),
    "slow / medium / fast\n%": by_speed,
}
_GMACS = _plain("gmacs", ".3g")
_TIMES: dict[str, Show] = {
    "ms/clip": _only("clip", _interval("ms_per_clip", None)),
    "ms/frame": _only("frame", _interval("ms_per_clip", None)),
}
#: what stands between quality and memory, by what methods are compared with
_AGAINST: dict[str, dict[str, Show]] = {
    "dense": {
        "vs dense\npp": _interval("delta_pp", "+.1f", lambda row: _significant(row["p_holm"]) + _no_loss(row)),
        "loses at\nmost, pp": _bound,
        "p\n(Holm)": _p_value("p_holm"),
        "vs random\npp": _random(significant=False),
        "GMACs": _GMACS,
        **_TIMES,
        "speed-up": _interval("speedup", ".2f", _noisy),
        "transformer\nspeed-up": _interval("transformer_speedup", ".2f", _noisy),
    },
    "random": {
        "vs random\npp": _random(significant=True),
        "p\n(Holm)": _p_value("vs_random_p_holm"),
        "GMACs": _GMACS,
        "GMACs\nof random's": _plain("vs_random_gmacs", ".3f"),
        **_TIMES,
        "speed-up\nover random": _interval("vs_random_speedup", ".2f", _noisy),
    },
}
_END: dict[str, Show] = {
    "peak\nMB": _plain("peak_mb", ".1f"),
    "training\nms/clip": _interval("train_ms", None),
    "training\nspeed-up": _interval("train_speedup", ".2f", _noisy),
    "training\npeak MB": _plain("mem_train_mb", ".0f"),
    "agree\n%": lambda row, split: "" if row["agree"] is None else f"{100 * row['agree']:.1f}",
    "status": lambda row, split: "" if row["status"] == "ok" else row["status"],
}
#: headers of columns by their names in CSV, where intervals are columns of their own
COLUMNS: dict[str, str] = {
    "keep_nominal": _KEEP,
    "keep_realised": _KEPT,
    "top1": "top-1\n%",
    "map50": "mAP50\n%",
    "map50_slow": "slow / medium / fast\n%",
    "delta_pp": "vs dense\npp",
    "loss_bound_pp": "loses at\nmost, pp",
    "p_holm": "p\n(Holm)",
    "vs_random_pp": "vs random\npp",
    "vs_random_gmacs": "GMACs\nof random's",
    "vs_random_speedup": "speed-up\nover random",
    "gmacs": "GMACs",
    "ms_per_clip": "ms/clip",
    "speedup": "speed-up",
    "transformer_speedup": "transformer\nspeed-up",
    "peak_mb": "peak\nMB",
    "train_ms": "training\nms/clip",
    "train_speedup": "training\nspeed-up",
    "mem_train_mb": "training\npeak MB",
    "agree": "agree\n%",
    "status": "status",
}
