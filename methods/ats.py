"""Adaptive Token Sampling: sample tokens evenly along the cumulative score; the count follows the content."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vpbench.api import (
    Backbone,
    Clip,
    ClipBatch,
    Method,
    Pruner,
    Selection,
    Tokens,
    Trace,
    UsageError,
    borders_of,
    constant,
    on_device,
    places_of,
    received_macs,
    stage_blocks,
    starts_of,
)

# Clips that a keep ratio is calibrated on, halvings of the interval of budgets, and where the search gives up.
_CLIPS, _STEPS = 8, 7
_LARGEST = 64.0


@dataclass(frozen=True)
class Ats(Method):
    """Sample `budget` points per current token after the attention of blocks L/4, L/2 and 3L/4; 0 switches it off.

    Each point selects the token whose cumulative score is nearest; tokens selected twice count once, so at most the
    share `budget` stays, fewer where few tokens matter. Score: attention received times the length of the value vector,
    summed over heads; the published method reads the class token's row, which a mean-pooled backbone does not have.
    """

    budget: float = 0.7

    reference = (
        "after Fayyaz et al., Adaptive Token Sampling, ECCV 2022, arXiv 2111.15667; column means for its class row"
    )
    set_by_keep = ("budget",)
    adaptive = True

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse backbones without three depths, and negative budgets."""
        if backbone.depth < 3:
            return f"ats prunes at three depths; the backbone has {backbone.depth} blocks"
        if self.budget < 0 or not math.isfinite(self.budget):
            return f"budget is a positive number of points per token, or 0 for off, not {self.budget:g}"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's depth."""
        return _Pruner(self.budget, backbone)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Set the budget by bisection so that calibration clips keep the share `keep` at the end, on average."""
        if keep == 1.0:
            return replace(self, budget=0.0)
        device = next(backbone.parameters()).device
        clips = calibration[:_CLIPS]
        batches = [ClipBatch(torch.from_numpy(c.pixels)[None].to(device), (c.clip_id,)) for c in clips]

        def enough(budget: float) -> bool:
            return sum(self._left(budget, backbone, batch) for batch in batches) >= keep * len(batches)

        # tokens that are selected twice only lower the count, so the cube root of keep is the least that can do
        low, high = keep ** (1 / 3), 1.25 * keep ** (1 / 3)
        while not enough(high):
            low, high = high, 2 * high
            if high > _LARGEST:
                raise UsageError(f"ats cannot leave keep {keep:g} on the calibration clips; ask for less")
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return replace(self, budget=round(high, 4))

    def _left(self, budget: float, backbone: Backbone, batch: ClipBatch) -> float:
        with torch.inference_mode():
            counts = backbone(batch, _Pruner(budget, backbone)).counts
        return float(counts[-1].mlp[0] / backbone.grid.tokens)


class _Pruner(Pruner):
    def __init__(self, budget: float, backbone: Backbone) -> None:
        self.budget = budget
        self.blocks = stage_blocks(backbone.depth) if budget else ()
        self.waits = len(self.blocks)
        self.heads, self.key_width = backbone.heads, backbone.key_width

    def wants_received(self, layer: int) -> bool:
        return layer in self.blocks

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        if layer not in self.blocks:
            return tokens
        length = torch.linalg.vector_norm(trace.values, dim=-1, dtype=torch.float32)
        score = (trace.received() * length).sum(dim=1)
        self.note(f"block{layer}.score", score)
        kept = sample(score, tokens.lengths, self.budget)
        if tokens.uniform:
            rows = torch.add(kept.index, kept.clip, alpha=tokens.lengths[0])
        else:
            rows = borders_of(tokens.lengths, score.device)[kept.clip] + kept.index
        return tokens.take(rows, kept.lengths)

    def macs(self, attention: tuple[int, ...]) -> int:
        """The second attention pass that gives the scores."""
        return sum(received_macs(attention[layer], self.heads, self.key_width) for layer in self.blocks)


def sample(score: Tensor, lengths: tuple[int, ...], budget: float) -> Selection:
    """Return which tokens of each clip even steps along its cumulative `score` select, `ceil(budget n)` of n tokens.

    score: packed, `[S]`. Point i of K lies at `(2i-1)/(2K)` and selects the position whose cumulative share is nearest,
    the lower of two: `floor(K m + 1/2)` points lie up to the middle m between two. Asks the device once, for counts.
    """
    by_clip, totals = _by_clip(score, lengths)
    upto = (by_clip / (totals[:, None] + 1e-6)).cumsum(1, dtype=torch.float64)
    # up to the middle between two tokens, points select the first of them or one before; the last one takes the rest
    ragged, points = min(lengths) < max(lengths), [math.ceil(budget * n) for n in lengths]
    given = (*points, *(each / 2 for each in points), *(n - 1 for n in lengths))
    brought = on_device if ragged else constant
    every, half, last = brought(given, score.device, torch.float64).view(3, -1, 1)
    zero, middle = constant((0.0, 0.5), score.device, torch.float64)
    before = torch.addcmul(middle, upto[:, :-1] + upto[:, 1:], half).floor()
    if ragged:
        before = torch.where(last > starts_of(upto.shape[1] - 1, 1, score.device).T, before, every)
    edges = torch.cat([zero.expand_as(every), before, every], dim=1)
    return Selection.from_mask(edges[:, 1:] != edges[:, :-1])


def _by_clip(score: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return packed scores by clip `[B, N]`, filled up with zeros, and their sums `[B]`."""
    batch, longest = len(lengths), max(lengths)
    if min(lengths) == longest:
        by_clip = score.view(batch, longest)
        return by_clip, by_clip.sum(1)
    by_clip = score.new_zeros(batch, longest).index_put_(places_of(lengths, score.device), score)
    if score.device.type == "cuda":
        return by_clip, by_clip.sum(1)
    # zeros would change the order of the sum, and its last digit, by which clips a clip is with
    return by_clip, torch.stack([each.sum() for each in score.split(lengths)])
