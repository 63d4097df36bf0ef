"""Rollout-Guided Token Pruning: what one frame's output was made of decides which tokens the next frame keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from vpbench.api import Backbone, Clip, Flow, FrameBackbone, Method, Pruner, UsageError
from vpbench.methods.rgtp.selection import PATTERNS, Split, pattern
from vpbench.methods.rgtp.steps import StepPruner
from vpbench.methods.rgtp.vitdet import VideoPruner


@dataclass(frozen=True)
class Rgtp(Method):
    """Keep the patches that mattered to the last step's output, moved along with the content.

    `keep_ratio` of the patches are foreground; of them the share `fg_ratio` is kept, of the others `bg_ratio`. Every
    `reset`-th step forgets (0: none does) and keeps the fixed pattern `pattern`. `radius`: how far, in tokens, content
    may move between steps (0: no tracking).

    On detectors a step is a frame, and every `reset`-th is dense instead of keeping a pattern. Boxes with a score above
    `threshold` guide the next frame; `pooled`: roll out over cells of 2 x 2 tokens, as published for 672 pixels.
    """

    keep_ratio: float = 0.215
    fg_ratio: float = 1.0
    bg_ratio: float = 0.0
    reset: int = 8
    pattern: str = "1in2"
    radius: int = 1
    threshold: float = 0.1
    pooled: bool = True

    reference = "Rollout-Guided Token Pruning, ICIP 2025; code CC BY-NC-SA 4.0, not used"
    set_by_keep = ("keep_ratio", "fg_ratio", "bg_ratio")
    flows: ClassVar[frozenset[Flow]] = frozenset({"steps", "frames"})
    controls: ClassVar[tuple[str, ...]] = ("rgtp_random",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse backbones without steps, patterns and scores that do not exist, and shares that leave nothing."""
        if backbone.flow == "frames":
            return self._refuses_frames(backbone)
        if backbone.flow != "steps":
            return "rgtp learns from step to step; this backbone takes all steps of a clip at once"
        if self.pattern not in PATTERNS:
            return f"pattern is one of {', '.join(PATTERNS)}, not {self.pattern!r}"
        if backbone.grid.rows != backbone.grid.cols:
            return f"rgtp is defined on square grids, not {backbone.grid.rows}x{backbone.grid.cols}"
        return self._refuses(backbone.grid.per_slot)

    def _refuses_frames(self, backbone: Backbone) -> str | None:
        """Return what is wrong with the parameters for a detector: its grid has to be tiled by cells."""
        side = backbone.grid.rows
        if not 0 <= self.threshold < 1:
            return f"threshold is a score in [0, 1), not {self.threshold:g}"
        if self.pooled and side % 2:
            return f"cells of 2 x 2 tokens do not tile a grid of {side} x {side}; set pooled=false"
        return self._refuses(backbone.grid.tokens)

    def _refuses(self, tokens: int) -> str | None:
        """Return what is wrong with the parameters that all backbones share."""
        if not 0 < self.keep_ratio <= 1 or not 0 < self.fg_ratio <= 1 or not 0 <= self.bg_ratio <= 1:
            return "keep_ratio and fg_ratio are in (0, 1], bg_ratio is in [0, 1]"
        if self.reset < 0 or self.reset == 1 or self.radius < 0:
            return f"reset is 0 or at least 2, radius at least 0; got {self.reset} and {self.radius}"
        if self._split.count(tokens) == 0:
            return f"keep_ratio {self.keep_ratio:g} leaves none of {tokens} patches"
        return None

    @property
    def _split(self) -> Split:
        return Split(self.keep_ratio, self.fg_ratio, self.bg_ratio)

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner; its state is one forward's, or on detectors that of the segments it follows."""
        if isinstance(backbone, FrameBackbone):
            return VideoPruner(backbone, self._split, self.reset, self.radius, self.threshold, self.pooled)
        return StepPruner(backbone, self._split, self.reset, self.pattern, self.radius)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep as many in each pruned step that the share `keep` is left of the clip; raises UsageError if none fits.

        The first step keeps all, resets a fixed pattern, so neither very low nor, with resets, very high shares fit.
        At 1 nothing is pruned and there are no resets. On detectors `keep` is the share of each pruned frame; dense
        frames, every `reset`-th, come on top.
        """
        if backbone.flow == "frames":
            return replace(self, keep_ratio=keep, fg_ratio=1.0, bg_ratio=0.0)
        if keep == 1:
            return replace(self, keep_ratio=1.0, fg_ratio=1.0, bg_ratio=0.0, reset=0)
        steps, count = backbone.grid.slots, backbone.grid.per_slot
        resets = len(range(self.reset, steps, self.reset)) if self.reset else 0
        fixed = count + resets * len(pattern(self.pattern, backbone.grid.rows, backbone.grid.cols)[0])
        free = steps - 1 - resets
        ratio = (keep * steps * count - fixed) / (free * count) if free else 0.0
        if not 0 < round(ratio * count) <= count:
            low, high = ((fixed + each * free) / (steps * count) for each in (1, count))
            raise UsageError(
                f"rgtp cannot reach keep {keep:g}: first step, resets and the rest give {low:.2g}-{high:.2g}"
            )
        return replace(self, keep_ratio=ratio, fg_ratio=1.0, bg_ratio=0.0)
