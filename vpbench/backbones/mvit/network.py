"""Multiscale vision transformer, version 1 with convolutions as pooling; its tokens form a grid that stays one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import DENSE, ClipBatch, Grid, GridBackbone, Output, Pruner, TokenCounts
from vpbench.api.attention import explicit_attention
from vpbench.api.tokens import joined
from vpbench.backbones.layers import Mlp, drop_path, drop_rates, initialise, parts_of, residual
from vpbench.backbones.mvit import MVIT_B, BlockSizes, MViTConfig, Triple
from vpbench.errors import UsageError

__all__ = ["MVIT_B", "MViT", "MViTConfig"]
# Of RGB in 0..1, the same for all channels: what every published MViT was trained with.
MEAN, STD = 0.45, 0.225


class Attention(nn.Module):
    """Multi-head attention whose keys and values, and in some blocks queries, are pooled by depthwise convolutions."""

    def __init__(self, config: MViTConfig, sizes: BlockSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.q_stride, self.kv_stride = sizes.q_stride, sizes.kv_stride
        width = sizes.dim // sizes.heads
        self.qkv = nn.Linear(sizes.dim, 3 * sizes.dim)
        self.proj = nn.Linear(sizes.dim, sizes.dim)
        if sizes.q_stride is not None:
            self.pool_q, self.norm_q = _pool(config, width, sizes.q_stride)
        self.pool_k, self.norm_k = _pool(config, width, sizes.kv_stride)
        self.pool_v, self.norm_v = _pool(config, width, sizes.kv_stride)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Attend among normed tokens `x [B, 1 + grid.tokens, C]`; returns `[B, 1 + pooled tokens, C]`."""
        # one product each: the joint one is three times as large, and every part of it would be copied to be pooled
        query, key, value = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        k = self.norm_k(self._pooled(F.linear(x, *key), grid, self.pool_k))
        v = self.norm_v(self._pooled(F.linear(x, *value), grid, self.pool_v))
        q = F.linear(x, *query)
        if self.q_stride is None:
            q = q.unflatten(2, (self.heads, -1))
        else:
            q = self.norm_q(self._pooled(q, grid, self.pool_q))
        slow_backward = torch.is_grad_enabled() and q.requires_grad and q.device.type == "cpu"
        kernel = explicit_attention if slow_backward else F.scaled_dot_product_attention
        out = kernel(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)
        return self.proj(out.flatten(2))

    def _pooled(self, x: Tensor, grid: Grid, pool: nn.Conv3d) -> Tensor:
        """Pool the grid of `x [B, 1 + tokens, C]`, the class token aside; returns `[B, 1 + fewer, heads, C / heads]`.

        All heads go through one convolution with the shared weights repeated, channels last as the tokens are.
        Measured on a CPU against heads in the batch, channels first: 2.5 to 7 times faster at every size of MViT-B.
        """
        volume = _on_grid(x, grid).permute(0, 4, 1, 2, 3).contiguous(memory_format=torch.channels_last_3d)
        weight = pool.weight.repeat(self.heads, 1, 1, 1, 1)
        with torch.autocast("cpu", enabled=False):  # in bfloat16 its backward pass takes three times as long
            half = x.device.type == "cpu" and torch.is_grad_enabled()
            volume, weight = (volume.float(), weight.float()) if half else (volume, weight.to(volume.dtype))
            pooled = F.conv3d(volume, weight, None, pool.stride, pool.padding, groups=len(weight))
        tokens = torch.cat([x[:, :1], pooled.permute(0, 2, 3, 4, 1).flatten(1, 3)], dim=1)
        return tokens.unflatten(2, (self.heads, -1))


