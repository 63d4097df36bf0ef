"""Whether methods keep the same tokens: a matrix of overlap above chance, and that with motion and the centre."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vpbench.render.analyses.part import SETTING, Found, Part, Stored, caveats, each_context, names, naming, numbers
from vpbench.render.figures import sheet
from vpbench.render.points import caption, curves, spread
from vpbench.render.style import Page, style
from vpbench.render.tables.layout import Grid
from vpbench.rows.names import own_params
from vpbench.rows.schema import Result
from vpbench.rows.statistics import overlap
from vpbench.rows.statistics.intervals import Floats
from vpbench.rows.statistics.overlap import Kept

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "overlap"
#: rows that are compared at most; of more so many, evenly spread
MOST = 40
#: how many times as many tokens another method's setting may have
NEAR = 1.5


def of(stored: Stored) -> Iterator[Found]:
    """Yield a part for each context."""

    def make(label: str, rows: Sequence[Result]) -> Part:
        measured = [row for row in rows if row["keep_realised"] is not None]
        found = overlap.of(spread(measured, MOST), stored.shown)
        title, notes = "overlap of kept tokens above chance", _notes(found, measured)
        return Part(
            NAME, label, title, rows, _grid(found), notes, _frame(found, label), lambda page: _draw(found, page)
        )

    return each_context(NAME, stored, make)


def _grid(found: Kept) -> Grid:
    columns = {
        **naming(found.rows, found.rows),
        "kept\ntokens": [f"{each:.0f}" for each in found.counts.mean(axis=1)],
        "motion": [_cell(each) for each in found.motion],
        "centre": [_cell(each) for each in found.centre],
    }
    for name, partner in (("own,\nother keep", _next_keep), ("own,\nother seed", _next_seed)):
        pairs = [partner(i, found) for i in range(len(found.rows))]
        columns[name] = ["" if j is None else _cell(found.above[i, j]) for i, j in enumerate(pairs)]
    for method in dict.fromkeys(row["method"] for row in found.rows):
        pairs = [_like(i, method, found) for i in range(len(found.rows))]
        columns[method] = ["" if j is None else _cell(found.above[i, j]) for i, j in enumerate(pairs)]
    told = {name: cells for name, cells in columns.items() if any(cells)}
    return Grid(told, {"method", SETTING}, [row["method"] for row in found.rows])


def _cell(clips: Floats) -> str:
    """Write the mean over clips, and the least and the most of them; nothing where it is undefined in all."""
    known = clips[~np.isnan(clips)]
    if not known.size:
        return ""
    mean, least, most = (round(float(end), 2) + 0.0 for end in (known.mean(), known.min(), known.max()))  # no -0.00
    return f"{mean:+.2f}\n[{least:+.2f}, {most:+.2f}]"


def _next_keep(i: int, found: Kept) -> int | None:
    """Return the row of the same method and seed with the next fewer tokens."""
    own, counts = found.rows[i], found.counts.mean(axis=1)
    fewer = [
        j
        for j, row in enumerate(found.rows)
        if (row["method"], row["seed"]) == (own["method"], own["seed"]) and counts[j] < counts[i]
    ]
    return max(fewer, key=lambda j: counts[j], default=None)


def _next_seed(i: int, found: Kept) -> int | None:
    """Return the row of the same setting with the next seed."""
    own = found.rows[i]
    others = [j for j, row in enumerate(found.rows) if _setting(row) == _setting(own) and row["seed"] != own["seed"]]
    later = [j for j in others if found.rows[j]["seed"] > own["seed"]]
    return min(later or others, key=lambda j: found.rows[j]["seed"], default=None)


def _setting(row: Result) -> tuple[str, float | None, str]:
    return row["method"], row["keep_nominal"], str(sorted(own_params(row).items()))


def _like(i: int, method: str, found: Kept) -> int | None:
    """Return the row of another method that keeps about as many tokens, of the same seed if there is any; or None."""
    own, counts = found.rows[i], found.counts.mean(axis=1)
    others = [
        j
        for j, row in enumerate(found.rows)
        if row["method"] == method != own["method"] and max(counts[i], counts[j]) <= NEAR * min(counts[i], counts[j])
    ]
    return min(others, key=lambda j: (abs(counts[j] - counts[i]), found.rows[j]["seed"] != own["seed"]), default=None)


def _notes(found: Kept, measured: Sequence[Result]) -> list[str]:
    clips, left = len(found.clips), len(measured) - len(spread(measured, MOST))
    gone = ", ".join(dict.fromkeys(row["method"] for row in found.left_out))
    return [
        f"intersection over union of the sets of tokens left at the end, of {found.tokens}, above chance: 1 as far as "
        "their sizes allow (one holds the other), 0 as if drawn at random, below 0 where they avoid each other",
        f"mean of the {clips} clips that were followed, the first of the split, and in brackets the least and the most "
        "of them: what is seen, with no claim on others",
        "motion: with as many tokens that differ most from the slot before; centre: with as many nearest the middle",
        f"columns of methods: with that method's setting of most nearly as many tokens, none beyond {NEAR:g} times as "
        "many; own: with its next fewer tokens, and with another seed",
        "what a method always keeps (RLT and tdiff all of the first slot, RGTP dense frames) counts as overlap; of "
        "merged tokens the one that stands for all is kept",
        *[f"not compared: {gone}, which leave smaller or fewer frames"] * bool(gone),
        *[f"{left} more settings are not compared"] * (left > 0),
        *caveats(found.rows),
    ]


def _frame(found: Kept, label: str) -> pd.DataFrame:
    rows = []
    means = {name: _mean(getattr(found, name)) for name in ("above", "iou", "motion", "centre")}
    for i, first in enumerate(found.rows):
        own = numbers(first, label) | {"clips": len(found.clips), "kept": float(found.counts[i].mean())}
        rows += [own | {"with": name, "above_chance": means[name][i]} for name in ("motion", "centre")]
        for j, second in enumerate(found.rows):
            if j > i:
                pair = {"with": second["config_id"], "with_method": second["method"], "iou": means["iou"][i, j]}
                rows.append(own | pair | {"with_keep": second["keep_nominal"], "above_chance": means["above"][i, j]})
    return pd.DataFrame(rows)


def _mean(clips: Floats) -> Floats:
    """Return the mean over clips where it is defined, NaN where it is in none."""
    known = ~np.isnan(clips)
    number = known.sum(axis=-1)
    total = np.where(known, clips, 0.0).sum(axis=-1)
    return np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0)


def _draw(found: Kept, page: Page) -> "Figure":
    at = [found.rows.index(row) for curve in curves(found.rows).values() for row in curve]
    above = _mean(found.above)[np.ix_(at, at)]
    beside = np.stack([_mean(found.motion)[at], _mean(found.centre)[at]])
    labels = names([found.rows[i] for i in at], found.rows)
    with style(page):
        figure, [axis] = sheet.sheet(page, page.wide, 1)
        if page.height is None:
            figure.set_figheight(0.17 * (len(at) + 2) + 1.2)
        shown = np.concatenate([beside, above])
        image = axis.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        axis.axhline(1.5, color="black", linewidth=0.8 * page.stroke)
        axis.set_yticks(range(len(shown)), ["motion", "centre", *labels])
        axis.set_xticks(range(len(at)), labels, rotation=90)
        axis.grid(visible=False)
        figure.colorbar(image, ax=axis, label="overlap above chance", pad=0.01)
        said = f"Mean of {len(found.clips)} clips. 1: as far as sizes allow; 0: as by chance; empty: no choice."
        text = caption(found.rows, said)
        sheet.finish(figure, [axis], text, page)
        return figure
