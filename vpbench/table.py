"""Tables for people: what each cell kept, cost and got right, with intervals, beside dense and random."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

from vpbench import naming, stats, table_frames, table_reading, versus
from vpbench.errors import NothingMeasured, UsageError

Row = dict[str, Any]

FORMATS = ("console", "markdown", "csv")
MEASURED = ("ok", "incomplete")  # statuses of rows that hold numbers
ALPHA = 0.05
CAVEAT = "†"  # behind the name of a method that must not be compared as it stands

# Rows with equal values here may be compared with each other; anything else is another table and another figure.
CONTEXT = (
    "backbone",
    "weights_kind",
    "weights_sha256",
    "dataset",
    "split",
    "clip_list_sha256",
    "protocol",
    "views",
    "frames",
    "stride",
    "resolution",
    "decoder",
    "device",
    "device_name",
    "n_threads",
    "dtype",
    "matmul_precision",
    "exec_mode",
    "batch_size",
    "scenario",
    "profile",
)
_SPEAKS_FOR_ITSELF = ("backbone", "dataset", "split", "device", "device_name", "dtype", "exec_mode", "scenario")


def contexts(results: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Split results into groups of comparable rows, each with a label of what sets it apart; empty for a single one."""
    if results.empty:
        return []
    groups = list(results.groupby(list(CONTEXT), dropna=False, sort=True))
    varying = [i for i, name in enumerate(CONTEXT) if results[name].nunique(dropna=False) > 1]
    found = []
    for _, group in groups:
        first = records(group.iloc[:1])[0]
        named = [_named(CONTEXT[i], first[CONTEXT[i]]) for i in varying if first[CONTEXT[i]] is not None]
        found.append((" ".join(named), group.reset_index(drop=True)))
    return found


def _named(column: str, value: object) -> str:
    shown = str(value)[:8] if column.endswith("sha256") else str(value)
    return shown if column in _SPEAKS_FOR_ITSELF else f"{column.removesuffix('_sha256')}={shown}"


def records(results: pd.DataFrame) -> list[Row]:
    """Return rows as plain dicts, with None for null."""
    return results.astype(object).where(results.notna(), None).to_dict("records")  # type: ignore[return-value]


def peak_mb(row: Mapping[str, Any]) -> float | None:
    """Return a row's peak memory in MB: allocated tensors on an accelerator, growth of resident memory on a CPU."""
    column = "mem_peak_rss_mb" if row["mem_peak_alloc_mb"] is None else "mem_peak_alloc_mb"
    found: float | None = row[column]
    return found


def top1_interval(row: Mapping[str, Any]) -> stats.Interval | None:
    """Return top-1 in percent with Wilson's 95 % interval over videos; None without labels or trained weights."""
    if row["top1"] is None or not judged(row):
        return None
    share = stats.wilson(round(row["top1"] / 100 * judged(row)), judged(row))
    return stats.Interval(row["top1"], 100 * share.lo, 100 * share.hi)


def judged(row: Mapping[str, Any]) -> int:
    """Return how many predictions a row's quality rests on: videos, each over all of its views; frames of detectors."""
    count: int = row["n_clips"] if row["n_videos"] is None else row["n_videos"]
    return count


def setup(row: Mapping[str, Any]) -> str:
    """Name hardware, precision, threads, batch, backbone, weights and data of a context, from any of its rows."""
    threads = "" if row["n_threads"] is None else f", {row['n_threads']} thread{'s' * (row['n_threads'] != 1)}"
    return (
        f"{row['device_name']} ({row['device']}{threads}), {row['dtype']}, {row['exec_mode']}, batch "
        f"{row['batch_size']}; {row['backbone']} with {row['weights_kind']} weights on {row['dataset']}/{row['split']}"
    )


