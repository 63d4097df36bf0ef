"""Token Merging: in every block, merge the most similar pairs of tokens by their size-weighted mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vpbench.api import (
    Backbone,
    Clip,
    ClipBatch,
    Match,
    Method,
    Pruner,
    Tokens,
    Trace,
    UsageError,
    bipartite,
    clip_generator,
    matching_macs,
    moved,
    ranked,
    unit,
)

FORMS = ("merge", "drop", "hybrid", "random_merge")


@dataclass(frozen=True)
class Tome(Method):
    """Remove `r` tokens in every block, at most half of them.

    `inflect` tilts the schedule: 0 constant, -1 falling from 2r to 0. `schedule`, one count per block ("24/12/6",
    padded with 0), replaces both. `proportional` adds log(size) to the attention logits, `weighted_pooling` weighs the
    final mean by size; the defaults are ToMe's advice for VideoMAE-type models used off the shelf. `form`: `merge`;
    `drop` discards what would be merged; `hybrid` lets a partner whose match is weaker than `threshold` be replaced by
    what is merged into it; `random_merge` matches at random (`seed`).
    """

    r: int = 65
    inflect: float = 0.0
    schedule: str = ""
    proportional: bool = False
    weighted_pooling: bool = True
    form: str = "merge"
    threshold: float = 0.9
    seed: int = 0

    reference = "Bolya et al., Token Merging, ICLR 2023, arXiv 2210.09461; code CC-BY-NC 4.0, not used"
    set_by_keep = ("r", "schedule")

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse unknown forms and schedules that are no lists of counts."""
        if self.form not in FORMS:
            return f"form is one of {', '.join(FORMS)}, not {self.form!r}"
        if not all(part.isdigit() for part in self.schedule.split("/") if self.schedule):
            return f"schedule is one count per block, like 24/12/6, not {self.schedule!r}"
        if len(self.schedule.split("/")) > backbone.depth:
            return f"schedule {self.schedule!r} has more entries than the {backbone.depth} blocks"
        if self.r < 0 or not -1 <= self.inflect <= 1:
            return f"tome needs r >= 0 and -1 <= inflect <= 1, not {self.r} and {self.inflect:g}"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's depth."""
        return _Pruner(self, backbone)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Set r so that the share `keep` is left after the last block; raises UsageError if halving cannot reach it."""
        dense, depth = backbone.sequence, backbone.depth
        sized = replace(self, r=round(dense * (1 - keep) / depth), schedule="")
        left = dense
        for r in sized.per_block(depth):
            left -= min(r, left // 2)
        if left > dense * keep + depth:
            raise UsageError(
                f"tome cannot reach keep {keep:g}: {depth} blocks of at most a half leave {left / dense:.2f}"
            )
        return sized

    def per_block(self, depth: int) -> list[int]:
        """Tokens to remove in each of `depth` blocks, before the limit of half of them (arXiv 2210.09461)."""
        if self.schedule:
            given = [int(part) for part in self.schedule.split("/")]
            return given + [0] * (depth - len(given))
        low = int(self.r * (1 - self.inflect))
        step = (2 * self.r - 2 * low) / max(depth - 1, 1)
        return [int(low + step * layer) for layer in range(depth)]


class _Pruner(Pruner):
    stepwise = True

    def __init__(self, method: Tome, backbone: Backbone) -> None:
        self.method = method
        self.r = method.per_block(backbone.depth)
        self.key_width = backbone.key_width
        self.merges = method.form != "drop"
        self.size_bias = method.proportional
        self.size_pooling = method.weighted_pooling
        self.ids: tuple[str, ...] = ()
        # sequences of a clip, each with a class token where there are several
        self.steps = backbone.grid.slots if backbone.flow == "steps" else 1
        self.spared = int(backbone.flow == "steps")

    def resample(self, batch: ClipBatch) -> ClipBatch:
        self.ids = batch.ids  # what random matches are seeded with, long before they are drawn
        return batch

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        batch, length = len(tokens.lengths), tokens.lengths[0]
        r = min(self.r[layer], (length - self.spared) // 2)
        if r == 0:
            return tokens
        if self.method.form == "random_merge":
            match = ranked(moved(self._noise(layer, length), tokens.x.device), r, self.spared)
        else:
            match = bipartite(unit(trace.mean_keys().view(batch, length, -1)), r, self.spared)
        if self.record is not None:
            self._explain(layer, match)
        if self.method.form == "drop":
            return match.drop(tokens)
        weight = self._replaced(match, length).flatten() if self.method.form == "hybrid" else None
        return match.merge(tokens, weight)

    def macs(self, attention: tuple[int, ...]) -> int:
        """Similarities of even with odd tokens in every block that merges."""
        if self.method.form == "random_merge":
            return 0
        lengths = [n // self.steps for n in attention]
        merging = [n for n, r in zip(lengths, self.r, strict=True) if min(r, (n - self.spared) // 2)]
        return self.steps * sum(matching_macs(n, self.key_width) for n in merging)

    def _noise(self, layer: int, length: int) -> Tensor:
        shape = ((length + 1) // 2, length // 2)
        draws = [clip_generator(self.method.seed, f"{layer}/{clip}") for clip in self.ids]
        return torch.stack(
            [
                torch.rand(shape, device="cpu", dtype=torch.float32, generator=draw)
                for draw in draws
                for _ in range(self.steps)
            ]
        )

    def _replaced(self, match: Match, length: int) -> Tensor:
        """Weight of each token, `[B, n]`: 0 for partners whose best merged match is below the threshold, else 1."""
        weight = match.best.new_ones(match.best.shape[0], length)
        best = match.best.gather(1, match.source)
        strongest = torch.full_like(weight, -torch.inf).scatter_reduce(1, 2 * match.partner + 1, best, "amax")
        weak = strongest.isfinite() & (strongest < self.method.threshold)
        return weight.masked_fill(weak, 0.0)

    def _explain(self, layer: int, match: Match) -> None:
        self.note(f"block{layer}.node_max", match.best)
        self.note(f"block{layer}.src_idx", match.source)
        self.note(f"block{layer}.dst_idx", match.partner)
        self.note(f"block{layer}.unm_idx", match.unmerged)
