"""Where rows lose: by class, by motion, by how long places stand still."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
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
from vpbench.render.style import Page, style
from vpbench.render.tables.layout import Grid
from vpbench.rows.answers import answered
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls, strata
from vpbench.rows.statistics.intervals import FEWEST_VIDEOS
from vpbench.rows.statistics.strata import Groups, Where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "strata"
#: what groups are made by, and what that is
KINDS = {
    "class": "classes",
    "motion": "thirds of the videos by the mean difference of tubelets to those before, in normalised pixels",
    "still": "thirds of the videos by how many slots a place stands still on average, by RLT's rule (0.1)",
}
#: classes in a table, those that lose most
CLASSES = 20
#: panels of a figure
PANELS = 9


def of(stored: Stored) -> Iterator[Found]:
    """Yield parts for each context, one for each kind of groups."""
    for kind in KINDS:
        yield from each_context(f"{NAME}-{kind}", stored, partial(_part, stored, kind))


def _part(stored: Stored, kind: str, label: str, rows: Sequence[Result]) -> Part:
    answered(rows)  # or else that is the reason, not that clips have no such column
    groups = _groups(kind, rows, stored)
    found = strata.of(rows, stored.videos, groups)
    title, notes = f"where rows lose, by {kind}", _notes(found, groups)
    grid = _classes(found, groups, rows) if kind == "class" else _thirds(found, groups, rows)
    draw = _draw_classes if kind == "class" else _draw_thirds
    return Part(
        f"{NAME}-{kind}",
        label,
        title,
        rows,
        grid,
        notes,
        _frame(found, groups, label),
        lambda page: draw(found, groups, page),
    )


def _groups(kind: str, rows: Sequence[Result], stored: Stored) -> Groups:
    """Group videos by what any row says of them: what was predicted before it was stored does not say it."""
    newest = sorted(rows, key=lambda row: row["timestamp_utc"], reverse=True)
    said = [*newest[:1], *(row for row in newest if row["method"] == "dense")]
    if kind == "class":
        videos = stored.videos[stored.videos["config_id"].isin([row["config_id"] for row in said])]
        known = videos[videos["label_name"].notna()]
        return strata.classes((known if len(known) else videos).drop_duplicates("video_id"))
    return strata.thirds(stored.clips(said, "video_id", kind), kind)


def _thirds(found: Sequence[Where], groups: Groups, rows: Sequence[Result]) -> Grid:
    columns = naming([each.row for each in found], rows)
    for g, name in enumerate(groups.names):
        columns[f"{name.partition(' ')[0]} {groups.kind}\npp"] = [_cell(each, g) for each in found]
    columns["groups differ\np (Holm)"] = [f"{each.p_holm:.3f}" for each in found]
    return Grid(columns, {"method", SETTING}, [each.row["method"] for each in found])


def _cell(where: Where, group: int) -> str:
    own = where.groups[group]
    return "" if own is None else spanned(own.difference, "+.1f", star(own.p_holm))


def _harshest(found: Sequence[Where]) -> list[Where]:
    """Pick each method's setting with the fewest tokens: there losses are seen best."""
    fewest: dict[str, Where] = {}
    for each in sorted(found, key=lambda each: each.row["keep_realised"] or 1.0):
        fewest.setdefault(each.row["method"], each)
    kept = [each for each in found if each in fewest.values()]
    return sorted(kept, key=lambda each: controls.is_control(each.row))


def _worst(found: Sequence[Where], groups: Groups) -> list[int]:
    """Return groups in order of their mean loss, the largest first; those with too few videos are left out."""
    means = {}
    for g in range(len(groups.names)):
        known = [own.difference.value for each in found if (own := each.groups[g]) is not None]
        if known:
            means[g] = float(np.mean(known))
    return sorted(means, key=lambda g: (means[g], groups.names[g]))


def _classes(found: Sequence[Where], groups: Groups, rows: Sequence[Result]) -> Grid:
    shown = _harshest(found)
    worst = _worst(shown, groups)[:CLASSES]
    known = [next(own for each in shown if (own := each.groups[g]) is not None) for g in worst]
    columns = {
        "class": [groups.names[g] for g in worst],
        "videos": [str(own.videos) for own in known],
        "dense\n%": [f"{own.dense:.1f}" for own in known],
    }
    for name, each in zip(names([each.row for each in shown], rows), shown, strict=True):
        columns[f"{name}\npp"] = [_cell(each, g) for g in worst]
    return Grid(columns, {"class"}, columns["class"])


def _notes(found: Sequence[Where], groups: Groups) -> list[str]:
    tested = sum(own is not None for each in found if not controls.is_control(each.row) for own in each.groups)
    apart = [each for each in found if each.p_holm < 0.05]
    lines = [f"differences to dense on the same videos, by {KINDS[groups.kind]}"]
    if groups.kind != "class":
        sizes = np.bincount(groups.of[groups.of >= 0], minlength=len(groups.names))
        lines.append("; ".join(f"{name}: {n} videos" for name, n in zip(groups.names, sizes.tolist(), strict=True)))
    lines += [
        f"intervals hold for all {tested} at once (Tango's, Bonferroni, 95 %), controls apart; * McNemar's mid-p below "
        "0.05 after Holm over as many (a sharper test than the intervals, which may hold 0 beside a star)",
        "groups differ: against random assignments of the videos to groups, after Holm over rows; without it, no star "
        "says that a row loses more there than elsewhere" + ("" if groups.kind != "class" else f": {_named(apart)}"),
    ]
    if groups.kind == "class":
        shown = _worst(_harshest(found), groups)
        lines.append("each method at its fewest tokens; csv has all settings")
        lines += [f"the {CLASSES} of {len(shown)} classes that lose most; csv has all"] * (len(shown) > CLASSES)
        few = len(groups.names) - len(shown)
        lines += [f"{few} classes have fewer than {FEWEST_VIDEOS} videos and are left out"] * (few > 0)
    return [*lines, *caveats([each.row for each in found])]


