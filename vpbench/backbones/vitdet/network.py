"""ViTDet: a plain ViT with windows on a square grid, a simple pyramid and a detection head, frame after frame.

A frame is dense, or only some of its tokens go on: all others then keep the keys, values and output of older frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import DENSE, Detections, FrameBackbone, Grid, Pruner
from vpbench.api.contexts import in_its_own_precision, precise
from vpbench.api.tokens import constant
from vpbench.backbones.layers import Derived, Mlp, initialise
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.backbones.vitdet.head import RoiHeads
from vpbench.backbones.vitdet.proposals import ProposalGenerator, Proposals
from vpbench.backbones.vitdet.pyramid import PyramidStage
from vpbench.backbones.vitdet.windows import Queries, SquareWindows
from vpbench.errors import UsageError

# Elements of the attention map, or of its bias, that exist at a time: on a CPU they stay in cache.
_PIECE = {"cpu": 1 << 20}
_LARGE_PIECE = 1 << 27


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
    that went on, None where all did.
    """

    output: Tensor
    maps: tuple[Tensor, ...]
    padding: int
    kept: int | None


class Attention(nn.Module):
    """Multi-head attention inside the windows of a square grid, with decomposed relative positions."""

    def __init__(self, config: ViTDetConfig, windows: SquareWindows, table: int) -> None:
        super().__init__()
        self.heads, self.windows = config.heads, windows
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        places, width = 2 * table - 1, config.dim // config.heads
        self.rel_pos_h = nn.Parameter(nn.init.trunc_normal_(torch.empty(places, width), std=0.02))
        self.rel_pos_w = nn.Parameter(nn.init.trunc_normal_(torch.empty(places, width), std=0.02))
        self._tables = Derived(_relatives)

    def forward(
        self, y: Tensor, chosen: Tensor | None, written: Tensor, queries: Queries, memory: Tensor, wants_map: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Write the keys and values of tokens `y` `[T, D]` into memory at `written`; attend from those `chosen`.

        chosen `[R]`: rows of y, None for all. Returns `[R, D]` and, if wanted, the map `[A, M, V]` fused over heads.
        """
        width = y.shape[1]
        if chosen is None:
            q, kv = self.qkv(y).split([width, 2 * width], dim=1)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q, kv = F.linear(y[chosen], weight[:width], bias[:width]), F.linear(y, weight[width:], bias[width:])
        memory.index_copy_(0, written, kv.unflatten(1, (2, self.heads, -1)).to(memory.dtype))
        out, fused = self._among(q.unflatten(1, (self.heads, -1)), queries, memory, wants_map)
        return self.proj(out.flatten(1)), fused

    def new_memory(self, batch: int) -> Tensor:
        """Return memory for `batch` segments in which padding is what the qkv layer makes of zeros: its bias."""
        _, *kv = self.qkv.bias.detach().view(3, self.heads, -1)
        return torch.stack(kv).repeat(batch * self.windows.count * self.windows.volume, 1, 1, 1)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the relative positions of both axes `[side, side, width]`, query by key; kept in evaluation."""
        return self._tables(self.rel_pos_h, self.rel_pos_w, side=self.windows.size)

    def _among(self, q: Tensor, queries: Queries, memory: Tensor, wants_map: bool) -> tuple[Tensor, Tensor | None]:
        """Attend from `q` `[R, heads, width]` to the memory of the windows they are in."""
        size, width = self.windows.size, q.shape[2]
        vertical, horizontal = self.tables()
        along_y = q @ vertical[queries.y].transpose(1, 2)
        along_x = q @ horizontal[queries.x].transpose(1, 2)
        spread = queries.spread(torch.cat([q, along_y, along_x], dim=2)).transpose(1, 2)
        kv = memory.view(-1, self.windows.volume, 2, *memory.shape[2:])
        kv = kv if queries.windows is None else kv[queries.windows]
        k, v = kv.permute(2, 0, 3, 1, 4)
        piece = _PIECE.get(q.device.type, _LARGE_PIECE) // (len(kv) * self.heads * self.windows.volume)
        out, maps = [], []
        for part in spread.split(max(1, piece), dim=2):
            some, along_y, along_x = part.split([width, size, size], dim=3)
            bias = (along_y[..., :, None] + along_x[..., None, :]).flatten(3)
            if wants_map:
                attended, fused = _explicit(some, k, v, bias)
                maps.append(fused)
            else:
                attended = F.scaled_dot_product_attention(some, k, v, attn_mask=bias)
            out.append(attended)
        joined = queries.packed(torch.cat(out, dim=2).transpose(1, 2))
        return joined, torch.cat(maps, dim=1) if wants_map else None


@in_its_own_precision
def _explicit(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Attention `[A, heads, M, width]`, and its map, float32 `[A, M, V]`, fused over heads by root mean square."""
    products = precise(q) @ precise(k).transpose(-2, -1)
    weights = torch.add(precise(bias), products, alpha=q.shape[-1] ** -0.5).softmax(-1, dtype=torch.float32)
    return (weights.to(v.dtype) @ v).to(q.dtype), weights.square().mean(1).sqrt()


def _relatives(vertical: Tensor, horizontal: Tensor, side: int) -> tuple[Tensor, Tensor]:
    return relative(vertical, side), relative(horizontal, side)


def relative(table: Tensor, side: int) -> Tensor:
    """Return the entry for each query and key of an axis, `[side, side, width]`, of a table `[2S - 1, width]`.

    Where the axis is not S long, the S x S picture of entries is resized: not the table itself.
    """
    length = (len(table) + 1) // 2
    place = torch.arange(length, device=table.device)
    entries = table[place[:, None] - place[None] + length - 1]
    return entries if length == side else resized(entries, side).contiguous()


def resized(picture: Tensor, side: int) -> Tensor:
    """Resize a picture `[S, S, width]` to `[side, side, width]`, bicubic."""
    image = picture.permute(2, 0, 1)[None].float()
    image = F.interpolate(image, (side, side), mode="bicubic", align_corners=False)
    return image[0].permute(1, 2, 0).to(picture.dtype)


class Block(nn.Module):
    """A pre-norm transformer block; its attention is in windows of a square grid, one of which may be the grid."""

    #: see `measure.stages`; each half with its norm and residual
    timed_as: ClassVar[Mapping[str, str]] = {"_attend": "attention", "_feed_forward": "mlp"}

    def __init__(self, config: ViTDetConfig, number: int) -> None:
        super().__init__()
        inside = number in config.windowed
        size, table = (config.window, config.window) if inside else (config.grid, config.global_table)
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
        embedded = self.embed(pixels)
        frame = self.forward_frame(embedded, segments, pruner.frame(embedded), pruner.wants_maps)
        found = self.detect(frame.output)
        pruner.output(frame.maps, found)
        return frame, found

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
