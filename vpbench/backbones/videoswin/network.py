"""Video Swin transformer: attention in shifted 3-D windows; its tokens form a grid that stays one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import DENSE, ClipBatch, Grid, GridBackbone, Output, Pruner, TokenCounts
from vpbench.api.contexts import precise
from vpbench.api.tokens import constant, joined
from vpbench.backbones.layers import Derived, Mlp, drop_path, drop_rates, initialise, parts_of
from vpbench.backbones.videoswin import Triple, VideoSwinConfig
from vpbench.backbones.videoswin.windows import Partition, partition, relative_index

# Of RGB in 0..1: what every published VideoSwin was trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Tokens of windows that pass an attention at a time on a CPU.
_ROWS = 800


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for each relative position."""

    def __init__(self, dim: int, heads: int, window: Triple) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        places = prod(2 * size - 1 for size in window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(places, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self._bias = Derived(_biases)

    def forward(self, windows: Tensor, cut: Partition) -> Tensor:
        """Attend among the tokens of each window; `[B, windows, V, C]` to the same."""
        bias = self.bias(windows.shape[2])
        if len(cut.groups) == 1:
            return self._attend(windows, bias, cut.groups[0].mask)
        out = torch.empty_like(windows)
        for group in cut.groups:
            out[:, group.windows] = self._attend(windows[:, group.windows], bias, group.mask).to(out.dtype)
        return out

    def bias(self, tokens: int) -> Tensor:
        """Return the bias `[heads, tokens, tokens]`; in evaluation it is gathered once and kept."""
        table = self.relative_position_bias_table
        return self._bias(table, relative_index(self.window, tokens, table.device))

    def _attend(self, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """Attend in windows `[B, n, V, C]` with one mask `[1, V, V]`, one for each window, or none."""
        each = mask is not None and len(mask) > 1
        # on a CPU a few windows at a time: their queries, keys and values stay in cache
        small = x.device.type == "cpu" and not torch.is_grad_enabled() and not each
        batch, pieces = x.shape[0], max(1, x.shape[0] * x.shape[1] * x.shape[2] // _ROWS) if small else 1
        if mask is not None:
            bias = bias + mask[:, None]
            bias = bias.repeat(batch, 1, 1, 1) if each else bias
        parts = [self._attend_some(part, bias) for part in x.flatten(0, 1).tensor_split(pieces)]
        return joined(parts).unflatten(0, (batch, -1))

    def _attend_some(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend in windows `[n, V, C]`; bias: `[n or 1, heads, V, V]` or `[heads, V, V]`."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if torch.is_grad_enabled() and q.requires_grad and q.device.type == "cpu":  # the fused backward pass is slow
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
            out = precise(scores).softmax(-1).to(v.dtype) @ v
        else:
            bias = bias.to(q.dtype).expand(len(x), -1, -1, -1)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(out.transpose(1, 2).flatten(2))


def _biases(table: Tensor, index: Tensor) -> Tensor:
    """Gather the bias of each query and key, `[heads, tokens, tokens]`, from a table `[places, heads]`."""
    found = table[index].permute(2, 0, 1)
    return found if torch.is_grad_enabled() else found.contiguous()


class Block(nn.Module):
    """A pre-norm transformer block whose attention is in windows, moved by half a window in every other block."""

    #: see `measure.stages`; each half with its norm and residual
    timed_as: ClassVar[Mapping[str, str]] = {"_attend": "attention", "_feed_forward": "mlp"}

    def __init__(self, config: VideoSwinConfig, stage: int, number: int, drop: float) -> None:
        super().__init__()
        dim = config.dim << stage
        self.window, self.shifted, self.drop = config.window, number % 2 == 1, drop
        self.norm1 = nn.LayerNorm(dim, eps=config.eps)
        self.attn = WindowAttention(dim, config.heads[stage], config.window)
        self.norm2 = nn.LayerNorm(dim, eps=config.eps)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on a grid `[B, D, H, W, C]`."""
        return self._feed_forward(self._attend(x))

    def _attend(self, x: Tensor) -> Tensor:
        """Add the attention's part."""
        grid = tuple(x.shape[1:4])
        cut = partition(grid, self.window, self.shifted, x.device)
        # padding comes after the norm, and takes part as keys and values: so it is published
        y = F.pad(self.norm1(x), [0, 0, *_far(cut.padded[2] - grid[2]), *_far(cut.padded[1] - grid[1]),
                                  *_far(cut.padded[0] - grid[0])])  # fmt: skip
        y = cut.joined(self.attn(cut.cut(y), cut))
        y = y[:, : grid[0], : grid[1], : grid[2]]
        return x + drop_path(y, self.drop, self.training)

    def _feed_forward(self, x: Tensor) -> Tensor:
        """Add the MLP's part, on a CPU some rows at a time."""
        out = joined([self.mlp(self.norm2(part)) for part in parts_of(x.flatten(0, 3))])
        return x + drop_path(out.view(x.shape), self.drop, self.training)


class PatchMerging(nn.Module):
    """Join 2 x 2 neighbours of a slice into one token of twice the width."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map a grid `[B, D, H, W, C]` to `[B, D, H/2, W/2, 2C]`, odd sides padded."""
        x = F.pad(x, [0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2])
        corners = [x[:, :, row::2, col::2] for col in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class Stage(nn.Module):
    """Blocks of one width, and the merging that leads to the next."""

    def __init__(self, config: VideoSwinConfig, number: int, drops: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, number, n, drop) for n, drop in enumerate(drops))
        last = number == len(config.depths) - 1
        self.downsample = None if last else PatchMerging(config.dim << number, config.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Run the stage on a grid `[B, D, H, W, C]`."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    """Tubelets that do not overlap, embedded by one matrix product, and a norm."""

    def __init__(self, config: VideoSwinConfig) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, config.dim, config.patch, config.patch)
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels `[B, T, H, W, 3]` to a grid `[B, D, H', W', C]`, padded to whole tubelets."""
        t, h, w = self.proj.kernel_size
        far = [-n % size for n, size in zip(pixels.shape[1:4], (t, h, w), strict=True)]
        pixels = F.pad(pixels, [0, 0, 0, far[2], 0, far[1], 0, far[0]])
        batch, frames, height, width, _ = pixels.shape
        boxes = pixels.view(batch, frames // t, t, height // h, h, width // w, w, 3)
        patches = boxes.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(4)
        return self.norm(F.linear(patches, self.proj.weight.flatten(1), self.proj.bias))


class VideoSwin(GridBackbone):
    """Video Swin transformer (arXiv 2106.13230). State-dict keys are the published ones without `backbone.`."""

    config: VideoSwinConfig
    timed_as: ClassVar[Mapping[str, str]] = {"embed": "embed", "classify": "head"}

    def __init__(self, config: VideoSwinConfig) -> None:
        super().__init__()
        self.config = config
        self.addons: dict[str, Tensor] = {}
        self.depth, self.heads = sum(config.depths), config.heads[0]
        self.key_width = config.dim // config.heads[0]
        self.grid = Grid(*config.grid(config.frames, config.height, config.width))
        self.patch_embed = PatchEmbed(config)
        drops = iter(drop_rates(config.drop_path, self.depth))
        self.layers = nn.ModuleList(
            Stage(config, stage, [next(drops) for _ in range(depth)]) for stage, depth in enumerate(config.depths)
        )
        width = config.dim << (len(config.depths) - 1)
        self.norm = nn.LayerNorm(width, eps=config.eps)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(width, config.classes)
        self.apply(initialise)

    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips; before every stage the pruner's `stage` may shrink the grid."""
        batch = pruner.resample(batch)
        x = self.embed(batch.pixels)
        embedded, entering = Grid(*x.shape[1:4]), []
        for number, stage in enumerate(self.layers):
            x = pruner.stage(number, x)
            entering.append(Grid(*x.shape[1:4]))
            x = stage(x)
        logits = self.classify(x)
        clips = len(logits)
        layers = [grid for grid, depth in zip(entering, self.config.depths, strict=True) for _ in range(depth)]
        counts = tuple(TokenCounts((grid.tokens,) * clips, (grid.tokens,) * clips) for grid in layers)
        macs, normalised = self.grid_macs(embedded, entering), self.grid_normalised_elements(embedded, entering)
        padding = sum(self._padding_macs(stage, grid) for stage, grid in enumerate(entering))
        return Output(logits, counts, (macs,) * clips, (normalised,) * clips, (padding,) * clips)

    def embed(self, pixels: Tensor) -> Tensor:
        """Embed `pixels` `[B, T, H, W, 3]`, uint8 or normalised already, as a grid of tokens `[B, D, H, W, C]`."""
        pixels = self.normalise(pixels) if pixels.dtype == torch.uint8 else pixels
        return self.patch_embed(pixels.to(self.head.weight.dtype))

    def classify(self, x: Tensor) -> Tensor:
        """Return logits `[B, classes]` from the mean over a grid of tokens `[B, D, H, W, C]`."""
        x = self.norm(x)
        return self.head(self.dropout(precise(x).mean(dim=(1, 2, 3)).to(x.dtype)))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels as normalised floats; see `Classifier.normalise`."""
        mean, std = (255 * constant(each, pixels.device) for each in (MEAN, STD))
        return pixels.to(torch.float32, copy=True).sub_(mean).div_(std)

    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another size; see `Classifier.resize`. There are no positions, only offsets inside windows."""
        config = self.config
        self.config = replace(
            config, frames=frames or config.frames, height=size or config.height, width=size or config.width
        )
        self.grid = Grid(*self.config.grid(self.config.frames, self.config.height, self.config.width))

    @property
    def sites(self) -> int:
        """Stages."""
        return len(self.config.depths)

    @property
    def planned_slots(self) -> int:
        """Slices that selections in time are sized for."""
        return self.config.frames // self.config.patch[0]

    def planned_windows(self, ratios: Mapping[int, float]) -> dict[int, int]:
        """Tokens per slice of the windows before these stages, as the published code plans them.

        The plan goes on with the tokens asked for, not with the square that is cut; each merging leaves a quarter.
        """
        planned, windows = (self.config.height // self.config.patch[1]) ** 2, {}
        for stage in range(self.sites):
            if stage in ratios:
                planned = windows[stage] = int(planned * ratios[stage])
            planned //= 4
        return windows

    def width_before(self, block: int) -> int:
        """Channels of the tokens that enter a stage."""
        return self.config.dim << block

    def grid_macs(self, embedded: Grid, entering: Sequence[Grid]) -> int:
        """Multiply-accumulates of one clip: its grid after the patch embedding, and those that enter the stages.

        Closed form, per block with L tokens, P with padding, windows of V: `4 P C^2 + 2 P V C + 8 L C^2`; patch
        embedding, merging (`8 C^2` for each token it leaves) and head besides. Norms, softmax and activations are not
        counted.
        """
        total = embedded.tokens * 3 * prod(self.config.patch) * self.config.dim
        for stage, grid in enumerate(entering):
            dim = self.width_before(stage)
            feed_forward = 2 * self.config.depths[stage] * grid.tokens * int(dim * self.config.mlp_ratio) * dim
            attention = self._attention_macs(stage, grid, prod(self._cut(grid).padded))
            total += attention + feed_forward + 8 * dim * dim * self._merged(stage, grid)
        return total + self.width_before(self.sites - 1) * self.config.classes

    def grid_normalised_elements(self, embedded: Grid, entering: Sequence[Grid]) -> int:
        """Elements that pass a layer norm in one clip whose stage i is entered by the grid `entering[i]`."""
        total = embedded.tokens * self.config.dim
        for stage, grid in enumerate(entering):
            dim = self.width_before(stage)
            total += 2 * self.config.depths[stage] * grid.tokens * dim + 4 * self._merged(stage, grid) * dim
        return total + entering[-1].tokens * self.width_before(self.sites - 1)

    def _attention_macs(self, stage: int, grid: Grid, tokens: int) -> int:
        """Multiply-accumulates of a stage's attention layers for this many of the positions in their windows."""
        dim, volume = self.width_before(stage), prod(self._cut(grid).window)
        return self.config.depths[stage] * tokens * (4 * dim * dim + 2 * volume * dim)

    def _padding_macs(self, stage: int, grid: Grid) -> int:
        """Multiply-accumulates of a stage that no token asks for: its padding to whole windows does."""
        return self._attention_macs(stage, grid, prod(self._cut(grid).padded) - grid.tokens)

    def _merged(self, stage: int, grid: Grid) -> int:
        """Tokens that the merging after a stage leaves, 0 after the last."""
        return grid.slots * -(-grid.rows // 2) * -(-grid.cols // 2) if stage + 1 < self.sites else 0

    def _cut(self, grid: Grid) -> Partition:
        return partition((grid.slots, grid.rows, grid.cols), self.config.window, False, self.norm.weight.device)


def _far(amount: int) -> tuple[int, int]:
    return 0, amount
