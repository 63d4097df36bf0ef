"""Drop patches that hardly differ from the one before at their place: EVS's rule, moved into the encoder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench.api import (
    Backbone,
    Classifier,
    Clip,
    ClipBatch,
    Grid,
    Method,
    Pruner,
    Selection,
    Tokens,
    UsageError,
    precise,
)

#: cosines of equal vectors differ from 1 by rounding alone; a smaller difference counts as none (ours, not EVS's)
STILL = 1e-6
#: below this, vectors count as this long
SHORT = 1e-8
#: a product of floats may fall short of the whole number that it stands for by so much
ROUNDING = 1e-9


@dataclass(frozen=True)
class Evs(Method):
    """Drop the share `q` of the patches: those whose features are nearest, by cosine, to the slot's before.

    `form`: `patches` compares patch embeddings without positions and drops before the first block, `depth` compares
    tokens after block `depth` (-1: a quarter down, block 2 of 12) and drops there. `pixels`, EVS's cheap form, is
    `tdiff` with pair=tubelet, and refused. `count`: `code` keeps the first slot inside the budget, as published code
    does, `quantile` besides it, as the paper says; where scores are equal, it keeps no more for that.
    """

    q: float = 0.5
    form: str = "patches"
    count: str = "code"
    depth: int = -1

    reference = (
        "Bagrov et al., EVS, arXiv 2510.14624; an adaptation to classifiers, ours: EVS's rule moved into the encoder, "
        "while the paper prunes after it, before a language model; code not used"
    )
    set_by_keep = ("q",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse unknown words, what is `tdiff` already, and backbones that do not show what is compared."""
        if not 0 <= self.q <= 1:
            return f"q is the share of patches to drop, in [0, 1], not {self.q:g}"
        if self.count not in ("code", "quantile"):
            return f"count is 'code' or 'quantile', not {self.count!r}"
        if self.form == "pixels":
            share = self.kept(backbone.grid) / backbone.grid.tokens
            same = f"--set tdiff.pair=tubelet --set tdiff.keep={share:g}"
            return f"form 'pixels' keeps what tdiff does; run {same}, which is measured and drawn once"
        if self.form == "depth":
            if backbone.flow == "steps":
                return "form 'depth' compares slots inside the encoder, which takes them one by one here; use 'patches'"
            if not -1 <= self.depth < backbone.depth:
                return f"depth is a block, 0 to {backbone.depth - 1} (-1: a quarter down), not {self.depth}"
            return None
        if self.form != "patches":
            return f"form is 'patches', 'depth' or 'pixels', not {self.form!r}"
        if self.depth != -1:
            return f"depth {self.depth} is for form 'depth'; form 'patches' drops before the first block"
        if not isinstance(backbone, Classifier) or type(backbone).patches is Classifier.patches:
            return "this backbone does not show its patch embeddings; form 'depth' needs none"
        return None

    def kept(self, grid: Grid) -> int:
        """Return how many tokens of a clip are kept; a clip of one slot keeps all."""
        later = grid.tokens - grid.per_slot
        if self.count == "code":
            return max(grid.per_slot, int(grid.tokens * (1 - self.q) + ROUNDING))
        # the q-quantile lies, linearly interpolated, at this rank from 0; what is not below it stays
        return grid.tokens if later == 0 else grid.tokens - math.ceil(self.q * (later - 1) - ROUNDING)

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's token grid."""
        if self.form == "depth":
            block = self.depth if self.depth >= 0 else max(backbone.depth // 4 - 1, 0)
            return _AfterBlock(backbone, self.kept(backbone.grid), block)
        assert isinstance(backbone, Classifier)
        return _BeforeBlocks(backbone, self.kept(backbone.grid))

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Drop so much that the share `keep` is left; raises UsageError below one slot, the first of which stays."""
        slots = backbone.grid.slots
        if keep < 1 / slots - ROUNDING:
            raise UsageError(f"evs cannot reach keep {keep:g}: slot 0 of {slots} is always kept")
        if self.count == "quantile" and slots > 1:
            return replace(self, q=min(1.0, max(0.0, 1 - (keep * slots - 1) / (slots - 1))))
        return replace(self, q=1 - keep)


class _Pruner(Pruner):
    caveat = "EVS's rule moved into the encoder; the paper prunes after it"

    def __init__(self, backbone: Backbone, count: int) -> None:
        self.grid, self.count = backbone.grid, count
        self.width = backbone.heads * backbone.key_width

    def ranked(self, features: Tensor) -> Tensor:
        """Return `[B, N]`: the score of each token of `features` `[B, N, D]`, infinite in the first slot."""
        scores = differences(features.unflatten(1, (self.grid.slots, -1))).flatten(1)
        self.note("scores", scores)
        return F.pad(scores, (self.grid.per_slot, 0), value=torch.inf)

    def macs(self, attention: tuple[int, ...]) -> int:
        """Norms of all tokens, and products of those after the first slot with their predecessors."""
        return self._cosines()

    def uncounted_macs(self) -> int:
        """Cosines, which are no products of matrices."""
        return self._cosines()

    def _cosines(self) -> int:
        if self.count == self.grid.tokens:
            return 0
        return (2 * self.grid.tokens - self.grid.per_slot) * self.width


class _BeforeBlocks(_Pruner):
    """Embeds all patches, and has the backbone embed those that stay once more."""

    def __init__(self, backbone: Classifier, count: int) -> None:
        super().__init__(backbone, count)
        self.backbone = backbone
        if count < self.grid.tokens:
            self.waits = int(backbone.flow == "steps")

    def video(self, batch: ClipBatch) -> Selection | None:
        if self.count == self.grid.tokens:
            return None
        patches = self.backbone.patches(batch.pixels)
        return Selection.top(self.ranked(patches.view(len(batch.ids), self.grid.tokens, -1)), self.count)

    def macs(self, attention: tuple[int, ...]) -> int:
        """The embedding of every patch, which the backbone does anew for those that stay, and cosines."""
        if self.count == self.grid.tokens:
            return 0
        sizes = self.backbone.config
        return sizes.frames * sizes.height * sizes.width * 3 * self.width + self._cosines()


class _AfterBlock(_Pruner):
    def __init__(self, backbone: Backbone, count: int, block: int) -> None:
        super().__init__(backbone, count)
        self.block = block

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        if layer != self.block or self.count == self.grid.tokens:
            return tokens
        features = tokens.x.view(len(tokens.lengths), self.grid.tokens, -1)
        return tokens.top(self.ranked(features).flatten(), self.count)


def differences(features: Tensor) -> Tensor:
    """Return `[B, T-1, P]`: 1 - cosine of `features` `[B, T, P, D]` with those of the slot before; in float32 at least.

    Differences below `STILL` are 0, so that rounding ranks no tokens that are equal.
    """
    features = precise(features)
    length = features.norm(dim=-1).clamp(min=SHORT)
    products = (features[:, 1:] * features[:, :-1]).sum(dim=-1)
    found = 1 - products / (length[:, 1:] * length[:, :-1])
    return torch.where(found < STILL, 0, found)
