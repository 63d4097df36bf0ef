"""VideoMAE: a plain ViT over space-time tubelets, mean-pooled, run on the packed token stream."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from vpbench.api import DENSE, Grid, Pruner, Selection, Tokens, UsageError
from vpbench.api.tokens import constant
from vpbench.backbones.layers import initialise
from vpbench.backbones.plain import Block, PatchEmbed, PlainStream, interpolate
from vpbench.backbones.videomae import MEAN, STD, VideoMAEConfig
from vpbench.backbones.videomae import VIDEOMAE_EMBEDDED as EMBEDDED

__all__ = ["EMBEDDED", "MEAN", "STD", "VideoMAE", "VideoMAEConfig"]


class VideoMAE(PlainStream):
    """Joint space-time ViT (arXiv 2203.12602). State-dict keys are those of the published fine-tuned checkpoints."""

    config: VideoMAEConfig
    timed_as: ClassVar[Mapping[str, str]] = {"embed": "embed", "classify": "head"}
    pos_embed: Tensor

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__()
        if config.dim % config.heads:
            raise UsageError(f"a width of {config.dim} cannot be cut into {config.heads} heads; give a divisor of it")
        self.config = config
        self.depth = config.depth
        self.heads = config.heads
        self.key_width = config.dim // config.heads
        self.reads_run_lengths = config.run_lengths
        self.patch_embed = PatchEmbed(config.dim, config.tubelet, config.patch)
        self.grid = self.patch_embed.grid(config.frames, config.height, config.width)
        sizes = (config.dim, config.heads, int(config.dim * config.mlp_ratio), config.eps)
        self.blocks = nn.ModuleList(Block(*sizes, layer, key_bias=False) for layer in range(config.depth))
        self.fc_norm = nn.LayerNorm(config.dim, eps=config.eps if config.fc_eps is None else config.fc_eps)
        self.head = nn.Linear(config.dim, config.classes)
        if config.stored_positions:
            self.pos_embed = nn.Parameter(separable_sinusoid(self.grid, config.dim))
        else:
            self.register_buffer("pos_embed", flat_sinusoid(self.grid.tokens, config.dim), persistent=False)
        self.length_embed = nn.Parameter(torch.zeros(1, self.grid.slots, config.dim)) if config.run_lengths else None
        self.apply(partial(initialise, kinds=nn.Linear | nn.Conv3d))
        if self.length_embed is not None:
            nn.init.trunc_normal_(self.length_embed, std=0.02)

    def embed(self, pixels: Tensor, selection: Selection | None = None) -> Tokens:
        """Embed the selected tubelets of `pixels` `[B, T, H, W, 3]`; only those are normalised and multiplied.

        uint8 pixels are normalised here; floating-point pixels count as normalised already. Clips of another size
        than the backbone's get positions interpolated from its table.
        """
        grid = self.patch_embed.grid(*pixels.shape[1:4])
        if selection is None:
            selection = Selection.everything(pixels.shape[0], grid.tokens, pixels.device)
        x = self.patches(pixels, selection) + self.positions(grid)[selection.index]
        if self.length_embed is not None:
            lengths = selection.run_lengths
            # a model trained with run lengths reads a tubelet that nobody merged as a run of one
            x = x + (self.length_embed[0, 0] if lengths is None else self.length_embed[0, lengths - 1])
        return Tokens(x, selection.index, selection.lengths)

    def patches(self, pixels: Tensor, selection: Selection | None = None) -> Tensor:
        """Return patch embeddings without positions; see `Classifier.patches`."""
        return self.patch_embed.select(pixels, selection, self.normalise, self.pos_embed.dtype)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels as normalised floats; see `Classifier.normalise`."""
        # buffers would be rounded along with the weights of a network in half precision
        mean, std = (255 * constant(each, pixels.device) for each in (self.config.mean, self.config.std))
        return (pixels.float() - mean) / std

    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another size; see `Classifier.resize`. Run-length embeddings are tied to the slots."""
        config = self.config
        frames, height, width = frames or config.frames, size or config.height, size or config.width
        grid = self.patch_embed.grid(frames, height, width)
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

    def classify(self, tokens: Tokens, pruner: Pruner = DENSE) -> Tensor:
        """Return logits `[B, classes]`: mean over each clip's tokens, norm, linear head."""
        return self.head(self.fc_norm(tokens.mean(pruner.size_pooling)))

    def refuses(self, pruner: Pruner) -> str | None:
        """Refuse to drop tubelets without run lengths where the checkpoint was trained to read them."""
        if self.length_embed is not None and pruner.acts_at("video") and not pruner.gives_run_lengths:
            return "the checkpoint was trained with run-length embeddings, and this method gives no run lengths"
        return super().refuses(pruner)


def flat_sinusoid(tokens: int, dim: int) -> Tensor:
    """Return VideoMAE's positions `[tokens, dim]`: sine (j even), cosine (j odd) of `i / 10000^(2*floor(j/2)/dim)`."""
    with torch.device("cpu"):  # on "meta", a range alone has torch import its compiler, for two seconds
        even = torch.arange(dim, dtype=torch.float64) // 2 * 2
        angle = torch.arange(tokens, dtype=torch.float64)[:, None] / 10000 ** (even / dim)
        table = torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos())
    return table.float().to(torch.get_default_device())


def separable_sinusoid(grid: Grid, dim: int) -> Tensor:
    """Return positions `[tokens, dim]` where a third of the channels codes the slot, one the row, one the column."""
    with torch.device("cpu"):
        axes = (torch.arange(size) for size in (grid.slots, grid.rows, grid.cols))
        table = flat_sinusoid(max(grid.slots, grid.rows, grid.cols), dim // 3)
        positions = torch.cat([table[axis.flatten()] for axis in torch.meshgrid(*axes, indexing="ij")], dim=1)
    return positions.to(torch.get_default_device())