class Block(nn.Module):
    """A pre-norm transformer block that may shrink the grid (by pooling queries) and widen the tokens (in its MLP)."""

    #: see `measure.stages`; each half with its norm and residual
    timed_as: ClassVar[Mapping[str, str]] = {"_attend": "attention", "_feed_forward": "mlp"}

    def __init__(self, config: MViTConfig, sizes: BlockSizes, drop: float) -> None:
        super().__init__()
        self.q_stride, self.drop = sizes.q_stride, drop
        self.norm1 = nn.LayerNorm(sizes.dim, eps=config.eps)
        self.attn = Attention(config, sizes)
        self.norm2 = nn.LayerNorm(sizes.dim, eps=config.eps)
        self.mlp = Mlp(sizes.dim, int(sizes.dim * config.mlp_ratio), sizes.dim_out)
        self.proj = nn.Linear(sizes.dim, sizes.dim_out) if sizes.dim != sizes.dim_out else None

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Run the block on `x [B, 1 + grid.tokens, C]`, class token first; returns tokens and their grid."""
        x, grid = self._attend(x, grid)
        return self._feed_forward(x), grid

    def _attend(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Do the first half; pooled queries leave a smaller grid."""
        out = drop_path(self.attn(self.norm1(x), grid), self.drop, self.training)
        if self.q_stride is not None:
            x, grid = _max_pooled(x, grid, self.q_stride), pooled_grid(grid, self.q_stride)
        return residual(out, x), grid

    def _feed_forward(self, x: Tensor) -> Tensor:
        """Map tokens `[B, S, C]` to `[B, S, C_out]`, on a CPU some rows at a time."""
        if torch.is_grad_enabled():
            residual, branch = self._branches(x)
            return residual + drop_path(branch, self.drop, self.training)
        parts = [torch.add(*self._branches(part)) for part in parts_of(x.flatten(0, 1))]
        return joined(parts).unflatten(0, x.shape[:2])

    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.norm2(x)
        # where the width changes, the residual is a projection of the normed tokens
        return (x if self.proj is None else self.proj(z)), self.mlp(z)


class PatchEmbed(nn.Module):
    """Overlapping tubelets by a Conv3d."""

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, config.dim, config.patch_kernel, config.patch_stride, config.patch_padding)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels `[B, T, H, W, 3]` to a grid of tokens `[B, slots, rows, cols, C]`."""
        return self.proj(pixels.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


class Head(nn.Module):
    """The linear classifier."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C]` to logits `[B, classes]`."""
        return self.projection(x)


