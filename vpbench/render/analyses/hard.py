"""Accuracy on hard videos, beside accuracy on the others."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from vpbench.render.analyses.part import (
    SETTING,
    Found,
    Part,
    Stored,
    caveats,
    each_context,
    looks,
    names,
    naming,
    numbers,
    spanned,
    star,
)
from vpbench.render.figures import sheet
from vpbench.render.points import caption, curves
from vpbench.render.style import Page, look, style
from vpbench.render.tables.layout import Grid
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls, hard
from vpbench.rows.statistics.hard import Hard
from vpbench.rows.statistics.intervals import FEWEST_VIDEOS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "hard"


def of(stored: Stored) -> Iterator[Found]:
    """Yield a part for each context."""

    def make(label: str, rows: Sequence[Result]) -> Part:
        found = hard.of(rows, stored.videos)
        title, notes = "accuracy on hard videos", _notes(found)
        return Part(
            NAME, label, title, rows, _grid(found, rows), notes, _frame(found, label), lambda page: _draw(found, page)
        )

    return each_context(NAME, stored, make)


def _grid(found: Sequence[Hard], rows: Sequence[Result]) -> Grid:
    shown = [each.row for each in found]
    apart = [each.control for each in found]
    columns = {
        **naming(shown, rows),
        "hard by": [
            f"{name}{' (luck)' if each.luck else ''}" for name, each in zip(names(apart, rows), found, strict=True)
        ],
        "hard\nvideos": [str(each.hard.videos) for each in found],
        "top-1 there\n%": [spanned(each.hard.top1, ".1f") for each in found],
        "dense there\n%": [f"{each.hard.dense.value:.1f}" for each in found],
        "vs dense there\npp": [spanned(each.hard.difference.delta_pp, "+.1f", star(each.p_holm)) for each in found],
        "top-1 elsewhere\n%": ["" if each.easy is None else f"{each.easy.top1.value:.1f}" for each in found],
        "vs dense elsewhere\npp": [
            "" if each.easy is None else spanned(each.easy.difference.delta_pp, "+.1f") for each in found
        ],
    }
    return Grid(columns, {"method", SETTING, "hard by"}, [row["method"] for row in shown])


def _notes(found: Sequence[Hard]) -> list[str]:
    tested = sum(not controls.is_control(each.row) for each in found) or len(found)
    *others, last = hard.CHEAPEST
    return [
        f"hard: what the cheapest control with as many tokens (within {hard.NEAR:.0%}) gets wrong: "
        f"{', else '.join(others)}, else {last}; the control itself is never right there, and has no line",
        "all of it is conditional on that control's errors: rows of one control compare with each other and with "
        "dense, not with accuracy on all videos, and whatever answers like the control is low by construction",
        *["(luck): another draw of its control, which is right there by luck alone"] * any(each.luck for each in found),
        f"vs dense: on the same videos, 95 % by bootstrap; * McNemar's mid-p below 0.05 after Holm over {tested}, "
        "controls apart",
        f"rows with fewer than {FEWEST_VIDEOS} hard videos, or without such a control, are left out",
        *caveats([each.row for each in found]),
    ]


def _frame(found: Sequence[Hard], label: str) -> pd.DataFrame:
    rows = []
    for each in found:
        own, easy = each.hard, each.easy
        line = numbers(each.row, label) | {"hard_by": each.control["config_id"], "luck": each.luck}
        line |= {"hard_videos": own.videos, "hard_top1": own.top1.value, "hard_top1_lo": own.top1.lo}
        line |= {"hard_top1_hi": own.top1.hi, "hard_dense_top1": own.dense.value}
        delta = own.difference.delta_pp
        line |= {"hard_delta_pp": delta.value, "hard_delta_pp_lo": delta.lo, "hard_delta_pp_hi": delta.hi}
        line |= {"hard_p_mid": own.difference.p_mid, "hard_p_holm": each.p_holm}
        line |= {"other_videos": easy and easy.videos, "other_top1": easy and easy.top1.value}
        line |= {"other_delta_pp": easy and easy.difference.delta_pp.value}
        rows.append(line)
    return pd.DataFrame(rows)


def _draw(found: Sequence[Hard], page: Page) -> "Figure":
    by_id = {each.row["config_id"]: each for each in found}
    looked = looks([each.row for each in found], page)
    with style(page):
        figure, axes = sheet.sheet(page, page.wide, 2, across=2, sharex=True)
        for axis, side in zip(axes, ("hard", "easy"), strict=True):
            for name, curve in curves([each.row for each in found]).items():
                own = [by_id[row["config_id"]] for row in curve]
                points = [(each, part) for each in own if (part := getattr(each, side)) is not None]
                tops = [part.top1 for _, part in points]
                bars = [[top.value - top.lo for top in tops], [top.hi - top.value for top in tops]]
                x = [each.row["keep_realised"] for each, _ in points]
                axis.errorbar(
                    x,
                    [top.value for top in tops],
                    yerr=bars,
                    elinewidth=0.6 * page.stroke,
                    label=name,
                    **looked[curve[0]["config_id"]],
                )
            sets = {
                each.control["config_id"]: (each, part) for each in found if (part := getattr(each, side)) is not None
            }
            axis.plot(
                [each.control["keep_realised"] for each, _ in sets.values()],
                [part.dense.value for _, part in sets.values()],
                label="dense",
                **look("dense", page),
            )
            axis.set_xlabel("tokens kept, over all layers")
        axes[0].set_ylabel("top-1 on hard videos, %")
        axes[1].set_ylabel("top-1 on the others, %")
        sheet.finish(figure, axes, _caption(found), page)
        return figure


def _caption(found: Sequence[Hard]) -> str:
    videos = sorted({each.hard.videos for each in found})
    kinds = ", ".join(dict.fromkeys(each.control["method"] for each in found))
    span = str(videos[0]) if len(videos) == 1 else f"{videos[0]} to {videos[-1]}"
    return caption(
        [each.row for each in found],
        f"Hard: the {span} videos that {kinds} of as many tokens gets wrong, which has no point itself.",
        "Bars: Wilson, 95 %. Dense, at the control's tokens, on the same videos.",
    )
