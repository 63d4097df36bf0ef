"""Rank tokens by a walk along the attention (weighted page rank) and keep the highest, at three depths."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from vpbench.api import Backbone, Clip, Method, Pruner, Tokens, Trace, UsageError, received_macs, stage_blocks


@dataclass(frozen=True)
class Wpr(Method):
    """Keep the share `rho` of the current tokens after the attention of blocks L/4, L/2 and 3L/4.

    Score: starting from 1/N everywhere, `s <- A^T s` in each head, `early` times in the first half of the network and
    `late` times after it; averaged over heads. This is the importance stage alone of Zero-TPrune, simplified, not a
    reproduction of it: its authors' iterations, head weights and similarity stage are not included.
    """

    rho: float = 0.7
    early: int = 5
    late: int = 1

    reference = "after Zero-TPrune (CVPR 2024, arXiv 2305.17328), importance stage only, written without its code"
    set_by_keep = ("rho",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse backbones without three depths, shares outside (0, 1], and walks without a step."""
        if backbone.depth < 3:
            return f"wpr prunes at three depths; the backbone has {backbone.depth} blocks"
        if not 0 < self.rho <= 1:
            return f"rho is the share of tokens that stay, in (0, 1], not {self.rho:g}"
        if min(self.early, self.late) < 1:
            return f"a walk needs at least one step, not early {self.early}, late {self.late}"
        return None

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's depth."""
        return _Pruner(self, backbone)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Keep the cube root of `keep` at each depth, so that the share `keep` is left after the last one."""
        sized = replace(self, rho=keep ** (1 / 3))
        if reason := sized.supports(backbone):
            raise UsageError(f"wpr cannot reach keep {keep:g}: {reason}")
        return sized


class _Pruner(Pruner):
    def __init__(self, method: Wpr, backbone: Backbone) -> None:
        blocks = stage_blocks(backbone.depth) if method.rho < 1 else ()
        self.steps = {block: method.early if block < backbone.depth / 2 else method.late for block in blocks}
        self.rho = method.rho
        self.heads, self.key_width = backbone.heads, backbone.key_width

    def wants_received(self, layer: int) -> bool:
        return layer in self.steps

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        if layer not in self.steps:
            return tokens
        length = tokens.lengths[0]
        scores = trace.walked(self.steps[layer])
        if self.record is not None:
            self.note(f"block{layer}.score", scores / length)
        return tokens.top(scores, math.ceil(self.rho * length))

    def macs(self, attention: tuple[int, ...]) -> int:
        """One attention pass for each step of the walk."""
        return sum(n * received_macs(attention[b], self.heads, self.key_width) for b, n in self.steps.items())
