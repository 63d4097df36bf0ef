"""VideoMAE: a plain ViT over space-time tubelets, mean-pooled, run on the packed token stream."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import Backbone, ClipBatch, Output, Pruner, TokenCounts, Trace
from vpbench.attention import attend
from vpbench.backbones.catalog import EMBEDDED, VideoMAEConfig
from vpbench.tokens import Grid, Selection, Tokens

__all__ = ["EMBEDDED", "Block", "VideoMAE", "VideoMAEConfig"]

# ImageNet statistics: what every published VideoMAE checkpoint was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Attention(nn.Module):
    """Multi-head self-attention whose query and value have a bias and whose key has none."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the attended tokens `[S, D]` and the keys `[S, H, D/H]` of packed tokens `x [S, D]`."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).view(x.shape[0], 3, self.heads, -1).unbind(dim=1)
        return self.proj(attend(q, k, v, lengths).flatten(1)), k


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens `[S, D]` to `[S, D]`."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
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

    def forward(self, tokens: Tokens, pruner: Pruner | None = None, counts: list[TokenCounts] | None = None) -> Tokens:
        """Run the block on packed tokens; `counts` collects how many tokens attention and MLP really saw."""
        attended, keys = self.attn(self.norm1(tokens.x), tokens.lengths)
        entered = tokens.lengths
        tokens = tokens.with_x(tokens.x + attended)
        trace = Trace(keys=keys)
        if pruner is not None:
            tokens = pruner.after_attention(self.layer, tokens, trace)
        if counts is not None:
            counts.append(TokenCounts(attention=entered, mlp=tokens.lengths))
        tokens = tokens.with_x(tokens.x + self.mlp(self.norm2(tokens.x)))
        return tokens if pruner is None else pruner.after_block(self.layer, tokens, trace)


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

    pos_embed: Tensor
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.depth = config.depth
        self.key_width = config.dim // config.heads
        side = config.size // config.patch
        self.grid = Grid(config.frames // config.tubelet, side, side)
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.fc_norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.head = nn.Linear(config.dim, config.classes)
        if config.stored_positions:
            self.pos_embed = nn.Parameter(separable_sinusoid(self.grid, config.dim))
        else:
            self.register_buffer("pos_embed", flat_sinusoid(self.grid.tokens, config.dim), persistent=False)
        self.register_buffer("pixel_mean", 255 * torch.tensor(MEAN), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(STD), persistent=False)
        self.apply(_initialise)

    def embed(self, pixels: Tensor, selection: Selection | None = None) -> Tokens:
        """Embed the selected tubelets of `pixels` `[B, T, H, W, 3]`; only those are normalised and multiplied.

        uint8 pixels are normalised here; floating-point pixels count as normalised already.
        """
        if selection is None:
            selection = Selection.everything(pixels.shape[0], self.grid.tokens, pixels.device)
        tubelets = self.tubelets(pixels, selection)
        dtype = self.pos_embed.dtype
        if tubelets.dtype == torch.uint8:
            tubelets = (tubelets.to(dtype) - self.pixel_mean.to(dtype)) / self.pixel_std.to(dtype)
        x = self.patch_embed(tubelets.to(dtype)) + self.pos_embed[selection.index]
        return Tokens(x, selection.index, selection.lengths)

    def tubelets(self, pixels: Tensor, selection: Selection) -> Tensor:
        """Gather the selected tubelets `[S, p, P, P, 3]` of `pixels` `[B, T, H, W, 3]` without touching the others."""
        p, patch, grid = self.config.tubelet, self.config.patch, self.grid
        cut = pixels.view(-1, grid.slots, p, grid.rows, patch, grid.cols, patch, 3).permute(0, 1, 3, 5, 2, 4, 6, 7)
        if all(length == grid.tokens for length in selection.lengths):
            return cut.reshape(-1, p, patch, patch, 3)
        index = selection.index
        lengths = torch.tensor(selection.lengths, device=index.device)
        clip = torch.arange(len(selection.lengths), device=index.device).repeat_interleave(
            lengths, output_size=sum(selection.lengths)
        )
        row, col = index // grid.cols % grid.rows, index % grid.cols
        return cut[clip, index // grid.per_slot, row, col]

    def forward(self, batch: ClipBatch, pruner: Pruner | None = None) -> Output:
        """Classify a batch of clips; see `Output` for what comes back."""
        tokens = self.embed(batch.pixels, None if pruner is None else pruner.video(batch))
        counts: list[TokenCounts] = []
        for block in self.blocks:
            tokens = block(tokens, pruner, counts)
        return Output(self.classify(tokens), tuple(counts))

    def classify(self, tokens: Tokens) -> Tensor:
        """Return logits `[B, classes]`: mean over each clip's tokens, norm, linear head."""
        logits: Tensor = self.head(self.fc_norm(tokens.mean()))
        return logits

    def macs(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Multiply-accumulates of one clip whose block l sees `attention[l]` tokens, then `mlp[l]` in its MLP.

        Closed form `4 n d^2 + 2 n^2 d + 2 m n' d^2` per block plus embedding and head; norms, softmax and
        activations are not counted.
        """
        d, hidden = self.config.dim, int(self.config.dim * self.config.mlp_ratio)
        blocks = sum(4 * n * d * d + 2 * n * n * d + 2 * m * d * hidden for n, m in zip(attention, mlp, strict=True))
        return attention[0] * self.config.pixels_per_token * d + blocks + d * self.config.classes


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