def build(results: pd.DataFrame, videos: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell: numbers in the units of the results table, `*_lo` and `*_hi` 95 % intervals.

    `p_mid` is McNemar's mid-p against dense, `p_holm` the same corrected over all comparisons of a context.
    `vs_random_pp` compares top-1 with random dropping at the same token count, or, where `vs_random_interpolated`,
    with the random curve at the same GMACs; on detectors it compares `map50`, which they have in place of top-1. Rows
    are sorted by method (dense, random, others), then by keep.
    """
    found: list[Row] = []
    for label, group in contexts(results):
        rows = sorted(records(group), key=_order)
        against = versus.random([r if r["status"] in MEASURED else None for r in rows], videos)
        adjusted = iter(stats.holm([p for row in rows if (p := mid_p(row)) is not None]))
        several_seeds = len({row["seed"] for row in rows}) > 1
        for row, random in zip(rows, against, strict=True):
            p_value = mid_p(row)
            corrected = None if p_value is None else next(adjusted)
            random = table_frames.versus_random(row) if table_frames.detects(row) else random
            shown = _identity(row, rows, label, several_seeds) | _numbers(row) | random
            found.append(shown | {"p_mid": p_value, "p_holm": corrected} | _state(row))
    return pd.DataFrame(found)


def _order(row: Row) -> tuple[Any, ...]:
    def last(value: float | None) -> float:
        return math.inf if value is None else value

    method: str = row["method"]
    rank = {"dense": 0, "random": 1}.get(method, 2)
    return rank, method, row["matched_to"] or "", last(row["keep_nominal"]), last(row["keep_realised"]), row["seed"]


def mid_p(row: Mapping[str, Any]) -> float | None:
    """Return McNemar's mid-p of a row against dense; None for dense itself and where top-1 is unknown."""
    if row["method"] == "dense" or row["disc_b"] is None or row["disc_c"] is None:
        return None
    return stats.mcnemar(row["disc_b"], row["disc_c"])[1]


def _identity(row: Row, rows: Sequence[Row], label: str, several_seeds: bool) -> Row:
    if row["matched_to"] is None:
        setting = naming.setting(row, rows)
    else:
        target = next((other for other in rows if other["config_id"] == row["matched_to"]), None)
        name = f"{target['method']} {naming.setting(target, rows)}" if target else row["matched_to"]
        setting = f"as {name}".rstrip()
    seed = f"seed={row['seed']}" if several_seeds else ""
    return {
        "context": label,
        "method": row["method"],
        "setting": f"{setting} {seed}".strip(),
        "keep_nominal": row["keep_nominal"],
        "keep_realised": row["keep_realised"],
    }


def _numbers(row: Row) -> Row:
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
        **table_frames.numbers(row),
    }


def _triple(name: str, values: tuple[float | None, float | None, float | None]) -> Row:
    return dict(zip((name, f"{name}_lo", f"{name}_hi"), values, strict=True))


def _state(row: Row) -> Row:
    state = {"n_clips": row["n_clips"], "noisy": row["noisy"], "status": row["status"], "reason": row["error"]}
    return state | {"caveat": row["caveat"], "unit": table_frames.unit(row)}


def render(frame: pd.DataFrame, fmt: str) -> str:
    """Write a frame of `build` as `console`, `markdown` or `csv` (all columns, full precision)."""
    if fmt not in FORMATS:
        raise UsageError(f"unknown table format {fmt!r} (known: {', '.join(FORMATS)})")
    if fmt == "csv":
        return frame.to_csv(index=False)
    split = "\n" if fmt == "console" else " "
    rows = records(frame)
    columns = {name.replace("\n", split): [show(row, split) for row in rows] for name, show in _COLUMNS.items()}
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    style = "simple" if fmt == "console" else "github"
    align = ["left" if name in _TEXT else "right" for name in columns]
    text = tabulate(columns, headers="keys", tablefmt=style, disable_numparse=True, colalign=align)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _plain(name: str, form: str) -> Callable[[Row, str], str]:
    return lambda row, split: "" if row[name] is None else format(row[name], form)


def _p_value(row: Row, split: str) -> str:
    if row["p_holm"] is None:
        return ""
    return "<0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"


def _three_digits(value: float) -> str:
    """Return the format that shows three digits of `value`; an interval is written like its estimate."""
    return f".{max(0, 2 - math.floor(math.log10(value)))}f" if value > 0 else ".2f"


def _interval(name: str, form: str | None, mark: Callable[[Row], str] = lambda row: "") -> Callable[[Row, str], str]:
    def show(row: Row, split: str) -> str:
        if row[name] is None:
            return ""
        spec = form or _three_digits(row[name])
        text = format(row[name], spec) + mark(row)
        if row[f"{name}_lo"] is None:
            return text
        return f"{text}{split}[{row[f'{name}_lo']:{spec}}, {row[f'{name}_hi']:{spec}}]"

    return show


def _only(unit: str, show: Callable[[Row, str], str]) -> Callable[[Row, str], str]:
    return lambda row, split: show(row, split) if row["unit"] == unit else ""


def _significant(row: Row) -> str:
    return "*" if row["p_holm"] is not None and row["p_holm"] < ALPHA else ""


def _method(row: Row, split: str) -> str:
    name = f"{row['method']}{CAVEAT if row['caveat'] else ''}"
    return f"{name}{split}{row['setting']}" if row["setting"] else name


_COLUMNS: dict[str, Callable[[Row, str], str]] = {
    "method": _method,
    "keep\nnominal": _plain("keep_nominal", "g"),
    "keep\nrealised": _plain("keep_realised", ".3f"),
    "top-1\n%": _interval("top1", ".1f"),
    "mAP50\n%": _interval("map50", ".1f"),
    "slow / medium / fast\n%": table_frames.by_speed,
    "vs dense\npp": _interval("delta_pp", "+.1f", _significant),
    "p\n(Holm)": _p_value,
    "vs random\npp": _interval("vs_random_pp", "+.1f", lambda row: "~" if row["vs_random_interpolated"] else ""),
    "GMACs": _plain("gmacs", ".3g"),
    "ms/clip": _only("clip", _interval("ms_per_clip", None)),
    "ms/frame": _only("frame", _interval("ms_per_clip", None)),
    "speed-up": _interval("speedup", ".2f", lambda row: "!" if row["noisy"] else ""),
    "transformer\nspeed-up": _interval("transformer_speedup", ".2f", lambda row: "!" if row["noisy"] else ""),
    "peak\nMB": _plain("peak_mb", ".1f"),
    "agree\n%": lambda row, split: "" if row["agree"] is None else f"{100 * row['agree']:.1f}",
    "status": lambda row, split: "" if row["status"] == "ok" else row["status"],
}
_TEXT = ("method", "status")


