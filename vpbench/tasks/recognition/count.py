"""Count multiply-accumulates of settings without weights and without data: backbones on the meta device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vpbench.api import Classifier, Clip, ClipBatch, Method, Pruner, SingleStream
from vpbench.backbones.loading import outline
from vpbench.errors import UsageError, VpbenchError
from vpbench.measure.operators import by_operator, operators
from vpbench.plan import Cell, Setting
from vpbench.tasks.attach import at_keep, attached, method_of
from vpbench.tasks.cost import foreseeing

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


def backbone(setting: Setting) -> Classifier:
    """Build the backbone of a setting on the meta device: sizes without numbers."""
    return outline(setting)


def counts(model: Classifier, cell: Cell, tokens: Sequence[int], counter: str | None = "torch") -> list[Count]:
    """Count one cell; a method whose token count follows the clip is counted at each of the given `tokens` instead.

    counter: `torch` or `fvcore`, what to compare the closed form with; None counts no operators. Raises UsageError for
    parameters that do not fit the backbone, for token counts that the method cannot leave, and for adaptive methods
    that reduce tokens inside blocks, whose counts only clips can tell; VpbenchError for an operator that the counter
    would miss.
    """
    method = method_of(cell, model)
    if method.adaptive:
        return [_given(model, method, cell, n) for n in ([_asked(model, cell.keep)] if cell.keep else tokens)]
    if cell.keep is not None:
        method = at_keep(method, cell, model, ())
    pruner = _attach(model, method, cell.label)
    config = model.config
    pixels = torch.empty(1, config.frames, config.height, config.width, 3, dtype=torch.uint8, device="meta")
    batch = ClipBatch(pixels, ("clip",), (0,))
    with torch.inference_mode(), foreseeing(pruner):
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


def _given(model: Classifier, method: Method, cell: Cell, tokens: int) -> Count:
    pruner = _attach(model, method, cell.label)
    if not pruner.acts_at("video"):
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


def _blank(model: Classifier) -> list[Clip]:
    """One black clip to calibrate on: what a method derives from it means nothing, what it refuses does."""
    shape = (model.config.frames, model.config.height, model.config.width, 3)
    return [Clip("blank", "blank", 0, 0, np.zeros(shape, np.uint8))]


def _asked(model: Classifier, keep: float) -> int:
    return round(model.grid.tokens * keep)


def _attach(model: Classifier, method: Method, label: str) -> Pruner:
    return attached(method, model, lambda reason: UsageError(f"{label} cannot run: {reason}"))
