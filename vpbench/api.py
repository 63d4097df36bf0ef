"""All that a method or a dataset imports: the words of vpbench as types."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

from vpbench import attention
from vpbench.attention import received_macs
from vpbench.backbones.frame_sites import FrameMethod, FramePruner
from vpbench.data import Clip, Dataset, Numbers, Seconds, Video, manifest_digest
from vpbench.errors import UsageError
from vpbench.matching import Match, bipartite, matching_macs, ranked, unit
from vpbench.scores import stage_blocks, temporal_difference
from vpbench.tokens import Grid, Selection, Tokens

if TYPE_CHECKING:
    from vpbench.backbones.catalog import Config

__all__ = [
    "DENSE",
    "Backbone",
    "Clip",
    "ClipBatch",
    "Dataset",
    "FrameMethod",
    "FramePruner",
    "Grid",
    "GridBackbone",
    "Match",
    "Method",
    "Numbers",
    "Output",
    "Pruner",
    "Seconds",
    "Selection",
    "SingleStream",
    "TokenCounts",
    "Tokens",
    "Trace",
    "UsageError",
    "Video",
    "bipartite",
    "clip_generator",
    "manifest_digest",
    "matching_macs",
    "ranked",
    "received_macs",
    "stage_blocks",
    "temporal_difference",
    "unit",
]


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
    convention of published figures needs.
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
    over heads, in those for which `Pruner.wants_fused` does; clips have equal lengths there.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    lengths: tuple[int, ...]
    lse: Tensor | None = None
    fused: Tensor | None = None

    def received(self, weight: Tensor | None = None) -> Tensor:
        """Return `[S, H]`: attention each token receives, `sum_i weight_i A_ij`; see `attention.received`."""
        if self.lse is None:
            raise RuntimeError("a pruner that reads received attention must say so in wants_received")
        return attention.received(self.queries, self.keys, self.lse, self.lengths, weight)

    def class_row(self) -> Tensor:
        """Return `[B, N]`: attention that each sequence's first token, its class token, pays, averaged over heads.

        Sequences have equal lengths.
        """
        batch, heads, width = len(self.lengths), *self.queries.shape[1:]
        first, keys = (t.view(batch, -1, heads, width).transpose(1, 2) for t in (self.queries, self.keys))
        logits = (first[:, :, :1] * width**-0.5) @ keys.transpose(-2, -1)
        return logits.softmax(dim=-1).mean(dim=1)[:, 0]

    def entropy(self) -> Tensor:
        """Return `[S]`: negative entropy of each row of the head-averaged map; see `attention.map_entropy`."""
        return attention.map_entropy(self.queries, self.keys, self.lengths)


class Pruner:
    """A method attached to one backbone. Every site leaves the tokens as they are unless a method overrides it."""

    #: add log(size) to the attention logits of merged tokens (proportional attention)
    size_bias: bool = False
    #: weigh the final mean by the tokens' sizes
    size_pooling: bool = True
    #: `video` fills in `Selection.run_lengths`, which backbones trained with run-length embeddings need
    gives_run_lengths: ClassVar[bool] = False
    #: it compares tokens inside a step only, and keeps class tokens: what backbones that encode steps one by one need
    stepwise: ClassVar[bool] = False
    #: functions that are a stage of a forward, each with its stage (see `measure.stages`); a method may name its own
    timed_as: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("resample", "video", "waves", "embedded", "stage", "after_attention", "after_block"), "scoring"
    )
    #: what a reader has to know before comparing this pruner's rows with others, in a few words
    caveat: str = ""
    #: set to a dict to have the method's intermediate values written into it
    record: dict[str, Tensor] | None = None

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

    def macs(self, attention: tuple[int, ...]) -> int:
        """Multiply-accumulates of the method's own work on one clip whose block l saw `attention[l]` tokens."""
        return 0

    def published_macs(self, attention: tuple[int, ...]) -> int:
        """Do as `macs`, but count what the published code executes where ours takes a shorter way."""
        return self.macs(attention)

    def note(self, name: str, value: Tensor) -> None:
        """Write an intermediate value into `record`, where somebody asked for it."""
        if self.record is not None:
            self.record[name] = value


#: the pruner that prunes nothing
DENSE = Pruner()


