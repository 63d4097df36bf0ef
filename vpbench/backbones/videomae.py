"""VideoMAE: a plain ViT over space-time tubelets, mean-pooled, run on the packed token stream."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import DENSE, Backbone, ClipBatch, Output, Pruner, TokenCounts, Trace, UsageError
from vpbench.attention import attend, attend_with_lse
from vpbench.backbones.catalog import EMBEDDED, VideoMAEConfig
from vpbench.tokens import Grid, Selection, Tokens

__all__ = ["EMBEDDED", "Block", "VideoMAE", "VideoMAEConfig"]

# ImageNet statistics: what every published VideoMAE checkpoint was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Tokens that pass an MLP at a time on a CPU.
_ROWS = 800


class Attention(nn.Module):
    """Multi-head self-attention whose query and value have a bias and whose key has none."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, tokens: Tokens, pruner: Pruner, layer: int) -> tuple[Tensor, Trace]:
        """Attend among normed tokens `x [S, D]`; returns `[S, D]` and what a pruner may see."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).view(x.shape[0], 3, self.heads, -1).unbind(dim=1)
        lse = None
        if pruner.wants_received(layer):
            out, lse = attend_with_lse(q, k, v, tokens.lengths)
        else:
            out = attend(q, k, v, tokens.lengths, tokens.size if pruner.size_bias else None)
        return self.proj(out.flatten(1)), Trace(q, k, v, tokens.lengths, lse)


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `[S, D]` to `[S, D]`."""
        hidden = self.fc1(x)
        out: Tensor = self.fc2(F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden))
        return out