def _named(found: Sequence[Where]) -> str:
    said = names([each.row for each in found], [each.row for each in found]) if found else []
    return ", ".join(f"{name} (p {each.p_holm:.3f})" for name, each in zip(said, found, strict=True)) or "none shown"


def _frame(found: Sequence[Where], groups: Groups, label: str) -> pd.DataFrame:
    rows = []
    for each in found:
        for name, own in zip(groups.names, each.groups, strict=True):
            if own is None:
                continue
            line = numbers(each.row, label) | {"by": groups.kind, "group": name, "videos": own.videos}
            line |= {"dense_top1": own.dense, "lost": own.lost, "gained": own.gained, "delta_pp": own.difference.value}
            line |= {"delta_pp_lo": own.difference.lo, "delta_pp_hi": own.difference.hi, "p_holm": own.p_holm}
            rows.append(line | {"groups_differ_p_holm": each.p_holm})
    return pd.DataFrame(rows)


def _draw_thirds(found: Sequence[Where], groups: Groups, page: Page) -> "Figure":
    """Draw a panel per method: groups side by side, the settings of the method from few tokens (pale) to many."""
    by_id, rows = {each.row["config_id"]: each for each in found}, [each.row for each in found]
    grouped = list(curves(rows).items())
    shown, looked = grouped[:PANELS], looks(rows, page)
    with style(page):
        figure, axes = sheet.sheet(page, page.wide, len(shown), sharey=True, sharex=True)
        for axis, (name, curve) in zip(axes, shown, strict=True):
            for number, row in enumerate(curve):
                own = [each for each in by_id[row["config_id"]].groups if each is not None]
                if len(own) < len(groups.names):
                    continue
                x = np.arange(len(own)) + 0.5 * ((number + 0.5) / len(curve) - 0.5)
                ends = [each.difference for each in own]
                bars = [[each.value - each.lo for each in ends], [each.hi - each.value for each in ends]]
                drawn = looked[row["config_id"]] | {"alpha": 0.35 + 0.65 * (number + 1) / len(curve)}
                axis.errorbar(x, [each.value for each in ends], yerr=bars, elinewidth=0.6 * page.stroke, **drawn)
            axis.axhline(0, color="black", linewidth=0.7 * page.stroke)
            axis.set_title(name)
            axis.set_xticks(range(len(groups.names)), [each.partition(" ")[0] for each in groups.names])
        for axis in axes[:: 2 if len(shown) == 4 else 3]:
            axis.set_ylabel("vs dense, pp")
        left = len(grouped) - len(shown)
        text = caption(rows, f"By {groups.kind}: {KINDS[groups.kind]}.",
                       "Bars hold for all at once, 95 %. Pale: few tokens.",
                       f"{left} more methods are not drawn." if left else "")  # fmt: skip
        sheet.finish(figure, axes, text, page)
        return figure


def _draw_classes(found: Sequence[Where], groups: Groups, page: Page) -> "Figure":
    """Draw a panel per method at its fewest tokens: a bar per class, those that lose most on average first."""
    harshest = _harshest(found)
    shown, rows = harshest[:PANELS], [each.row for each in found]
    worst, looked = _worst(harshest, groups)[:CLASSES], looks(rows, page)
    with style(page):
        figure, axes = sheet.sheet(page, page.wide, len(shown), across=1, sharex=True, sharey=True)
        if page.height is None:
            figure.set_figheight(0.75 * len(shown) + 0.8)
        for axis, each, name in zip(axes, shown, names([each.row for each in shown], rows), strict=True):
            for at, g in enumerate(worst):
                own = each.groups[g]
                if own is None:
                    continue
                axis.bar(at, own.difference.value, color=looked[each.row["config_id"]]["color"], width=0.75)
                if star(own.p_holm):
                    axis.annotate("*", (at, own.difference.value), ha="center", va="top")
            axis.axhline(0, color="black", linewidth=0.7 * page.stroke)
            axis.margins(y=0.2)
            axis.set_title(name, loc="left")
            axis.grid(visible=False, axis="x")
        axes[-1].set_xticks(range(len(worst)), [groups.names[g] for g in worst], rotation=90)
        axes[len(axes) // 2].set_ylabel("vs dense, pp")
        total, left = len(_worst(harshest, groups)), len(harshest) - len(shown)
        text = caption(rows, f"By class, {len(worst)} of {total}; each method at its fewest tokens.",
                       "* significant after Holm over all settings and classes.",
                       f"{left} more methods are not drawn." if left else "")  # fmt: skip
        sheet.finish(figure, axes, text, page)
        return figure
