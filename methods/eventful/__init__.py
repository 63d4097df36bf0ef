"""Eventful Transformers: compute only tokens that changed since they were last used, and remember the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch

from vpbench.api import Backbone, Clip, Flow, FrameBackbone, Method, Pruner, UsageError
from vpbench.methods.eventful.pruner import FrameGates, Setting, StepGates

POLICIES, LEVELS = ("top", "threshold"), ("full", "scores", "tokenwise", "none")
REFERENCES = ("used", "previous")
CASTS = {"none": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Eventful(Method):
    """Gates before the layers of each block let the `k` tokens through that changed most; no token leaves the stream.

    `policy`: `top`, those `k`, or `threshold`, all whose change (the Euclidean norm) is above `threshold`. A change is
    from what was last used of a token, or with `compare=previous` from the frame before (STGT's gate). `level`: what
    global attention computes anew: the products of `full`, only the first of them (`scores`), or all of it
    (`tokenwise`), as attention in windows always does; `none` has no gates. `pooled`: keys and values of global
    attention are means over 2 x 2 tokens, on detectors. `cast`: what its product with values is kept in, `float16` or
    `bfloat16` (`none`: float32). `before_norm`: gates stand before the norms instead of behind.
    """

    k: int = 256
    policy: str = "top"
    threshold: float = 1.0
    level: str = "full"
    pooled: bool = False
    cast: str = "none"
    before_norm: bool = False
    compare: str = "used"

    reference = "Dutson, Li and Gupta, Eventful Transformers, ICCV 2023, arXiv 2308.13494; code MIT, not used"
    set_by_keep = ("k",)
    untrainable = "what it remembers is written over in place, which no gradient passes"
    flows: ClassVar[frozenset[Flow]] = frozenset({"steps", "frames"})
    controls: ClassVar[tuple[str, ...]] = ("eventful_random",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse backbones that see a clip at once, words and numbers that mean nothing, and what was never defined."""
        if backbone.flow not in self.flows:
            return "eventful remembers tokens from step to step; this backbone takes all steps of a clip at once"
        words = {"policy": POLICIES, "level": LEVELS, "cast": tuple(CASTS), "compare": REFERENCES}
        for name, known in words.items():
            if (given := getattr(self, name)) not in known:
                return f"{name} is one of {', '.join(known)}, not {given!r}"
        if self.k < 0 or not self.threshold >= 0:
            return f"k and threshold are at least 0; got {self.k} and {self.threshold:g}"
        if self.compare == "previous" and self.level != "tokenwise":
            return "compare=previous is defined for level=tokenwise: products need what was last used"
        if self.level == "tokenwise" and (self.pooled or self.cast != "none"):
            return "level=tokenwise leaves attention as it is; pooled and cast are for the other levels"
        if self.level == "scores" and self.cast != "none":
            return "level=scores leaves the product with values as it is; cast is for level=full or none"
        return self._refuses_pooling(backbone) if self.pooled else None

    def _refuses_pooling(self, backbone: Backbone) -> str | None:
        """Return why keys cannot be pooled: they have to tile a frame."""
        if backbone.flow != "frames":
            return "pooled keys are those of a detector's frames; class tokens are in no cell of 2 x 2 tokens"
        side = backbone.grid.rows
        return f"cells of 2 x 2 tokens do not tile a grid of {side} x {side}; set pooled=false" if side % 2 else None

    @property
    def setting(self) -> Setting:
        """What gates read of the parameters."""
        threshold = self.threshold if self.policy == "threshold" else None
        previous = self.compare == "previous"
        return Setting(self.k, threshold, self.level, self.pooled, CASTS[self.cast], self.before_norm, previous)

    @property
    def dense(self) -> bool:
        """Whether nothing is left to do but what a dense forward does."""
        return self.level == "none" and not self.pooled and self.cast == "none"

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner; its state is one forward's, or on detectors that of the segments it follows."""
        if self.dense:
            return Pruner()
        if isinstance(backbone, FrameBackbone):
            return FrameGates(self.setting, backbone)
        return StepGates(self.setting, backbone)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Let as many through that the share `keep` of all tokens is computed; raises UsageError if none fits.

        On clips the first step, which is computed whole, is in the share, class tokens as well; on detectors it is the
        share of each later frame. At 1 there are no gates: they would pass everything.
        """
        if keep == 1:
            return replace(self, level="none", policy="top")
        if self.policy != "top":
            raise UsageError(f"keep sets k, and policy={self.policy} has none; give --set threshold instead")
        if backbone.flow == "frames":
            return replace(self, k=round(keep * backbone.grid.tokens))
        steps, count = backbone.grid.slots, backbone.grid.per_slot + 1
        free = steps - 1
        k = round((keep * steps - 1) * count / free) if free else 0
        if not 0 < k <= count:
            least = (1 + free / count) / steps
            raise UsageError(f"eventful cannot reach keep {keep:g}: the first step is whole, {least:.2g} is the least")
        return replace(self, k=k)
