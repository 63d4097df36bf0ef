"""The lines below a table: where it was measured, what its marks mean, what failed."""

import json
import shlex
from collections.abc import Collection, Sequence

import pandas as pd

from vpbench.render.tables import decoding
from vpbench.render.tables.columns import ALPHA, CAVEAT, NO_LOSS, method
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED, judged, setup
from vpbench.rows.kinds import Cell
from vpbench.rows.names import Names
from vpbench.rows.schema import Result, Row
from vpbench.rows.statistics import controls, losses, power

#: options of `run` that say which videos are meant, and what their classes are called
_OF_DATA = ("--root", "--list", "--classes", "--weights", "--weights-key")


def lines(
    rows: Sequence[Result], shown: Sequence[Cell], videos: pd.DataFrame, against: str, methods: Collection[str] = ()
) -> list[str]:
    """Return the notes of one context. rows: of the results table, sorted; shown: of `table.build`, in that order.

    methods: that lines of the table are of, if not of all; what is said of statistics is of all rows.
    """
    chosen = [i for i, row in enumerate(rows) if not methods or row["method"] in methods]
    own = [rows[i] for i in chosen]
    return [
        setup(rows[0]),
        *_clips_line(rows),
        *_problem_lines(rows),
        *_no_dense_line(rows),
        *Names(own).shared(),
        *_caveats(own),
        *(
            line
            for line in controls.control_lines([row for row in rows if row["status"] in MEASURED], videos)
            if not methods or line.split(maxsplit=1)[0] in methods
        ),
        *_test_lines(rows, shown, against),
        *_time_lines(rows, shown, against),
        *decoding.lines(rows),
        *_failures([shown[i] for i in chosen]),
    ]


def _caveats(rows: Sequence[Result]) -> list[str]:
    return [
        f"{CAVEAT} {name}: {text}" for name, text in sorted({(r["method"], r["caveat"]) for r in rows if r["caveat"]})
    ]


def _clips_line(rows: Sequence[Result]) -> list[str]:
    most, unread = max(row["n_clips"] for row in rows), max(row["n_failed"] for row in rows)
    expected = max(row["n_expected"] for row in rows)
    seen = f"{most} {kinds.unit(rows[0])}s"
    if rows[0]["protocol"] is not None:
        videos, views = max(judged(row) for row in rows), rows[0]["views"]
        seen = f"{videos} video{'s' * (videos != 1)}, {views} view{'s' * (views > 1)} each ({rows[0]['protocol']})"
    return [seen + f"; {unread} of {expected} could not be read" * bool(unread)]


def _no_dense_line(rows: Sequence[Result]) -> list[str]:
    """Say where the row that others are compared with is not there, as after its file was damaged."""
    compared = any(row["delta_pp"] is not None or row["speedup"] is not None for row in rows)
    if not compared or any(row["method"] == "dense" for row in rows):
        return []
    return ["dense has no row here, though differences and speed-ups are to it; `vpbench finish` derives rows anew"]


def _problem_lines(rows: Sequence[Result]) -> list[str]:
    """Say what of the data contradicts itself; what is odd about detections is counted with them."""
    if kinds.detects(rows[0]):
        return []
    found: dict[str, int] = {}
    for row in rows:
        found |= json.loads(row["problems"]) if row["problems"] else {}
    counted = ", ".join(f"{count} {kind}" for kind, count in found.items())
    odd = next((row for row in rows if row["problems"]), None)
    if odd is None:
        return []
    words = {word.partition("=")[0] for word in shlex.split(odd["command"])}
    file = next((option for option in ("--config", "--preset") if option in words), None)
    more = "" if file is None else f" (add what the {file} of the run says of the data)"
    return [f"data: {counted}; `{_check(odd)}`{more} names them"]


def _check(row: Result) -> str:
    """Return the command that looks through the data of a row, with what was said of them when it was measured."""
    typed = iter(shlex.split(row["command"]))
    parts = ["vpbench", "data", "check", row["dataset"]]
    for word in typed:
        option, equals, value = word.partition("=")
        if option in _OF_DATA:
            value = value if equals else next(typed, "")
            if value not in ("embedded", "random"):
                parts += [option, value]
    return shlex.join([*parts, "--split", row["split"]])


