"""Whether pruning costs as much over many views of a video as on one."""

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
    naming,
    numbers,
    spanned,
)
from vpbench.render.figures import sheet
from vpbench.render.points import caption, curves
from vpbench.render.style import Page, look, style
from vpbench.render.tables.layout import Grid
from vpbench.rows.schema import Result
from vpbench.rows.statistics import views
from vpbench.rows.statistics.views import Ensemble

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "views"
#: panels of a figure
PANELS = 9


def of(stored: Stored) -> Iterator[Found]:
    """Yield a part for each context."""

    def make(label: str, rows: Sequence[Result]) -> Part:
        if max(row["views"] for row in rows) < 2:  # said before the largest table is read
            return _part(views.of(rows, pd.DataFrame(), stored.videos), rows, label)
        clips = stored.clips(rows, "video_id", "view", "pred", "correct")
        return _part(views.of(rows, clips, stored.videos), rows, label)

    return each_context(NAME, stored, make)


def _part(found: Sequence[Ensemble], rows: Sequence[Result], label: str) -> Part:
    title, notes = "accuracy over views", _notes(found)
    return Part(
        NAME, label, title, rows, _grid(found, rows), notes, _frame(found, label), lambda page: _draw(found, page)
    )


def _grid(found: Sequence[Ensemble], rows: Sequence[Result]) -> Grid:
    counts = found[0].counts
    columns = {
        **naming([each.row for each in found], rows),
        "one view\n%": [spanned(each.single, ".1f") for each in found],
    }
    for at, count in enumerate(counts):
        if count > 2:  # of two views that differ half are right: as with one
            columns[f"{count} vote\n%"] = [f"{each.votes[at]:.1f}" for each in found]
    columns |= {
        f"{counts[-1]} averaged\n%": [spanned(each.averaged, ".1f") for each in found],
        "vs dense, one\npp": [spanned(i, "+.1f") if (i := each.single_pp) else "" for each in found],
        "vs dense, all\npp": [spanned(i, "+.1f") if (i := each.averaged_pp) else "" for each in found],
        "all less one\npp": [spanned(i, "+.1f") if (i := each.shift_pp) else "" for each in found],
    }
    return Grid(columns, {"method", SETTING}, [each.row["method"] for each in found])


def _notes(found: Sequence[Ensemble]) -> list[str]:
    total = found[0].counts[-1]
    return [
        f"one view: each of the {total} by itself, on average; averaged: their scores, as the protocol averages them",
        f"vote: the most frequent answer of so many views, on average over {views.ORDERS} choices; scores of single "
        "views are not stored, and votes come out below averages of as many",
        "all less one: above 0, pruning costs less over all views than on one; intervals are 95 %, bootstrap over "
        "videos, not corrected for the number of rows",
        *caveats([each.row for each in found]),
    ]


def _frame(found: Sequence[Ensemble], label: str) -> pd.DataFrame:
    rows = []
    for each in found:
        line = numbers(each.row, label)
        for name in ("single", "averaged", "single_pp", "averaged_pp", "shift_pp"):
            own = getattr(each, name)
            line |= {name: own and own.value, f"{name}_lo": own and own.lo, f"{name}_hi": own and own.hi}
        line |= {f"vote_{count}": vote for count, vote in zip(each.counts, each.votes, strict=True)}
        rows.append(line)
    return pd.DataFrame(rows)


def _draw(found: Sequence[Ensemble], page: Page) -> "Figure":
    """Draw a panel per method: accuracy over the number of views, its settings from few tokens (pale) to many."""
    by_id, rows = {each.row["config_id"]: each for each in found}, [each.row for each in found]
    dense, grouped = found[0], list(curves(rows).items())
    shown, looked = grouped[:PANELS], looks(rows, page)
    with style(page):
        figure, axes = sheet.sheet(page, page.wide, max(1, len(shown)), sharex=True, sharey=True)
        for axis, (name, curve) in zip(axes, shown or [("dense", [])], strict=True):
            star = look("dense", page)
            axis.plot(
                dense.counts, dense.votes, color=star["color"], linestyle=":", label="dense", linewidth=page.stroke
            )
            axis.plot([dense.counts[-1]], [dense.averaged.value], **star)
            for number, row in enumerate(curve):
                own = by_id[row["config_id"]]
                drawn = looked[row["config_id"]] | {"alpha": 0.35 + 0.65 * (number + 1) / len(curve)}
                axis.plot(own.counts, own.votes, **drawn | {"marker": "none"})
                axis.plot([own.counts[-1]], [own.averaged.value], **drawn | {"linestyle": "none"})
            axis.set_title(name)
            axis.set_xscale("log")
            axis.minorticks_off()
            axis.set_xticks(dense.counts, [str(count) for count in dense.counts])
            axis.set_xlabel("views")
        axes[0].set_ylabel("top-1, %")
        left = len(grouped) - len(shown)
        text = caption(rows, "Lines: votes of so many views; markers: averaged scores of all. Pale: few tokens.",
                       f"{left} more methods are not drawn." if left else "")  # fmt: skip
        sheet.finish(figure, axes, text, page)
        return figure