class Block(nn.Module):
    """A pre-norm transformer block with the sites `after_attention` and `after_block`."""

    def __init__(self, config: VideoMAEConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm1 = nn.LayerNorm(config.dim, eps=config.eps)
        self.attn = Attention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.eps)
        self.mlp = Mlp(config.dim, int(config.dim * config.mlp_ratio))

    def forward(self, tokens: Tokens, pruner: Pruner = DENSE, counts: list[TokenCounts] | None = None) -> Tokens:
        """Run the block on packed tokens; `counts` collects how many tokens attention and MLP really saw."""
        tokens, entered = self._attend(tokens, pruner), tokens.lengths
        if counts is not None:
            counts.append(TokenCounts(attention=entered, mlp=tokens.lengths))
        return pruner.after_block(self.layer, tokens.with_x(self._feed_forward(tokens.x)))

    def _attend(self, tokens: Tokens, pruner: Pruner) -> Tokens:
        """Add the attention's part and let the pruner act; queries, keys and values are gone when this returns."""
        x, trace = self.attn(self.norm1(tokens.x), tokens, pruner, self.layer)
        x = x + tokens.x if torch.is_grad_enabled() else x.add_(tokens.x)
        return pruner.after_attention(self.layer, tokens.with_x(x), trace)

    def _feed_forward(self, x: Tensor) -> Tensor:
        """Add the MLP's part to tokens `[S, D]`, on a CPU some rows at a time: its hidden layer stays in cache.

        Measured on an MLP of ViT-B, one thread: 5 % less time for 1568 tokens, 9 % for 3200.
        """
        pieces = -(-x.shape[0] // _ROWS) if x.device.type == "cpu" and not torch.is_grad_enabled() else 1
        return torch.cat([part + self.mlp(self.norm2(part)) for part in x.tensor_split(pieces)])


class PatchEmbed(nn.Module):
    """Tubelet embedding: a Conv3d whose stride is its kernel, applied as one matrix product to the kept tubelets."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.shape = (config.tubelet, config.patch, config.patch)
        self.proj = nn.Conv3d(3, config.dim, kernel_size=self.shape, stride=self.shape)

    def forward(self, tubelets: Tensor) -> Tensor:
        """Map normalised tubelets `[S, p, P, P, 3]` to `[S, D]`."""
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return F.linear(tubelets.flatten(1), weight, self.proj.bias)


class VideoMAE(Backbone):
    """Joint space-time ViT (arXiv 2203.12602). State-dict keys are those of the published fine-tuned checkpoints."""

    config: VideoMAEConfig
    pos_embed: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.depth = config.depth
        self.heads = config.heads
        self.key_width = config.dim // config.heads
        self.reads_run_lengths = config.run_lengths
        self.grid = grid_of(config, config.frames, config.height, config.width)
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.fc_norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.head = nn.Linear(config.dim, config.classes)
        if config.stored_positions:
            self.pos_embed = nn.Parameter(separable_sinusoid(self.grid, config.dim))
        else:
            self.register_buffer("pos_embed", flat_sinusoid(self.grid.tokens, config.dim), persistent=False)
        self.length_embed = nn.Parameter(torch.zeros(1, self.grid.slots, config.dim)) if config.run_lengths else None
        self.register_buffer("pixel_mean", 255 * torch.tensor(MEAN), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(STD), persistent=False)
        self.apply(_initialise)
        if self.length_embed is not None:
            nn.init.trunc_normal_(self.length_embed, std=0.02)

    def embed(self, pixels: Tensor, selection: Selection | None = None) -> Tokens:
        """Embed the selected tubelets of `pixels` `[B, T, H, W, 3]`; only those are normalised and multiplied.

        uint8 pixels are normalised here; floating-point pixels count as normalised already. Clips of another size
        than the backbone's get positions interpolated from its table.
        """
        grid = grid_of(self.config, *pixels.shape[1:4])
        if selection is None:
            selection = Selection.everything(pixels.shape[0], grid.tokens, pixels.device)
        tubelets = self.tubelets(pixels, grid, selection)
        dtype = self.pos_embed.dtype
        if tubelets.dtype == torch.uint8:
            tubelets = (tubelets.to(dtype) - self.pixel_mean.to(dtype)) / self.pixel_std.to(dtype)
        x = self.patch_embed(tubelets.to(dtype)) + self.positions(grid)[selection.index]
        if self.length_embed is not None:
            lengths = selection.run_lengths
            # a model trained with run lengths reads a tubelet that nobody merged as a run of one
            x = x + (self.length_embed[0, 0] if lengths is None else self.length_embed[0, lengths - 1])
        return Tokens(x, selection.index, selection.lengths)

    def tubelets(self, pixels: Tensor, grid: Grid, selection: Selection) -> Tensor:
        """Gather the selected tubelets `[S, p, P, P, 3]` of `pixels` `[B, T, H, W, 3]` without touching the others."""
        p, patch = self.config.tubelet, self.config.patch
        cut = pixels.view(-1, grid.slots, p, grid.rows, patch, grid.cols, patch, 3).permute(0, 1, 3, 5, 2, 4, 6, 7)
        if all(length == grid.tokens for length in selection.lengths):
            return cut.reshape(-1, p, patch, patch, 3)
        index = selection.index
        row, col = index // grid.cols % grid.rows, index % grid.cols
        return cut[selection.clip, index // grid.per_slot, row, col]

    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another size; see `Backbone.resize`. Run-length embeddings are tied to the number of slots."""
        config = self.config
        frames, height, width = frames or config.frames, size or config.height, size or config.width
        grid = grid_of(config, frames, height, width)
        if self.length_embed is not None and grid.slots != self.grid.slots:
            raise UsageError(f"the run-length embeddings of these weights are for {config.frames} frames, not {frames}")
        if positions == "recompute" and config.stored_positions:
            raise UsageError("these weights hold a learned positional table, which can only be interpolated")
        table = flat_sinusoid(grid.tokens, config.dim) if positions == "recompute" else self.positions(grid)
        if config.stored_positions:
            self.pos_embed = nn.Parameter(table.detach())
        else:
            self.pos_embed = table
        self.grid = grid
        self.config = replace(config, frames=frames, height=height, width=width)

    def positions(self, grid: Grid) -> Tensor:
        """Return the positional table `[tokens, D]` of a grid: our own, or ours interpolated linearly on three axes."""
        return self.pos_embed if grid == self.grid else interpolate(self.pos_embed, self.grid, grid)

    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips; see `Output` for what comes back."""
        batch = pruner.resample(batch)
        tokens = self.embed(batch.pixels, pruner.video(batch))
        counts: list[TokenCounts] = []
        for block in self.blocks:
            tokens = block(tokens, pruner, counts)
        per_clip = zip(*((c.attention, c.mlp) for c in counts), strict=True)
        attention, mlp = (zip(*of_blocks, strict=True) for of_blocks in per_clip)
        clips = list(zip(attention, mlp, strict=True))
        macs = tuple(self.macs(*clip) for clip in clips)
        normalised = tuple(self.normalised_elements(*clip) for clip in clips)
        return Output(self.classify(tokens, pruner), tuple(counts), macs, normalised)

    def classify(self, tokens: Tokens, pruner: Pruner = DENSE) -> Tensor:
        """Return logits `[B, classes]`: mean over each clip's tokens, norm, linear head."""
        logits: Tensor = self.head(self.fc_norm(tokens.mean(pruner.size_pooling)))
        return logits

    def refuses(self, pruner: Pruner) -> str | None:
        """Refuse to drop tubelets without run lengths where the checkpoint was trained to read them."""
        drops = type(pruner).video is not Pruner.video and not pruner.gives_run_lengths
        if self.length_embed is not None and drops:
            return "the checkpoint was trained with run-length embeddings, and this method gives no run lengths"
        return None

    def macs(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Multiply-accumulates of one clip whose block l sees `attention[l]` tokens, then `mlp[l]` in its MLP.

        Closed form `4 n d^2 + 2 n^2 d + 2 m n' d^2` per block plus embedding and head; norms, softmax and
        activations are not counted.
        """
        d, hidden = self.config.dim, int(self.config.dim * self.config.mlp_ratio)
        blocks = sum(4 * n * d * d + 2 * n * n * d + 2 * m * d * hidden for n, m in zip(attention, mlp, strict=True))
        return attention[0] * self.config.pixels_per_token * d + blocks + d * self.config.classes

    def backward_macs(self, tokens: int) -> int:
        """Multiply-accumulates of the last block's and the head's backward pass; attention has four products there."""
        d, hidden = self.config.dim, int(self.config.dim * self.config.mlp_ratio)
        return tokens * (4 * d * d + 2 * d * hidden + 4 * tokens * d) + d * self.config.classes

    def normalised_elements(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Elements of both norms of every block and of the one before the head."""
        return self.config.dim * (sum(attention) + sum(mlp) + 1)


def grid_of(config: VideoMAEConfig, frames: int, height: int, width: int) -> Grid:
    """Return the token grid of clips of this size; raises UsageError if tubelets do not tile them."""
    if frames % config.tubelet or height % config.patch or width % config.patch or 0 in (frames, height, width):
        raise UsageError(
            f"{frames}x{height}x{width} frames cannot be cut into tubelets of "
            f"{config.tubelet}x{config.patch}x{config.patch}; give multiples of these"
        )
    return Grid(frames // config.tubelet, height // config.patch, width // config.patch)


def interpolate(table: Tensor, source: Grid, target: Grid) -> Tensor:
    """Resample a positional table `[source.tokens, D]` to `[target.tokens, D]`, linearly on all three axes."""
    volume = table.T.reshape(1, -1, source.slots, source.rows, source.cols)
    resized = F.interpolate(
        volume.float(), size=(target.slots, target.rows, target.cols), mode="trilinear", align_corners=False
    )
    return resized[0].flatten(1).T.to(table.dtype)


def flat_sinusoid(tokens: int, dim: int) -> Tensor:
    """Return VideoMAE's positions `[tokens, dim]`: sine (j even), cosine (j odd) of `i / 10000^(2*floor(j/2)/dim)`."""
    even = torch.arange(dim, dtype=torch.float64) // 2 * 2
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] / 10000 ** (even / dim)
    table = torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos())
    return table.float()


def separable_sinusoid(grid: Grid, dim: int) -> Tensor:
    """Return positions `[tokens, dim]` where a third of the channels codes the slot, one the row, one the column."""
    t, y, x = torch.meshgrid(torch.arange(grid.slots), torch.arange(grid.rows), torch.arange(grid.cols), indexing="ij")
    third = dim // 3
    longest = max(grid.slots, grid.rows, grid.cols)
    table = flat_sinusoid(longest, third)
    return torch.cat([table[axis.flatten()] for axis in (t, y, x)], dim=1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