def _test_lines(rows: Sequence[Result], shown: Sequence[Cell], against: str) -> list[str]:
    measured = [row for row in rows if row["status"] in MEASURED]
    if not measured:
        return []
    if kinds.detects(rows[0]):
        return precision_lines(rows)
    if all(row["top1"] is None for row in measured):
        return ["top-1 unknown (no labels or no trained weights): compare by agreement with dense"]
    return [
        "intervals are 95 %: top-1 Wilson, differences bootstrap over videos, times bootstrap over rounds",
        _p_line(rows, shown, against),
        *(_loss_lines(measured, shown) if against == "dense" else []),
        *["~ no random cell within 1 % of the tokens: random curve interpolated at these GMACs, on the same videos"]
        * any(row["vs_random_interpolated"] for row in shown),
    ]


def _p_line(rows: Sequence[Result], shown: Sequence[Row], against: str) -> str:
    name, whom = ("p_holm", "dense") if against == "dense" else ("vs_random_p_holm", "random selection")
    known = [i for i, row in enumerate(shown) if row[name] is not None]
    tested = sum(not controls.is_control(rows[i]) for i in known) or len(known)
    if not tested:
        what = "of as many tokens " if against == "random" else ""
        return f"no p-values: no method was measured beside {whom} {what}on the same videos"
    what = " of as many tokens" if against == "random" else ""
    plural, apart = "s" * (tested != 1), ", controls apart" * (tested < len(known))
    return (
        f"p: McNemar's mid-p against {whom}{what}, Holm-corrected over {tested} comparison{plural}{apart}; * below "
        f"{ALPHA:g}"
    )


def _loss_lines(rows: Sequence[Result], shown: Sequence[Cell]) -> list[str]:
    """Say how the bounds of losses are to be read, and what so many videos can show."""
    bounded = [row for row in shown if row["no_loss"] is not None]
    if not bounded:
        return []
    free = sum(row["no_loss"] for row in bounded)
    resolution = power.line(rows)
    return [
        "loses at most: the loss against dense that is ruled out for all settings at once (for the controls likewise), "
        "by bootstrap and score test, Bonferroni",
        f"{NO_LOSS} no loss: below {losses.EPSILON_PP:g} pp; {free} of {len(bounded)} are",
        *([] if resolution is None else [resolution]),
    ]


def _time_lines(rows: Sequence[Result], shown: Sequence[Cell], against: str) -> list[str]:
    noisy = sum(bool(row["noisy"]) for row in rows)
    control = next((row for row in rows if row["method"] == "dense" and row["aa_ratio"] is not None), None)
    found = []
    if control is not None:
        interval = f"[{control['aa_ci_lo']:.3f}, {control['aa_ci_hi']:.3f}]"
        found.append(f"A/A control (dense against itself): {control['aa_ratio']:.3f} {interval}")
    paired = [row for row in shown if row["vs_random_gmacs"] is not None]
    if against == "random" and any(row["vs_random_speedup"] is None for row in paired):
        found.append("speed-up over random: only where both were timed in the same rounds")
    line = f"! {noisy} of {len(rows)} rows were timed on a noisy machine: no claim on their speed"
    bound = sum(bool(row["launch_bound"]) for row in rows)
    waits = (
        f"in {bound} of {len(rows)} rows the GPU waits for the host (launch_bound): try larger batches, or cudagraph"
    )
    return found + [line] * bool(noisy) + [waits] * bool(bound)


def _failures(shown: Sequence[Cell]) -> list[str]:
    return [
        f"{row['status']}: {method(row, ' ')}"
        + ("" if row["keep_nominal"] is None else f" keep={row['keep_nominal']:g}")
        + f": {row['reason'] or 'no reason recorded'}"
        for row in shown
        if row["status"] != "ok"
    ]


def precision_lines(rows: Sequence[Result]) -> list[str]:
    """Say how precision and its intervals are to be read."""
    known = next((row for row in rows if row["map50"] is not None), None)
    times = (
        "ms/frame and speed-up: from pixels to boxes, over windows of frames with their dense ones; transformer: "
        "without pyramid and head"
    )
    if known is None:
        return ["mAP50 unknown (no objects or no trained weights)", times]
    lines = [
        f"mAP50: {known['map_definition']}",
        "intervals are 95 %: precision and its paired differences bootstrap over videos, times bootstrap over rounds",
        times,
    ]
    if any(row["map50_slow"] is not None for row in rows):
        lines.append(
            "slow / medium / fast: mAP50 of objects by their overlap with themselves 10 frames around (over 0.9, "
            "between, under 0.7)"
        )
    return lines
