"""What a method does inside a forward: clips in, the sites where tokens can be reduced, what came out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vpbench.api import attention
from vpbench.api.blocks import BlockParts, Ran
from vpbench.api.contexts import in_its_own_precision, precise
from vpbench.api.tokens import Selection, Tokens
from vpbench.errors import UsageError
from vpbench.registry import Flow


@dataclass(frozen=True)
class ClipBatch:
    """Clips that run together: `pixels` `[B, T, H, W, 3]` (uint8, or normalised floats), their ids, their labels."""

    pixels: Tensor
    ids: tuple[str, ...]
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TokenCounts:
    """Tokens per clip that entered one block's attention and, after any reduction there, its MLP."""

    attention: tuple[int, ...]
    mlp: tuple[int, ...]


@dataclass(frozen=True)
class Output:
    """What a backbone returns: `logits` `[B, classes]`, one `TokenCounts` per block, and what each clip cost.

    `macs [B]` are the backbone's multiply-accumulates in closed form from the tokens that were really there,
    `normalised [B]` the elements that passed a layer norm, which some counters charge 5 operations each; `padding [B]`
    is the part of `macs` that was spent on positions without a token, where a backbone has any. `embedding [B]` is the
    part for the patch embedding, and `added [B]` counts additions of biases, residuals and positions, which one
    convention of published figures needs; of blocks that a method ran, all by which that convention is above `macs`.
    """

    logits: Tensor
    counts: tuple[TokenCounts, ...]
    macs: tuple[int, ...]
    normalised: tuple[int, ...]
    padding: tuple[int, ...] = ()
    embedding: tuple[int, ...] = ()
    added: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trace:
    """What a block shows a pruner besides the tokens: its attention, before any reduction.

    `queries`, `keys`, `values` `[S, H, D/H]` are packed like the tokens, `lengths` long. `lse [S, H]` is there in the
    blocks for which `Pruner.wants_received` asks for it, and `fused [B, N, N]`, the root mean square of the attention
    over heads, in those for which `Pruner.wants_fused` does; clips have equal lengths there. `size [S]`: what keys were
    biased by (`Pruner.size_bias`), None where nothing was. `entered [S, D]`: the stream that the block started from,
    where a backbone shows it.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    lengths: tuple[int, ...]
    lse: Tensor | None = None
    fused: Tensor | None = None
    size: Tensor | None = None
    entered: Tensor | None = None

    def mean_keys(self) -> Tensor:
        """Return `[S, D/H]`: keys averaged over heads, in float32 at least; what tokens are most often compared by."""
        return self.keys.mean(dim=1, dtype=torch.promote_types(self.keys.dtype, torch.float32))

    def received(self, weight: Tensor | None = None) -> Tensor:
        """Return `[S, H]`: attention each token receives, `sum_i weight_i A_ij`; see `attention.received`."""
        if self.lse is None:
            raise RuntimeError("a pruner that reads received attention must say so in wants_received")
        sums = attention.received(self.queries, self.keys, self.lse, self.lengths, weight)
        return sums if self.size is None else sums * self.size[:, None]

    def walked(self, steps: int = 1) -> Tensor:
        """Return `[S]`: where a walk along the attention from 1 everywhere is after `steps` steps, averaged over heads.

        See `attention.walked`; there are no biases by size.
        """
        if self.lse is None or self.size is not None:
            raise RuntimeError("a pruner that walks along attention must say so in wants_received, without size_bias")
        return attention.walked(self.queries, self.keys, self.lse, self.lengths, steps)

    def class_row(self) -> Tensor:
        """Return `[B, N]`: attention that each sequence's first token, its class token, pays, averaged over heads.

        Sequences have equal lengths.
        """
        batch, heads, width = len(self.lengths), *self.queries.shape[1:]
        first, keys = (t.view(batch, -1, heads, width).transpose(1, 2) for t in (self.queries, self.keys))
        logits = (precise(first[:, :, :1]) * width**-0.5) @ precise(keys).transpose(-2, -1)
        if self.size is not None:
            logits = logits + self.size.log().view(batch, 1, 1, -1)
        return logits.softmax(dim=-1).mean(dim=1)[:, 0]

    def shift(self, x: Tensor) -> Tensor:
        """Return `[S]`: how far what attention adds to tokens is from what the block started from, in float32 at least.

        x `[S, D]`: the stream after it (Representation Shift, arXiv 2508.00367, its formula read literally). Raises
        UsageError where a backbone does not show what its blocks start from.
        """
        if self.entered is None:
            raise UsageError("this backbone does not show what its blocks start from; leave score=shift out")
        before = precise(self.entered)
        return torch.linalg.vector_norm(precise(x) - 2 * before, dim=-1)

    def entropy(self) -> Tensor:
        """Return `[S]`: negative entropy of each row of the head-averaged map, without any bias by sizes.

        See `attention.map_entropy`.
        """
        return attention.map_entropy(self.queries, self.keys, self.lengths)


@dataclass(frozen=True)
class Detections:
    """Objects in one frame, the highest score first: `boxes [n, 4]` in pixels, `scores [n]`, `labels [n]` (int64).

    `broken`: candidates and proposals that were left out because their box or scores are no finite numbers.
    `proposals`: regions that were looked at.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    broken: int
    proposals: int = 0


