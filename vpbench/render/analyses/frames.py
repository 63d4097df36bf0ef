"""Frames at a fixed budget of tokens: more of them pruned harder, or fewer dense."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from vpbench.errors import NothingMeasured
from vpbench.render.analyses.part import Found, Missing, Part, Stored, caveats, looks, names, numbers, spanned, star
from vpbench.render.figures import sheet
from vpbench.render.points import curves
from vpbench.render.style import Page, look, style
from vpbench.render.tables.columns import three_digits
from vpbench.render.tables.layout import Grid
from vpbench.rows.contexts import MEASURED, setup, top1_interval
from vpbench.rows.schema import Result
from vpbench.rows.statistics import budgets
from vpbench.rows.statistics.budgets import Spent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "frames"
#: budgets that are drawn at most
PANELS = 6


def of(stored: Stored) -> Iterator[Found]:
    """Yield a part for each group of contexts that differ in the number of frames alone."""
    groups = budgets.joined(stored.results)
    if not groups and stored.results["status"].isin(MEASURED).any():
        yield Missing(NAME, "", "clips of one length were measured; sweep with --budget-tokens and several --frames")
    for group in groups:
        label = f"{group[0]['backbone']} {group[0]['dataset']}" if len(groups) > 1 else ""
        try:
            found = budgets.of(group, stored.videos)
        except NothingMeasured as error:
            yield Missing(NAME, label, str(error))
            continue
        yield _part(found, label)


def _part(found: Sequence[Spent], label: str) -> Part:
    title, rows = "frames at a budget of tokens", [each.row for each in found]
    return Part(
        NAME, label, title, rows, _grid(found), _notes(found), _frame(found, label), lambda page: _draw(found, page)
    )


def _grid(found: Sequence[Spent]) -> Grid:
    rows = [each.row for each in found]
    columns = {
        "budget\ntokens": [str(each.tokens) for each in found],
        "method": [_method(row, name) for row, name in zip(rows, names(rows, rows), strict=True)],
        "frames": [str(row["frames"]) for row in rows],
        "positions": [row["positions"] or "trained" for row in rows],
        "keep\nrealised": [f"{row['keep_realised']:.3f}" for row in rows],
        "GMACs": [f"{row['gmacs_executed']:.3g}" for row in rows],
        "ms/clip": ["" if (ms := row["wall_ms_p50"]) is None else f"{ms:{three_digits(ms)}}" for row in rows],
        "top-1\n%": [spanned(top1, ".1f") if (top1 := top1_interval(row)) else "" for row in rows],
        "vs dense of the budget\npp": [
            "" if each.difference is None else spanned(each.difference.delta_pp, "+.1f", star(each.p_holm))
            for each in found
        ],
    }
    told = {name: cells for name, cells in columns.items() if any(cells)}
    return Grid(told, {"method", "positions"}, columns["budget\ntokens"])


def _method(row: Result, name: str) -> str:
    """Name a row without its keep ratio, which follows from its frames."""
    keep = "" if row["keep_nominal"] is None else f"{row['keep_nominal']:g}"
    return " ".join(part for part in name.split(" ") if part != keep)


def _notes(found: Sequence[Spent]) -> list[str]:
    tested = sum(each.difference is not None for each in found)
    alone = [each.tokens for each in found if each.row["method"] == "dense"]
    without = sorted({each.tokens for each in found} - set(alone))
    rows = [each.row for each in found]
    strides = sorted({row["stride"] for row in rows})
    return [
        "budget: the keep ratio asked for times the tokens of a dense clip; methods that drop tokens late spend more "
        "on the way (keep realised, GMACs)",
        f"frames are taken by protocol {rows[0]['protocol']}, at stride {', '.join(map(str, strides))}: unless that "
        "spans the video, more frames also show more of it",
        "positions: as trained, or of other lengths interpolated or recomputed",
        *[
            "vs dense of the budget: dense with exactly these tokens, on the same videos; 95 % by bootstrap; * "
            f"McNemar's mid-p below 0.05 after Holm over {tested} rows, controls apart"
        ]
        * bool(tested),
        *[f"no dense clip has exactly {', '.join(map(str, without))} tokens: nothing to compare with there"]
        * bool(without),
        *caveats(rows),
    ]


def _frame(found: Sequence[Spent], label: str) -> pd.DataFrame:
    rows = []
    for each in found:
        row, delta = each.row, each.difference and each.difference.delta_pp
        line = numbers(row, label) | {
            "budget_tokens": each.tokens,
            "frames": row["frames"],
            "positions": row["positions"],
        }
        line |= {"gmacs": row["gmacs_executed"], "ms_per_clip": row["wall_ms_p50"], "top1": row["top1"]}
        line |= {
            "delta_pp": delta and delta.value,
            "delta_pp_lo": delta and delta.lo,
            "delta_pp_hi": delta and delta.hi,
        }
        rows.append(line | {"p_holm": each.p_holm})
    return pd.DataFrame(rows)


def _draw(found: Sequence[Spent], page: Page) -> "Figure":
    sizes = list(dict.fromkeys(each.tokens for each in found))[:PANELS]
    rows = [each.row for each in found]
    looked, lengths = looks(rows, page), sorted({row["frames"] for row in rows})
    with style(page):
        figure, axes = sheet.sheet(page, page.wide, len(sizes), sharey=True)
        for axis, tokens in zip(axes, sizes, strict=True):
            own = [each.row for each in found if each.tokens == tokens]
            for name, curve in curves(own).items():
                curve = sorted(curve, key=lambda row: row["frames"])
                _line(axis, curve, name, looked[curve[0]["config_id"]], page)
            if whole := [row for row in own if row["method"] == "dense"]:
                _line(axis, whole, "dense", look("dense", page), page)
            axis.set_xscale("log")
            axis.minorticks_off()
            axis.set_xticks(lengths, [str(length) for length in lengths])
            axis.set_xlim(lengths[0] / 1.2, lengths[-1] * 1.2)
            axis.set_title(f"{tokens} tokens")
            axis.set_xlabel("frames")
        axes[0].set_ylabel("top-1, %")
        kinds = ", ".join(sorted({row["positions"] for row in rows if row["positions"]}))
        text = f"{setup(rows[0])}. Clips of more frames pruned harder, to as many tokens. Bars: Wilson, 95 %."
        sheet.finish(figure, axes, text + f" Positions of other lengths: {kinds}." * bool(kinds), page)
        return figure


def _line(axis: "Axes", curve: Sequence[Result], name: str, looked: dict[str, Any], page: Page) -> None:
    tops = [top for row in curve if (top := top1_interval(row)) is not None]
    bars = [[top.value - top.lo for top in tops], [top.hi - top.value for top in tops]]
    x, y = [row["frames"] for row in curve], [top.value for top in tops]
    axis.errorbar(x, y, yerr=bars, elinewidth=0.6 * page.stroke, label=name, **looked)