class Backbone(nn.Module, abc.ABC):
    """A network with named sites; `forward(batch, pruner)` gives an `Output`."""

    config: Config
    grid: Grid
    depth: int
    heads: int
    #: width of one attention head's keys
    key_width: int
    #: whether tokens are a plain stream that can lose any of them; if not, they form a grid that must stay one
    plain: bool = True
    #: whether each step (slot) of a clip is encoded on its own, so that `Pruner.waves` and `embedded` are asked
    stepwise: bool = False
    #: whether the weights hold run-length embeddings (RLT's, arXiv 2411.05222)
    reads_run_lengths: bool = False
    #: functions that are a stage of a forward, each with its stage; see `measure.stages`
    timed_as: ClassVar[Mapping[str, str]] = {}

    @property
    def sequence(self) -> int:
        """Patches of a dense clip that attend to each other: those of one step where steps are encoded one by one."""
        return self.grid.per_slot if self.stepwise else self.grid.tokens

    @abc.abstractmethod
    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips, calling the pruner at the sites and nowhere else."""

    @abc.abstractmethod
    def normalise(self, pixels: Tensor) -> Tensor:
        """Return RGB pixels `[..., 3]` from 0 to 255, uint8 or floats, as the floats the network was trained on."""

    @abc.abstractmethod
    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another number of frames or another side from now on (None: as before).

        positions: `interpolate` the trained table, or `recompute` it where it is a formula. Raises UsageError for clips
        that tubelets do not tile, and for `recompute` where the table was learned.
        """

    @abc.abstractmethod
    def refuses(self, pruner: Pruner) -> str | None:
        """Return why this backbone, as trained, cannot run with a pruner, or None if it can."""


class SingleStream(Backbone):
    """A backbone whose clip is one stream of tokens, so that its cost follows from the tokens of each block alone."""

    @abc.abstractmethod
    def macs(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Closed-form multiply-accumulates of one clip from its tokens per block."""

    @abc.abstractmethod
    def backward_macs(self, tokens: int) -> int:
        """Multiply-accumulates of the last block's and the head's backward pass."""

    @abc.abstractmethod
    def normalised_elements(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Elements that pass a layer norm in one clip, from its tokens per block."""


class GridBackbone(Backbone):
    """A backbone whose tokens form a grid that pruning may shrink to a smaller grid, but not leave holes in."""

    plain = False
    #: tensors of the checkpoint that are not the backbone's own: trained parts of methods, by their published names
    addons: dict[str, Tensor]

    @property
    def sites(self) -> int:
        """Places where `Pruner.stage` is called: blocks, or stages of several blocks."""
        return self.depth

    @property
    @abc.abstractmethod
    def planned_slots(self) -> int:
        """Slices that selections in time are sized for, whatever clip comes."""

    @abc.abstractmethod
    def planned_windows(self, ratios: Mapping[int, float]) -> dict[int, int]:
        """Tokens per slice that windows before these blocks (or stages) are sized for, ratio by ratio."""

    @abc.abstractmethod
    def width_before(self, block: int) -> int:
        """Channels of the tokens that enter a block (or stage)."""

    def refuses(self, pruner: Pruner) -> str | None:
        """Refuse whatever drops single tokens."""
        sites = ("video", "after_attention", "after_block")
        own = [site for site in sites if getattr(type(pruner), site) is not getattr(Pruner, site)]
        return f"it drops single tokens (in {', '.join(own)}), which would leave holes in the grid" if own else None


@dataclass(frozen=True)
class Method(abc.ABC):
    """Parameters of a pruning method. A subclass is a frozen dataclass in a file named like the method."""

    #: paper, year and licence of the published code; "control" where there is no paper
    reference: ClassVar[str]
    #: whether a grid of tokens stays a grid: what backbones need that are no plain stream of tokens
    keeps_grid: ClassVar[bool] = False
    #: whether the token count follows the content of the clip, so that it has to be asked for
    adaptive: ClassVar[bool] = False
    #: whether it runs on a backbone as it was trained, without parts trained for the method
    training_free: ClassVar[bool] = True
    #: methods that select as much with the same parameters, but without looking; named `<method>_random`, `_uniform`.
    #: They come along wherever `random` cannot: on grids of tokens and on detectors
    controls: ClassVar[tuple[str, ...]] = ()

    def supports(self, backbone: Backbone) -> str | None:
        """Return why these parameters cannot run on this backbone, or None if they can."""
        return None

    @abc.abstractmethod
    def attach(self, backbone: Backbone) -> Pruner:
        """Return a pruner for this backbone."""

    def attach_like(self, backbone: Backbone, counts: Mapping[str, int]) -> Pruner:
        """Return a pruner that keeps `counts[clip_id]` tokens of each clip; only `random`, the control, can."""
        raise UsageError(f"{type(self).__name__} cannot copy another method's token counts")

    @abc.abstractmethod
    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Return this method with its native parameters set so that about `keep` of the tokens are left.

        Raises UsageError where the method cannot go that low, or that high.
        """


@torch.compiler.disable  # type: ignore[untyped-decorator]  # hashing is for the host
def clip_generator(seed: int, clip_id: str) -> torch.Generator:
    """Return a random generator that depends on nothing but (seed, clip id)."""
    digest = hashlib.sha256(f"{seed}\0{clip_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
