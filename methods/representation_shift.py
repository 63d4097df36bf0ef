"""Drop the tokens that a block's MLP moves least, at the end of the first blocks; needs no attention map."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench.api import Backbone, Clip, Method, Pruner, Tokens, Trace, UsageError, precise

OPERATIONS = ("mlp", "attention", "block")
#: multiply-accumulates of a distance, per token and channel
DISTANCES = {"l2": 1, "l1": 0, "cosine": 3}


@dataclass(frozen=True)
class RepresentationShift(Method):
    """Drop `schedule` tokens at the end of each block ("0.2/0.2/0.2"; below 1 shares of those left, else counts).

    A token's score is the `distance` (`l2`, `l1`, `cosine`) between what an `operation` makes of it, without the
    residual, and what that starts from: the `mlp` or the `attention` from the stream, as the paper's formula has it
    (`form=literal`), or from nothing, so that it is the size of the update (`form=residual`); of the whole `block`
    output and input are compared. A keep ratio is shared out evenly over three blocks: 0, 1 and 2 (`stages=early`), or
    0, L/4 and L/2 (`spread`). Class tokens always stay.
    """

    schedule: str = "0.2/0.2/0.2"
    operation: str = "mlp"
    distance: str = "l2"
    form: str = "literal"
    stages: str = "early"

    reference = (
        "Choi, Lee et al., Representation Shift, ICCV 2025, arXiv 2508.00367; code not used; inferred: rounding, ties, "
        "class tokens, what a keep ratio sets, and that the formula is meant literally"
    )
    set_by_keep = ("schedule",)

    def supports(self, backbone: Backbone) -> str | None:
        """Refuse unknown words, forms that mean nothing, and schedules that are no lists or leave no token."""
        if self.operation not in OPERATIONS:
            return f"operation is one of {', '.join(OPERATIONS)}, not {self.operation!r}"
        if self.distance not in DISTANCES:
            return f"distance is one of {', '.join(DISTANCES)}, not {self.distance!r}"
        if self.form not in ("literal", "residual"):
            return f"form is 'literal' or 'residual', not {self.form!r}"
        if self.form == "residual" and (self.operation == "block" or self.distance == "cosine"):
            return "form 'residual' is the size (l1 or l2) of what mlp or attention add; a block or an angle has none"
        if self.stages not in ("early", "spread"):
            return f"stages is 'early' or 'spread', not {self.stages!r}"
        try:
            asked = self.asked()
        except ValueError:
            return f"schedule is one number per block, like 0.2/0.2/0.2, not {self.schedule!r}"
        if len(asked) > backbone.depth or not all(math.isfinite(each) and each >= 0 for each in asked):
            return f"schedule {self.schedule!r} needs at most {backbone.depth} numbers, none negative"
        if min(self.left(backbone)) < 1:
            return f"schedule {self.schedule!r} leaves none of {backbone.sequence} tokens"
        return None

    def asked(self) -> list[float]:
        """Return the schedule as numbers: counts, or shares below 1."""
        return [float(part) for part in self.schedule.split("/")]

    def left(self, backbone: Backbone) -> list[int]:
        """Return how many patches of a sequence enter each block, and how many are left after the last."""
        found = [backbone.sequence]
        for asked in (self.asked() + [0.0] * backbone.depth)[: backbone.depth]:
            found.append(found[-1] - dropped(asked, found[-1]))
        return found

    def attach(self, backbone: Backbone) -> Pruner:
        """Return the pruner for this backbone's depth and width."""
        return _Pruner(self, backbone)

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Drop the same share at three depths, so that `keep` is left; raises UsageError where three are too many."""
        depth, rate = backbone.depth, f"{1 - keep ** (1 / 3):.6g}"
        blocks = (0, 1, 2) if self.stages == "early" else (0, depth // 4, depth // 2)
        if len(set(blocks)) < 3 or blocks[-1] >= depth:
            raise UsageError(f"representation_shift prunes after three blocks, and {depth} are too few for that")
        schedule = [rate if block in blocks else "0" for block in range(blocks[-1] + 1)]
        sized = replace(self, schedule="/".join(schedule) if keep < 1 else "0")
        if reason := sized.supports(backbone):
            raise UsageError(f"representation_shift cannot reach keep {keep:g}: {reason}")
        return sized


class _Pruner(Pruner):
    stepwise = True

    def __init__(self, method: RepresentationShift, backbone: Backbone) -> None:
        self.method = method
        self.asked = method.asked()
        self.width = backbone.heads * backbone.key_width
        self.spared = int(backbone.flow == "steps")
        sequences = backbone.grid.slots if self.spared else 1
        self.tokens = tuple(sequences * (self.spared + left) for left in method.left(backbone)[:-1])
        #: what a block starts from, or scores of its tokens, until it ends
        self.aside: Tensor | None = None

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        if self._dropped(layer, tokens.lengths[0]):
            if self.method.operation == "mlp":
                self.aside = tokens.x
            elif self.method.operation == "block":
                self.aside = started(trace)
            else:
                self.aside = self.score(tokens.x, started(trace))
        return tokens

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        length = tokens.lengths[0]
        removed = self._dropped(layer, length)
        if removed == 0:
            return tokens
        aside, self.aside = self.aside, None
        assert aside is not None
        scores = aside if self.method.operation == "attention" else self.score(tokens.x, aside)
        self.note(f"block{layer}.score", scores)
        if self.spared:
            patches = scores.view(-1, length)[:, self.spared :]
            scores = F.pad(patches, (self.spared, 0), value=torch.inf).flatten()
        return tokens.top(scores, length - removed)

    def score(self, after: Tensor, before: Tensor) -> Tensor:
        """Return `[S]`: how far tokens `before` `[S, D]` are moved by an operation, given what is there `after` it."""
        after, before = precise(after), precise(before)
        if self.method.operation == "block":
            return distance(after, before, self.method.distance)
        made = after - before
        start = torch.zeros_like(before) if self.method.form == "residual" else before
        return distance(made, start, self.method.distance)

    def macs(self, attention: tuple[int, ...]) -> int:
        """Squares of differences, or products for cosines, of the tokens of blocks after which some are dropped."""
        scored = sum(n for n, asked in zip(attention, self.asked, strict=False) if asked)
        return DISTANCES[self.method.distance] * scored * self.width

    def uncounted_macs(self) -> int:
        """All of it: distances are no products of matrices."""
        return self.macs(self.tokens)

    def _dropped(self, layer: int, length: int) -> int:
        return dropped(self.asked[layer], length - self.spared) if layer < len(self.asked) else 0


def started(trace: Trace) -> Tensor:
    """Return what a block started from, `[S, D]`; raises UsageError where a backbone does not show it."""
    if trace.entered is None:
        raise UsageError("this backbone does not show what its blocks start from; give operation=mlp")
    return trace.entered


def dropped(asked: float, patches: int) -> int:
    """Return how many of so many patches go: a share below 1, rounded down, or a count."""
    return int(asked * patches) if asked < 1 else int(asked)


def distance(one: Tensor, other: Tensor, kind: str) -> Tensor:
    """Return `[S]`, the distance of vectors `[S, D]`."""
    if kind == "cosine":
        return 1 - F.cosine_similarity(one, other, dim=-1)
    return torch.linalg.vector_norm(one - other, ord=1 if kind == "l1" else 2, dim=-1)
