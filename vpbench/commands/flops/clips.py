"""A table of counts of one clip, beside published figures."""

from collections.abc import Iterator, Sequence, Set
from itertools import groupby

from vpbench.api.method import load_method
from vpbench.errors import UsageError
from vpbench.plan import Cell
from vpbench.rows import published
from vpbench.rows.published import WAYS
from vpbench.tasks.recognition.count import Count, _asked, backbone, counts

#: shares of the dense tokens at which methods are counted whose token count follows the clip
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.125)


def report(cells: Sequence[Cell], tokens: Sequence[int], preset: str, counter: str = "torch") -> Iterator[str]:
    """Yield a table of the cells' counts, dense first, with the published figures of the preset and the backbone."""
    model = backbone(cells[0].setting)
    adaptive = any(load_method(cell.method).adaptive for cell in cells)
    if tokens and not adaptive:
        raise UsageError("--tokens is for methods whose count follows the clip; these counts are fixed, leave it out")
    shares = tokens or [_asked(model, share) for share in SHARES]
    each_cell = [each for cell in cells if cell.match is None for each in counts(model, cell, shares, counter)]
    found, name = list(dict.fromkeys(each_cell)), cells[0].setting.backbone
    yield f"{name}: one clip, GMACs (multiply-accumulates / 1e9; papers print them as GFLOPs)"
    yield from _table(found, {each.convention for each in published.figures() if each.backbone == name}, counter)
    if adaptive:
        yield "at N tokens: the method's count follows the content of each clip; these are given, not found"
    yield from printed(name, preset)


def _table(found: Sequence[Count], conventions: Set[str], counter: str) -> Iterator[str]:
    """Yield the counts, dense first, and how they were counted."""
    ways = {way: WAYS[way] for way in WAYS if way == "fvcore" or way in conventions}
    columns = ["ours", "of dense", *(column for column, _ in ways.values()), f"{counter}'s"]
    wide, widths = max(len(each.label) for each in found), [max(9, len(column) + 2) for column in columns]
    yield " " * wide + "".join(map(str.rjust, columns, widths)) + "  tokens entering the blocks"
    for each in found:
        counted = {"fvcore": each.published_macs, "mmcv": each.mmcv, "rgtp": each.rgtp}
        words = [_giga(each.macs), f"{each.macs / found[0].macs:.3f}"]
        words += [_giga(counted[way]) for way in ways] + [_giga(each.operators)]
        line = f"{each.label:<{wide}}" + "".join(map(str.rjust, words, widths))
        yield f"{line}  {spell(each.attention)}; {each.mlp[-1]} leave the last attention"
    for column, meaning in ways.values():
        yield f"{column}: {meaning}"
    if "rgtp" in ways:
        views = published.VIEWS
        both = [(each.label, each.macs * views, each.rgtp * views) for each in found if each.rgtp]
        videos = ", ".join(f"{label} {_giga(ours)} / {_giga(theirs)}" for label, ours, theirs in both)
        yield f"a video of {views} views, ours / RGTP's way: {videos}"


def _giga(macs: int | None) -> str:
    return "" if macs is None else f"{macs / 1e9:.2f}"


def spell(tokens: Sequence[int]) -> str:
    """Write token counts shortly: `1568, 1056 x4, 800 x4`, or the first and last of a long list."""
    runs = [(n, len(list(same))) for n, same in groupby(tokens)]
    words = [f"{n} x{times}" if times > 1 else str(n) for n, times in runs]
    return ", ".join(words) if len(words) <= 6 else ", ".join([*words[:3], "...", *words[-2:]])


def printed(backbone: str, preset: str) -> Iterator[str]:
    """Yield a line for each published figure of a preset, and of what the dense backbone costs."""
    for figure in published.figures():
        cost = figure.metric.startswith("gmacs_per_") and figure.backbone == backbone
        if figure.preset == preset != "" or (cost and figure.method == "dense"):
            yield "published: " + said(figure)


def said(figure: published.Figure) -> str:
    """Write a published figure with its source in one line."""
    what = " ".join(part for part in (figure.method, figure.dataset) if part)
    way = figure.convention and f"{figure.convention}'s way"
    about = "; ".join(part for part in (figure.source, way, figure.note) if part)
    return f"{what} {figure.metric} {figure.value:g} ({about})"