def footer(results: pd.DataFrame, frame: pd.DataFrame, videos: pd.DataFrame) -> list[str]:
    """Return the lines below the table of one context: where it was measured, what the marks mean, what failed."""
    rows, shown = sorted(records(results), key=_order), records(frame)
    lines = [
        setup(rows[0]),
        *_clips_line(rows),
        *naming.shared(rows),
        *_caveats(rows),
        *versus.control_lines([row for row in rows if row["status"] in MEASURED], videos),
        *_test_lines(rows, shown),
        *_time_lines(rows),
        *table_reading.lines(rows),
    ]
    return [*lines, *_failures(shown)]


def _caveats(rows: Sequence[Row]) -> list[str]:
    return [
        f"{CAVEAT} {name}: {text}" for name, text in sorted({(r["method"], r["caveat"]) for r in rows if r["caveat"]})
    ]


def _clips_line(rows: Sequence[Row]) -> list[str]:
    most, unread = max(row["n_clips"] for row in rows), max(row["n_failed"] for row in rows)
    expected = max(row["n_expected"] for row in rows)
    seen = f"{most} {table_frames.unit(rows[0])}s"
    if rows[0]["protocol"] is not None:
        videos, views = max(judged(row) for row in rows), rows[0]["views"]
        seen = f"{videos} video{'s' * (videos != 1)}, {views} view{'s' * (views > 1)} each ({rows[0]['protocol']})"
    return [seen + f"; {unread} of {expected} could not be read" * bool(unread)]


def _test_lines(rows: Sequence[Row], shown: Sequence[Row]) -> list[str]:
    if table_frames.detects(rows[0]):
        return table_frames.test_lines(rows)
    tested = [row for row in rows if mid_p(row) is not None and judged(row)]
    if not tested:
        return ["top-1 unknown (no labels or no trained weights): compare by agreement with dense"]
    share, count = max(((row["disc_b"] + row["disc_c"]) / judged(row), judged(row)) for row in tested)
    lines = [
        "intervals are 95 %: top-1 Wilson, differences bootstrap over videos, times bootstrap over rounds",
        f"p: McNemar's mid-p against dense, Holm-corrected over {len(tested)} comparisons; * below {ALPHA:g}",
        f"resolution (half-width of the interval of a difference): {_half_width(0.05, count)} where 5 % of the videos "
        f"change, {_half_width(share, count)} where {100 * share:.0f} % do (the most here)",
    ]
    marked = any(row["vs_random_interpolated"] for row in shown)
    return lines + ["~ no random cell within 1 % of the tokens: random curve interpolated at these GMACs"] * marked


def _half_width(share: float, count: int) -> str:
    return f"{196 * math.sqrt(share / count):.1f} pp"


def _time_lines(rows: Sequence[Row]) -> list[str]:
    noisy = sum(bool(row["noisy"]) for row in rows)
    control = next((row for row in rows if row["method"] == "dense" and row["aa_ratio"] is not None), None)
    lines = []
    if control is not None:
        interval = f"[{control['aa_ci_lo']:.3f}, {control['aa_ci_hi']:.3f}]"
        lines.append(f"A/A control (dense against itself): {control['aa_ratio']:.3f} {interval}")
    return lines + [f"! {noisy} of {len(rows)} rows were timed on a noisy machine: no claim on their speed"] * bool(
        noisy
    )


def _failures(shown: Sequence[Row]) -> list[str]:
    return [
        f"{row['status']}: {_method(row, ' ')}"
        + ("" if row["keep_nominal"] is None else f" keep={row['keep_nominal']:g}")
        + f": {row['reason'] or 'no reason recorded'}"
        for row in shown
        if row["status"] != "ok"
    ]


def report(results: pd.DataFrame, videos: pd.DataFrame, fmt: str = "console") -> str:
    """Return all tables with their footers (`csv`: one table, no footer). Raises NothingMeasured without results."""
    if results.empty:
        raise NothingMeasured("no results to show; run or sweep first")
    frame = build(results, videos)
    if fmt == "csv":
        return render(frame, fmt)
    parts = []
    for label, group in contexts(results):
        own = frame[frame["context"] == label]
        bullet = "- " if fmt == "markdown" else "  "
        heading = [f"### {label}" if fmt == "markdown" else label, ""] if label else []
        notes = [bullet + line for line in footer(group, own, videos)]
        parts.append("\n".join([*heading, render(own, fmt), "", *notes]))
    return "\n\n".join(parts)