class MViT(GridBackbone):
    """MViT (arXiv 2104.11227) with conv pooling. State-dict keys are those of the published checkpoints."""

    config: MViTConfig
    timed_as: ClassVar[Mapping[str, str]] = {"embed": "embed", "staged": "gather", "classify": "head"}

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        blocks = list(config.blocks())
        self.config = config
        self.addons: dict[str, Tensor] = {}
        self.depth = config.depth
        self.heads = config.heads
        self.key_width = config.dim // config.heads
        self.grid = grid_of(config, config.frames, config.height, config.width)
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed_class = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, self.grid.per_slot, config.dim))
        self.pos_embed_temporal = nn.Parameter(torch.zeros(1, self.grid.slots, config.dim))
        drops = drop_rates(config.drop_path, config.depth)
        self.blocks = nn.ModuleList(Block(config, *each) for each in zip(blocks, drops, strict=True))
        self.norm = nn.LayerNorm(blocks[-1].dim_out, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.head = Head(blocks[-1].dim_out, config.classes)
        self.apply(initialise)
        for table in (self.cls_token, self.pos_embed_class, self.pos_embed_spatial, self.pos_embed_temporal):
            nn.init.trunc_normal_(table, std=0.02)

    def embed(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Embed `pixels` `[B, T, H, W, 3]`; returns `[B, 1 + tokens, C]`, class token first, and the tokens' grid.

        uint8 pixels are normalised here; floating-point pixels count as normalised already. Clips of another size
        than the backbone's get positions interpolated from its tables.
        """
        grid = grid_of(self.config, *pixels.shape[1:4])
        if pixels.dtype == torch.uint8:
            pixels = self.normalise(pixels)
        x = self.patch_embed(pixels.to(self.cls_token.dtype)).flatten(2, 3)
        spatial, temporal = self.positions(grid)
        x = (x + (temporal[0, :, None] + spatial)).flatten(1, 2)
        first = (self.cls_token + self.pos_embed_class).expand(x.shape[0], -1, -1)
        return torch.cat([first, x], dim=1), grid

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels as normalised floats; see `Classifier.normalise`."""
        return pixels.to(torch.float32, copy=True).sub_(255 * MEAN).div_(255 * STD)

    def positions(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """Return both tables for a grid, `[1, rows * cols, C]` and `[1, slots, C]`: our own, or interpolated."""
        spatial: Tensor = self.pos_embed_spatial
        temporal: Tensor = self.pos_embed_temporal
        if (grid.rows, grid.cols) != (self.grid.rows, self.grid.cols):
            spatial = _interpolated(spatial, (self.grid.rows, self.grid.cols), (grid.rows, grid.cols))
        if grid.slots != self.grid.slots:
            temporal = _interpolated(temporal, (1, self.grid.slots), (1, grid.slots))
        return spatial, temporal

    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips; before every block the pruner's `stage` may shrink the grid."""
        batch = pruner.resample(batch)
        x, embedded = self.embed(batch.pixels)
        grid, entering, counts, clips = embedded, [], [], x.shape[0]
        for number, block in enumerate(self.blocks):
            x, grid = self.staged(pruner, number, x, grid)
            entering.append(grid)
            x, grid = block(x, grid)
            counts.append(TokenCounts((1 + entering[-1].tokens,) * clips, (1 + grid.tokens,) * clips))
        macs, normalised = self.grid_macs(embedded, entering), self.grid_normalised_elements(entering)
        return Output(self.classify(x), tuple(counts), (macs,) * clips, (normalised,) * clips)

    def staged(self, pruner: Pruner, block: int, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Let the pruner reduce the grid of `x [B, 1 + grid.tokens, C]`; the class token passes by unchanged."""
        whole = _on_grid(x, grid)
        kept = pruner.stage(block, whole)
        if kept is whole:
            return x, grid
        return torch.cat([x[:, :1], kept.flatten(1, 3)], dim=1), Grid(*kept.shape[1:4])

    def classify(self, x: Tensor) -> Tensor:
        """Return logits `[B, classes]` from the class token of `x [B, 1 + tokens, C]`."""
        return self.head(self.dropout(self.norm(x[:, 0])))

    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another size; see `Classifier.resize`. Both tables of positions are learned."""
        config = self.config
        frames, side = frames or config.frames, size or config.height
        if positions == "recompute":
            raise UsageError("MViT's positional tables are learned, they can only be interpolated")
        grid = grid_of(config, frames, side, side)
        spatial, temporal = self.positions(grid)
        self.pos_embed_spatial = nn.Parameter(spatial.detach())
        self.pos_embed_temporal = nn.Parameter(temporal.detach())
        self.grid = grid
        self.config = replace(config, frames=frames, height=side, width=side)

    @property
    def planned_slots(self) -> int:
        """Slices that selections in time are sized for: the published code halves the frames, whatever the tubelet."""
        return self.config.frames // 2

    def planned_windows(self, ratios: Mapping[int, float]) -> dict[int, int]:
        """Tokens per slice of the windows before these blocks, as the published code plans them.

        A block that pools its queries shrinks the map before the window is sized, although the window is cut before
        the pooling; and the plan goes on with the tokens asked for, not with the square that is cut.
        """
        planned, windows = (self.config.height // self.config.patch_stride[1]) ** 2, {}
        for block, sizes in enumerate(self.config.blocks()):
            if sizes.q_stride is not None:
                planned = (int(planned**0.5) // sizes.q_stride[1]) ** 2
            if block in ratios:
                planned = windows[block] = int(planned * ratios[block])
        return windows

    def width_before(self, block: int) -> int:
        """Channels of the tokens that enter a block."""
        return [sizes.dim for sizes in self.config.blocks()][block]

    def grid_macs(self, embedded: Grid, entering: Sequence[Grid]) -> int:
        """Multiply-accumulates of one clip: its grid after the patch embedding, and those that enter the blocks.

        Closed form, per block with L tokens in, Q queries and K pooled keys (class token included in each):
        `3 L C^2`, the pooling convolutions, `2 Q K C + Q C^2`, the MLP and the residual's projection; patch embedding
        and head besides. Norms, softmax, activations and max pooling are not counted.
        """
        config = self.config
        total = embedded.tokens * 3 * prod(config.patch_kernel) * config.dim
        for grid, sizes in zip(entering, config.blocks(), strict=True):
            total += _block_macs(config, sizes, grid)
        return total + self.norm.normalized_shape[0] * config.classes

    def grid_normalised_elements(self, entering: Sequence[Grid]) -> int:
        """Elements that pass a layer norm in one clip whose block l is entered by the grid `entering[l]`."""
        total = self.norm.normalized_shape[0]
        for grid, sizes in zip(entering, self.config.blocks(), strict=True):
            queries, keys = pooled_grid(grid, sizes.q_stride), pooled_grid(grid, sizes.kv_stride)
            pooled_queries = 0 if sizes.q_stride is None else 1 + queries.tokens
            rows = (1 + grid.tokens) + 2 * (1 + keys.tokens) + pooled_queries + (1 + queries.tokens)
            total += rows * sizes.dim
        return total


def grid_of(config: MViTConfig, frames: int, height: int, width: int) -> Grid:
    """Return the token grid of clips of this size; raises UsageError unless they are square multiples of the stride."""
    t, h, w = config.patch_stride
    if height != width:
        raise UsageError(f"{height}x{width} frames are not square, and MViT's grid has to be; crop them")
    if frames % t or height % h or width % w or 0 in (frames, height):
        raise UsageError(f"{frames}x{height}x{width} frames do not fit strides of {t}x{h}x{w}; give multiples of these")
    return Grid(frames // t, height // h, width // w)


def pooled_grid(grid: Grid, stride: Triple | None) -> Grid:
    """Return what pooling with this stride leaves of a grid (None: all): `floor((n - 1) / stride) + 1` per axis."""
    t, h, w = stride or (1, 1, 1)
    return Grid((grid.slots - 1) // t + 1, (grid.rows - 1) // h + 1, (grid.cols - 1) // w + 1)


def _pool(config: MViTConfig, width: int, stride: Triple) -> tuple[nn.Conv3d, nn.LayerNorm]:
    """Make the depthwise convolution that pools heads of this width, and the norm after it."""
    t, h, w = config.pool_kernel
    padding = (t // 2, h // 2, w // 2)
    pool = nn.Conv3d(width, width, config.pool_kernel, stride, padding, groups=width, bias=False)
    return pool, nn.LayerNorm(width, eps=config.pool_eps)


def _on_grid(x: Tensor, grid: Grid) -> Tensor:
    """View tokens `[B, 1 + grid.tokens, C]` without the class token as `[B, slots, rows, cols, C]`."""
    return x[:, 1:].unflatten(1, (grid.slots, grid.rows, grid.cols))


def _max_pooled(x: Tensor, grid: Grid, stride: Triple) -> Tensor:
    """Pool the residual's grid to that of the pooled queries; the class token passes by unchanged."""
    kernel = [s + 1 if s > 1 else 1 for s in stride]
    volume = _on_grid(x, grid).permute(0, 4, 1, 2, 3)
    pooled = F.max_pool3d(volume, kernel, stride, [k // 2 for k in kernel])
    return torch.cat([x[:, :1], pooled.permute(0, 2, 3, 4, 1).flatten(1, 3)], dim=1)


def _block_macs(config: MViTConfig, sizes: BlockSizes, grid: Grid) -> int:
    """Multiply-accumulates of a block that is entered by this grid and a class token."""
    queries, keys = pooled_grid(grid, sizes.q_stride), pooled_grid(grid, sizes.kv_stride)
    convolved = 2 * keys.tokens + (0 if sizes.q_stride is None else queries.tokens)
    tokens_in, tokens_out, pooled_keys = 1 + grid.tokens, 1 + queries.tokens, 1 + keys.tokens
    dim, dim_out, hidden = sizes.dim, sizes.dim_out, int(sizes.dim * config.mlp_ratio)
    attention = 3 * tokens_in * dim * dim + 2 * tokens_out * pooled_keys * dim + tokens_out * dim * dim
    feed_forward = tokens_out * hidden * (dim + dim_out) + (tokens_out * dim * dim_out if dim != dim_out else 0)
    return attention + prod(config.pool_kernel) * dim * convolved + feed_forward


def _interpolated(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Resample a table `[1, rows * cols, C]` to another grid, linearly on both axes."""
    plane = table.transpose(1, 2).unflatten(2, source).float()
    resized = F.interpolate(plane, size=target, mode="bilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(table.dtype)