_STREAM = frozenset({"resample", "video", "after_attention", "after_block"})
#: where a backbone asks its pruner, by the flow of its tokens: those of a clip in one stream, or in one for each step
#: (slot) of it, or as a grid that has to stay one; or frame after frame of a video
SITES: Mapping[Flow, frozenset[str]] = {
    "stream": _STREAM,
    "steps": _STREAM | {"waves", "embedded", "run_block"},
    "grid": frozenset({"resample", "stage"}),
    "frames": frozenset({"restart", "narrow", "frame", "output", "run_block"}),
}


class Pruner:
    """A method attached to one backbone. Every site leaves the tokens as they are unless a method overrides it.

    A backbone asks at the sites of its own flow (`SITES`) alone. In the flow `frames` a pruner follows B segments in
    lockstep. Sites compute outside of any autocast that the forward is in: whatever they rank is not rounded by it. But
    for `run_block`, in which the backbone's own layers run.
    """

    #: add log(size) to the attention logits of merged tokens (proportional attention)
    size_bias: bool = False
    #: weigh the final mean by the tokens' sizes
    size_pooling: bool = True
    #: it makes one token of several, at the grid position of one of them
    merges: bool = False
    #: `video` fills in `Selection.run_lengths`, which backbones trained with run-length embeddings need
    gives_run_lengths: ClassVar[bool] = False
    #: it compares tokens inside a step only, and keeps class tokens: what backbones that encode steps one by one need
    stepwise: ClassVar[bool] = False
    #: functions that are a stage of a forward, each with its stage (see `measure.stages`); a method may name its own
    timed_as: ClassVar[Mapping[str, str]] = dict.fromkeys(sorted(frozenset().union(*SITES.values())), "scoring")
    #: times that a forward has to wait for a GPU, since what is kept decides how many tokens there are
    waits: int = 0
    #: what a reader has to know before comparing this pruner's rows with others, in a few words
    caveat: str = ""
    #: every so many frames of a segment one is dense and owes nothing to earlier ones (0: only the first)
    period: int = 1
    #: tokens that go on in each frame that is not dense; None where all frames are, or the content decides
    kept: int | None = None
    #: set to a dict to have the method's intermediate values (of each frame, where there are frames) written into it
    record: dict[str, Tensor] | None = None

    def __init_subclass__(cls, **named: Any) -> None:
        """Take the sites that a method overrides out of autocast."""
        super().__init_subclass__(**named)
        for site in frozenset().union(*SITES.values()) - {"run_block"} & vars(cls).keys():
            setattr(cls, site, in_its_own_precision(vars(cls)[site]))

    @classmethod
    def acts_at(cls, site: str) -> bool:
        """Whether a site is overridden."""
        return getattr(cls, site) is not getattr(Pruner, site)

    def resample(self, batch: ClipBatch) -> ClipBatch:
        """Replace the pixels by fewer frames or smaller ones, before anything else."""
        return batch

    def video(self, batch: ClipBatch) -> Selection | None:
        """Choose tubelets before the patch embedding; None keeps all."""
        return None

    def wants_received(self, layer: int) -> bool:
        """Say whether block `layer` must keep what `Trace.received` needs; asking changes no result."""
        return False

    def wants_fused(self, layer: int) -> bool:
        """Say whether the trace of block `layer` must hold `Trace.fused`; asking changes no result."""
        return False

    def waves(self, steps: int) -> Sequence[Sequence[int]]:
        """Say which steps of a clip run together, wave after wave, in backbones that encode steps on their own."""
        return (range(steps),)

    def embedded(self, x: Tensor) -> None:
        """See the patch embeddings `[B, steps, N, D]` of such a backbone, without positions, before the first wave."""

    def stage(self, block: int, x: Tensor) -> Tensor:
        """Reduce the grid `x` `[B, slots, rows, cols, D]` to a smaller one before a block of a grid backbone."""
        return x

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        """Reduce tokens between the attention and the MLP of block `layer`."""
        return tokens

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        """Reduce tokens after the MLP of block `layer`; what it needs of the trace, `after_attention` can lay aside."""
        return tokens

    def run_block(self, layer: int, x: Tensor, parts: BlockParts) -> Ran:
        """Run block `layer` on tokens `x` `[B, N, D]` of B steps, or frames, by its parts; no token leaves.

        Asked where a method overrides it, which is asked at no other site inside blocks then, and keeps all tokens.
        """
        raise NotImplementedError

    def foreseen(self, layer: int, x: Tensor, parts: BlockParts) -> Ran:
        """Do as `run_block`, for who asks for nothing but counts: a method may spare itself the work.

        Raises UsageError where they follow the content.
        """
        return self.run_block(layer, x, parts)

    def restart(self, starts: Sequence[tuple[str, int]] = ()) -> None:
        """Forget everything: the next frame is the first of new segments, of these videos and with these numbers."""

    def narrow(self, batch: int) -> None:
        """Go on with the first `batch` segments; the others have ended."""

    @property
    def wants_maps(self) -> bool:
        """Say whether the attention of global blocks is needed in the frame that `frame` was asked about last."""
        return False

    def frame(self, embedded: Tensor) -> Tensor | None:
        """Choose tokens of the next frame, `[B, K]` of `[B, N, D]`; None keeps all and owes nothing to older frames."""
        return None

    def output(self, maps: tuple[Tensor, ...], found: Sequence[Detections]) -> None:
        """Learn from what came of the frame: maps of global blocks, if wanted, and what was found in each segment's.

        maps: of each block in order `[B, K, N]`, fused over heads, one row for each token that went on.
        """

    def macs(self, attention: tuple[int, ...]) -> int:
        """Multiply-accumulates of the method's own work on one clip whose block l saw `attention[l]` tokens."""
        return 0

    def uncounted_macs(self) -> int:
        """Return the part of `macs` in the last forward that no counter of operators can see."""
        return 0

    def published_macs(self, attention: tuple[int, ...]) -> int:
        """Do as `macs`, but count what the published code executes where ours takes a shorter way."""
        return self.macs(attention)

    def frame_macs(self, kept: int | None, guides: bool = True) -> int:
        """Multiply-accumulates of the method's own work on one frame of which so many tokens went on (None: all).

        guides: whether the frame's maps were asked for, and with them what is made of them for the next frame.
        """
        return 0

    def published_frame_macs(self, kept: int | None) -> int:
        """Do as `frame_macs`, but count what the published code executes where ours takes a shorter way."""
        return self.frame_macs(kept)

    def note(self, name: str, value: Tensor) -> None:
        """Write an intermediate value into `record`, where somebody asked for it."""
        if self.record is not None:
            self.record[name] = value


#: the pruner that prunes nothing
DENSE = Pruner()
