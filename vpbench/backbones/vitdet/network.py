"""ViTDet: a plain ViT with windows on a square grid, a simple pyramid and a detection head, frame after frame.

A frame is dense, or only some of its tokens go on: all others then keep the keys, values and output of older frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import DENSE, Detections, FrameBackbone, Grid, Pruner, Ran
from vpbench.api.tokens import constant
from vpbench.backbones.layers import Derived, Mlp, initialise
from vpbench.backbones.vitdet import ViTDetConfig, costs
from vpbench.backbones.vitdet.attention import Attention, resized
from vpbench.backbones.vitdet.head import RoiHeads
from vpbench.backbones.vitdet.proposals import ProposalGenerator, Proposals
from vpbench.backbones.vitdet.pyramid import PyramidStage
from vpbench.backbones.vitdet.windows import Queries, SquareWindows
from vpbench.errors import UsageError


@dataclass
class Segments:
    """What B video segments in lockstep carry from frame to frame, empty before their first.

    `memory`: keys and values of each block, `[B x windows x V, 2, heads, width]`, window after window, padding
    included. `output [B, N, D]`: of the last frame, never changed in place.
    """

    #: see `measure.stages`
    timed_as: ClassVar[Mapping[str, str]] = {"restore": "restore"}

    memory: list[Tensor] = field(default_factory=list)
    output: Tensor | None = None

    def narrow(self, batch: int) -> None:
        """Go on with the first `batch` segments; the others have ended."""
        if self.output is not None:
            self.memory = [block[: len(block) // len(self.output) * batch] for block in self.memory]
            self.output = self.output[:batch]

    def restore(self, x: Tensor, rows: Tensor | None, batch: int) -> Tensor:
        """Return the output `[B, N, D]` of a frame whose tokens `rows` are x `[R, D]`; others keep what they had."""
        if rows is None or self.output is None:
            self.output = x.view(batch, -1, x.shape[1])
        else:
            self.output = self.output.flatten(0, 1).index_copy(0, rows, x).view(self.output.shape)
        return self.output


@dataclass(frozen=True)
class Frame:
    """What came of one frame of B segments.

    `output [B, N, D]`: every token's, of this frame where it went on. `maps`: attention of the global blocks in order,
    fused over heads by root mean square, `[B, K, N]` with one row for each token that went on; empty unless asked for.
    `padding`: multiply-accumulates of all segments spent on queries that no token fills. `kept`: tokens of each segment
    that went on, None where all did. `ran`: what came of each block, where the pruner ran them; all tokens go on there,
    and `kept` is how many were computed anew, None where that were all or not equally many everywhere.
    """

    output: Tensor
    maps: tuple[Tensor, ...]
    padding: int
    kept: int | None
    ran: tuple[Ran, ...] = ()


class Block(nn.Module):
    """A pre-norm transformer block; its attention is in windows of a square grid, one of which may be the grid."""

    #: see `measure.stages`; each half with its norm and residual
    timed_as: ClassVar[Mapping[str, str]] = {"_attend": "attention", "_feed_forward": "mlp"}

    def __init__(self, config: ViTDetConfig, number: int) -> None:
        super().__init__()
        inside = number in config.windowed
        size, table = (config.window, config.window) if inside else (config.grid, config.global_table)
        self.config, self.number = config, number
        self.norm1 = nn.LayerNorm(config.dim, eps=config.eps)
        self.attn = Attention(config, SquareWindows(config.grid, size), table)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.eps)
        self.mlp = Mlp(config.dim, config.hidden, config.dim)

    def forward(
        self, x: Tensor, chosen: Tensor | None, written: Tensor, queries: Queries, memory: Tensor, wants_map: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Run the block on tokens `[T, D]`, of which `chosen` go on `[R, D]`; see `Attention`."""
        x, fused = self._attend(x, chosen, written, queries, memory, wants_map)
        return self._feed_forward(x), fused

    def _attend(
        self, x: Tensor, chosen: Tensor | None, written: Tensor, queries: Queries, memory: Tensor, wants_map: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Do the first half, after which only `chosen` tokens are left."""
        attended, fused = self.attn(self.norm1(x), chosen, written, queries, memory, wants_map)
        return (x if chosen is None else x[chosen]) + attended, fused

    def _feed_forward(self, x: Tensor) -> Tensor:
        """Add the MLP's part to tokens `[R, D]`."""
        return x + self.mlp(self.norm2(x))

    # the block by its parts, see `api.BlockParts`

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.config.heads

    @property
    def hidden(self) -> int:
        """Width of the layer inside the MLP."""
        return self.config.hidden

    @property
    def everywhere(self) -> bool:
        """Whether attention is among all tokens."""
        return self.attn.windows.count == 1

    def qkv(self, normed: Tensor) -> Tensor:
        """Return queries, keys and values `[R, 3 D]` of normed tokens."""
        return self.attn.qkv(normed)

    def attention(self, projected: Tensor) -> Tensor:
        """Attend inside windows, `[B, N, 3 D]` to `[B, N, D]`."""
        return self.attn.whole(projected)

    def projection(self, attended: Tensor) -> Tensor:
        """Return what the layer after attention makes of tokens `[R, D]`."""
        return self.attn.proj(attended)

    def feed_forward(self, normed: Tensor) -> Tensor:
        """Return what the MLP makes of normed tokens `[R, D]`."""
        return self.mlp(normed)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the relative positions of rows and columns `[side, side, width]`, query by key."""
        return self.attn.tables()

    def attention_macs(self, tokens: int) -> int:
        """Multiply-accumulates of attention among all tokens."""
        return costs.attention_macs(self.config, self.number)

    def attention_counts(self, tokens: int) -> Mapping[str, int]:
        """Return by kind what published figures count of it."""
        return costs.published_attention(self.config, self.number, tokens)


class PatchEmbed(nn.Module):
    """Patches that do not overlap, embedded by one matrix product."""

    def __init__(self, config: ViTDetConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.dim, config.patch, config.patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels `[B, side, side, 3]` to tokens `[B, N, D]` in raster order."""
        patch = self.proj.kernel_size[0]
        batch, height, width, _ = pixels.shape
        boxes = pixels.view(batch, height // patch, patch, width // patch, patch, 3).permute(0, 1, 3, 5, 2, 4)
        return F.linear(boxes.flatten(3).flatten(1, 2), self.proj.weight.flatten(1), self.proj.bias)


class Transformer(nn.Module):
    """The plain ViT: patches, positions and blocks."""

    def __init__(self, config: ViTDetConfig) -> None:
        super().__init__()
        self.side = config.grid
        self.patch_embed = PatchEmbed(config)
        table = torch.empty(1, config.positions**2, config.dim)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self._positions = Derived(_positions)
        self.blocks = nn.ModuleList(Block(config, number) for number in range(config.depth))

    def positions(self) -> Tensor:
        """Return the positions of the grid, `[N, D]`; kept in evaluation."""
        return self._positions(self.pos_embed, side=self.side)


def _positions(table: Tensor, side: int) -> Tensor:
    length = round(table.shape[1] ** 0.5)
    return table[0] if length == side else resized(table[0].unflatten(0, (length, length)), side).flatten(0, 1)


class ViTDet(FrameBackbone):
    """ViTDet (arXiv 2203.16527) on video. State-dict keys are the published ones without `backbone.`."""

    #: see `measure.stages`
    timed_as: ClassVar[Mapping[str, str]] = {"embed": "embed", "detect": "head"}
    #: times that a frame has to wait for a GPU: what overlaps what, and how much is left, in both stages of the head,
    #: and how many candidates there are in the second
    waits: ClassVar[int] = 5

    def __init__(self, config: ViTDetConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = Grid(1, config.grid, config.grid)
        self.depth, self.heads, self.key_width = config.depth, config.heads, config.dim // config.heads
        self.patch, self.unwindowed = config.patch, config.unwindowed
        self.net = Transformer(config)
        self.stages = tuple(f"simfp_{level}" for level in range(2, 2 + len(config.scales)))
        for name, scale in zip(self.stages, config.scales, strict=True):
            setattr(self, name, PyramidStage(config.dim, config.head.channels, scale, config.eps))
        self.proposal_generator = ProposalGenerator(config.head, config.strides)
        self.roi_heads = RoiHeads(config.head, config.strides[: len(config.scales)], config.eps)
        self.apply(initialise)

    def forward(self, pixels: Tensor, segments: Segments, pruner: Pruner = DENSE) -> tuple[Frame, list[Detections]]:
        """Look at the next frame of B segments, uint8 `[B, H, W, 3]`, calling the pruner at its sites."""
        frame = self.transform(pixels, segments, pruner)
        found = self.detect(frame.output)
        pruner.output(frame.maps, found)
        return frame, found

    def transform(self, pixels: Tensor, segments: Segments, pruner: Pruner) -> Frame:
        """Do as `forward`, but without pyramid and head, and without telling the pruner what was found."""
        return self.advance(self.embed(pixels), segments, pruner)

    def advance(self, embedded: Tensor, segments: Segments, pruner: Pruner) -> Frame:
        """Do as `transform`, from what `embed` gave."""
        kept = pruner.frame(embedded)
        if pruner.acts_at("run_block"):
            return self.run_parts(embedded, pruner)
        return self.forward_frame(embedded, segments, kept, pruner.wants_maps)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 RGB `[B, H, W, 3]` as the floats `[B, side, side, 3]` that the network was trained on.

        What a frame lacks below and to the right is zero after the normalisation. Raises UsageError for larger frames.
        """
        side, (height, width) = self.config.side, pixels.shape[1:3]
        if max(height, width) > side:
            raise UsageError(f"frames of {width}x{height} pixels do not fit into {side}x{side}; resize them first")
        colours = (self.config.mean, self.config.std)
        mean, std = (constant(each, pixels.device) for each in colours)
        return F.pad((pixels.float() - mean) / std, [0, 0, 0, side - width, 0, side - height])

    def embed(self, pixels: Tensor) -> Tensor:
        """Return the patches of uint8 frames `[B, H, W, 3]` as tokens `[B, N, D]`, before any position."""
        weight = self.net.pos_embed
        return self.net.patch_embed(self.normalise(pixels).to(weight.dtype))

    def forward_frame(
        self, embedded: Tensor, segments: Segments, kept: Tensor | None = None, wants_maps: bool = False
    ) -> Frame:
        """Run the next frame of B segments through the transformer; updates `segments`.

        embedded `[B, N, D]`: from `embed`. kept `[B, K]` (int64): the tokens of each segment that go on after the first
        attention, None for all: a dense frame, which owes nothing to earlier ones. Raises UsageError for tokens kept in
        a first frame: there is nothing yet that could stand for the others.
        """
        batch, tokens, width = embedded.shape
        blocks = cast("list[Block]", list(self.net.blocks))
        if not segments.memory:
            if kept is not None:
                raise UsageError("the first frame of a segment is dense; no token of it can be dropped")
            segments.memory = [block.attn.new_memory(batch) for block in blocks]
        cuts = {block.attn.windows for block in blocks}
        every = {cut: cut.every(batch, embedded.device) for cut in cuts}
        queries = every if kept is None else {cut: cut.queries(kept) for cut in cuts}
        first = torch.arange(0, batch * tokens, tokens, device=embedded.device)[:, None]
        rows = None if kept is None else (first + kept).flatten()
        x, maps, padding = (embedded + self.net.positions()).flatten(0, 1), [], 0
        for number, (block, memory) in enumerate(zip(blocks, segments.memory, strict=True)):
            cut = block.attn.windows
            chosen, written = (rows, every[cut].rows) if number == 0 else (None, queries[cut].rows)
            wanted = wants_maps and cut.count == 1
            x, fused = block(x, chosen, written, queries[cut], memory, wanted)
            maps += [] if fused is None else [fused]
            padding += queries[cut].empty * 2 * cut.volume * width
        output = segments.restore(x, rows, batch)
        return Frame(output, tuple(maps), padding, None if kept is None else kept.shape[1])

    def run_parts(self, embedded: Tensor, pruner: Pruner) -> Frame:
        """Let the pruner run the blocks; whatever it remembers of older frames is its own."""
        x, ran, padding = embedded + self.net.positions(), list[Ran](), 0
        for number, block in enumerate(cast("list[Block]", list(self.net.blocks))):
            ran.append(pruner.run_block(number, x, block))
            x, cut = ran[-1].x, block.attn.windows
            padding += len(x) * cut.padding * 2 * cut.volume * x.shape[2]
        counts = {tokens for each in ran for tokens in (*each.attention, *each.mlp)}
        kept = next(iter(counts)) if len(counts) == 1 else None
        return Frame(x, (), padding, None if kept == self.config.tokens else kept, tuple(ran))

    def pyramid(self, output: Tensor) -> list[Tensor]:
        """Map the transformer's output `[B, N, D]` to levels `[B, C, side, side]`, the finest first."""
        side = self.config.grid
        picture = output.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        levels = [getattr(self, name)(picture) for name in self.stages]
        return [*levels, levels[-1][..., ::2, ::2]]

    def propose(self, levels: list[Tensor]) -> Proposals:
        """Return where objects may be, for each frame of the levels."""
        return self.proposal_generator(levels, self.config.side)

    def detect(self, output: Tensor) -> list[Detections]:
        """Find objects from the transformer's output `[B, N, D]`, frame by frame."""
        levels = self.pyramid(output)
        return self.roi_heads(levels[: len(self.stages)], self.propose(levels), self.config.side)
