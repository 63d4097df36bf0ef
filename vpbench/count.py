"""Count multiply-accumulates of settings without weights and without data: backbones on the meta device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from vpbench import published, registry
from vpbench.api import Backbone, Clip, ClipBatch, Method, Pruner, SingleStream
from vpbench.backbones.catalog import CATALOG
from vpbench.backbones.models import construct
from vpbench.errors import UsageError, VpbenchError
from vpbench.measure.flops import by_operator, operators
from vpbench.plan import Cell, Setting
from vpbench.session import at_keep

#: shares of the dense tokens at which methods are counted whose token count follows the clip
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.125)

#: operations that fvcore charges for each element of a layer norm
NORM_OPERATIONS = 5


@dataclass(frozen=True)
class Count:
    """Multiply-accumulates of one clip at one setting.

    `attention`, `mlp`: tokens per block; `macs`: our closed form; `published_macs`: as most papers count, fvcore's way:
    layer norms at 5 per element and the method's products as its published code executes them; `operators`: what
    an operator counter saw on the meta device, `mmcv` what mmcv's would have seen there and `rgtp` what RGTP's
    does, all None where the tokens were given instead of found by a forward, or the backbone cannot say.
    """

    label: str
    attention: tuple[int, ...]
    mlp: tuple[int, ...]
    macs: int
    published_macs: int
    operators: int | None
    mmcv: int | None
    rgtp: int | None


def backbone(setting: Setting) -> Backbone:
    """Build the backbone of a setting on the meta device: sizes without numbers."""
    with torch.device("meta"):
        model = construct(CATALOG[setting.backbone].config).eval().requires_grad_(False)
        if setting.frames or setting.size:
            model.resize(setting.frames, setting.size, setting.positions)
    return model


def counts(model: Backbone, cell: Cell, tokens: Sequence[int], counter: str | None = "torch") -> list[Count]:
    """Count one cell; a method whose token count follows the clip is counted at each of the given `tokens` instead.

    counter: `torch` or `fvcore`, what to compare the closed form with; None counts no operators. Raises UsageError for
    parameters that do not fit the backbone, for token counts that the method cannot leave, and for adaptive methods
    that reduce tokens inside blocks, whose counts only clips can tell; VpbenchError for an operator that the counter
    would miss.
    """
    kind = registry.load_method(cell.method)
    if not model.plain and not kind.keeps_grid:
        raise UsageError(f"{cell.label} cannot run on {cell.setting.backbone}: it would leave holes in its token grid")
    method = kind(**dict(cell.params))
    if kind.adaptive:
        return [_given(model, method, cell, n) for n in ([_asked(model, cell.keep)] if cell.keep else tokens)]
    if cell.keep is not None:
        method = at_keep(method, cell, model, ())
    pruner = _attach(model, method, cell.label)
    config = model.config
    pixels = torch.empty(1, config.frames, config.height, config.width, 3, dtype=torch.uint8, device="meta")
    batch = ClipBatch(pixels, ("clip",), (0,))
    with torch.inference_mode():
        out = model(batch, pruner)
    attention, mlp = tuple(c.attention[0] for c in out.counts), tuple(c.mlp[0] for c in out.counts)
    ours = out.macs[0] + pruner.macs(attention)
    theirs = out.macs[0] + NORM_OPERATIONS * out.normalised[0] + pruner.published_macs(attention)
    rgtp = out.macs[0] - out.embedding[0] + out.added[0] + pruner.published_macs(attention) if out.added else None
    if counter is None:
        return [Count(cell.label, attention, mlp, ours, theirs, None, None, rgtp)]
    seen = operators(lambda: model(batch, pruner))
    if seen.uncounted:
        raise VpbenchError(f"{cell.label}: the operator counter takes {', '.join(sorted(seen.uncounted))} for free")
    watched = seen.macs if counter == "torch" else sum(by_operator(model, batch, pruner).values())
    return [Count(cell.label, attention, mlp, ours, theirs, watched, seen.mmcv, rgtp)]


def _given(model: Backbone, method: Method, cell: Cell, tokens: int) -> Count:
    pruner = _attach(model, method, cell.label)
    if type(pruner).video is Pruner.video:
        raise UsageError(
            f"{cell.method}'s token count follows the content inside the network and needs clips: add --clip for one, "
            "or measure it with `vpbench run`"
        )
    if not isinstance(model, SingleStream):
        raise UsageError(
            f"what {cell.method} costs on {cell.setting.backbone} depends on how its tokens fall on the steps of a "
            "clip: add --clip for one, or measure it with `vpbench run`"
        )
    if not 0 < tokens <= model.grid.tokens:
        raise UsageError(f"{tokens} tokens are outside 1 to {model.grid.tokens}, the tokens of a dense clip")
    if cell.keep is None:
        method.at_keep(tokens / model.grid.tokens, model, _blank(model))
    else:
        at_keep(method, cell, model, _blank(model))
    every = (tokens,) * model.depth
    # no parameters in the label: whatever they are, it is the tokens that are counted
    own, norms = model.macs(every, every), NORM_OPERATIONS * model.normalised_elements(every, every)
    ours, theirs = own + pruner.macs(every), own + norms + pruner.published_macs(every)
    return Count(f"{cell.method} at {tokens} tokens", every, every, ours, theirs, None, None, None)


def _blank(model: Backbone) -> list[Clip]:
    """One black clip to calibrate on: what a method derives from it means nothing, what it refuses does."""
    shape = (model.config.frames, model.config.height, model.config.width, 3)
    return [Clip("blank", "blank", 0, 0, np.zeros(shape, np.uint8))]


def _asked(model: Backbone, keep: float) -> int:
    return round(model.grid.tokens * keep)


def _attach(model: Backbone, method: Method, label: str) -> Pruner:
    pruner = method.attach(model) if (reason := method.supports(model)) is None else None
    if pruner is None or (reason := model.refuses(pruner)):
        raise UsageError(f"{label} cannot run: {reason}")
    return pruner


def report(cells: Sequence[Cell], tokens: Sequence[int], preset: str, counter: str = "torch") -> Iterator[str]:
    """Yield a table of the cells' counts, dense first, with the published figures of the preset and the backbone."""
    model = backbone(cells[0].setting)
    adaptive = any(registry.load_method(cell.method).adaptive for cell in cells)
    if tokens and not adaptive:
        raise UsageError("--tokens is for methods whose count follows the clip; these counts are fixed, leave it out")
    shares = tokens or [_asked(model, share) for share in SHARES]
    each_cell = [each for cell in cells if cell.match is None for each in counts(model, cell, shares, counter)]
    found, name = list(dict.fromkeys(each_cell)), cells[0].setting.backbone
    figures = published.figures()
    yield f"{name}: one clip, GMACs (multiply-accumulates / 1e9; papers print them as GFLOPs)"
    yield from _table(found, {each.convention for each in figures if each.backbone == name}, counter)
    if adaptive:
        yield "at N tokens: the method's count follows the content of each clip; these are given, not found"
    for figure in figures:
        cost = figure.metric.startswith("gmacs_per_") and figure.backbone == name
        if figure.preset == preset != "" or (cost and figure.method == "dense"):
            yield "published: " + said(figure)


#: ways of counting: column, and what it means; fvcore's is shown always, others where figures were published in them
WAYS: dict[str, tuple[str, str]] = {
    "fvcore": (
        "fvcore's way",
        "as most papers count: layer norms at 5 per element, and the method's products as its published code executes "
        "them",
    ),
    "mmcv": ("mmcv's way", "layers with weights, layer norms at 2 per element; attention's own products are not in it"),
    "rgtp": (
        "RGTP's way",
        "products without the patch embedding, and additions of biases, residuals and positions; rollout by whole maps",
    ),
}


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


def said(figure: published.Figure) -> str:
    """Write a published figure with its source in one line."""
    what = " ".join(part for part in (figure.method, figure.dataset) if part)
    way = figure.convention and f"{figure.convention}'s way"
    about = "; ".join(part for part in (figure.source, way, figure.note) if part)
    return f"{what} {figure.metric} {figure.value:g} ({about})"
