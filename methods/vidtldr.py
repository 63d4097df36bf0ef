"""vid-TLDR: merge most in the first blocks, and let sharply attending tokens outweigh the background."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from vpbench.api import Backbone, Clip, Method, Pruner, Tokens, Trace, UsageError, bipartite, matching_macs, unit


@dataclass(frozen=True)
class Vidtldr(Method):
    """Remove `schedule` tokens in the first blocks ("600/200/100"; numbers below 1 are shares of the current tokens).

    A token's saliency is how sharp its row of the head-averaged attention map is (negative entropy); tokens below the
    mean are background. What a merged token brings is weighted by its saliency, so background vanishes. `score=shift`
    takes for saliency how far attention moves a token (Representation Shift, ICCV 2025, whose operation there is not
    said: of attention, ours), which needs no map.
    `proportional` adds log(size) to the attention logits; `weighted_pooling` weighs the final mean by size.
    """

    schedule: str = "600/200/100"
    proportional: bool = True
    weighted_pooling: bool = True
    score: str = "entropy"

    reference = "Choi et al., vid-TLDR, CVPR 2024, arXiv 2403.13347; code not used"
    set_by_keep = ("schedule",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse schedules that are no lists of counts or shares, and scores that do not exist."""
        if self.score not in ("entropy", "shift"):
            return f"score is 'entropy' or 'shift', not {self.score!r}"
        try:
            removed = self.removed()
        except ValueError:
            return f"schedule is one number per block, like 600/200/100, not {self.schedule!r}"
        if len(removed) > backbone.depth or any(r < 0 for r in removed):
            return f"schedule {self.schedule!r} needs at most {backbone.depth} numbers, none negative"
        return None

    def removed(self) -> list[float]:
        """Return the schedule as numbers: counts, or shares below 1."""
        return [float(part) for part in self.schedule.split("/")]

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's key width."""
        return _Pruner(self, backbone)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Spread what has to go over the blocks as 6 : 2 : 1, and over more where half is all one can take.

        Raises UsageError if all blocks together cannot.
        """
        tokens = backbone.grid.tokens
        total = left = round(tokens * (1 - keep))
        schedule: list[int] = []
        while left > 0 and len(schedule) < backbone.depth:
            share = (round(total * 6 / 9), round(total * 2 / 9), left)[min(len(schedule), 2)]
            schedule.append(min(share, left, tokens // 2))
            tokens -= schedule[-1]
            left -= schedule[-1]
        if left > 0:
            raise UsageError(
                f"vidtldr cannot reach keep {keep:g}: {backbone.depth} blocks of at most a half are too few"
            )
        return replace(self, schedule="/".join(map(str, schedule)) or "0")


class _Pruner(Pruner):
    def __init__(self, method: Vidtldr, backbone: Backbone) -> None:
        self.removed, self.shifts = method.removed(), method.score == "shift"
        #: multiply-accumulates of shifts in the last forward, which no product of matrices is
        self.shifted = 0
        self.heads, self.dim = backbone.heads, backbone.heads * backbone.key_width
        self.merges = True
        self.size_bias = method.proportional
        self.size_pooling = method.weighted_pooling

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        batch, length = len(tokens.lengths), tokens.lengths[0]
        r = self._count(layer, length)
        self.shifted = 0 if layer == 0 else self.shifted
        if r == 0:
            return tokens
        sharp = trace.shift(tokens.x) if self.shifts else trace.entropy()
        self.shifted += length * self.dim if self.shifts else 0
        weight = saliency(sharp.view(batch, -1))
        self.note(f"block{layer}.saliency", weight)
        match = bipartite(unit(tokens.x).view(batch, length, -1), r, in_order=True)
        # only what is merged away is weighted: the tokens that stay keep their full mass
        source = 2 * match.source
        share = torch.ones_like(weight).scatter(1, source, weight.gather(1, source))
        return match.merge(tokens, share.flatten())

    def macs(self, attention: tuple[int, ...]) -> int:
        """The attention map of each merging block once more, or shifts, and similarities of even with odd tokens."""
        merging = [n for layer, n in enumerate(attention) if self._count(layer, n)]
        return sum((n if self.shifts else n * n) * self.dim + matching_macs(n, self.dim) for n in merging)

    def uncounted_macs(self) -> int:
        """Shifts: distances are no products of matrices."""
        return self.shifted

    def _count(self, layer: int, length: int) -> int:
        asked = self.removed[layer] if layer < len(self.removed) else 0
        return min(int(asked * length) if asked < 1 else int(asked), length // 2)


def saliency(entropy: Tensor) -> Tensor:
    """Map negative entropies `[B, n]` to weights in [0, 1]: 0 up to the mean, 1 for the sharpest."""
    low, high = torch.aminmax(entropy, dim=1, keepdim=True)
    scaled = torch.nan_to_num((entropy - low) / (high - low), nan=0.0)
    above = (scaled - scaled.mean(dim=1, keepdim=True)).clamp(min=0)
    return torch.nan_to_num(above / above.amax(dim=1, keepdim=True), nan=0.0)
