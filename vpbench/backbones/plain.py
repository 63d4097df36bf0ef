"""What plain ViTs share: blocks with sites for pruning, and the tubelet embedding, on the packed token stream."""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import DENSE, ClipBatch, Grid, Output, Pruner, Selection, SingleStream, TokenCounts, Tokens, Trace
from vpbench.api.attention import attend, attend_with_fused, attend_with_lse
from vpbench.api.tokens import joined
from vpbench.backbones.layers import Derived, Mlp, drop_packed, parts_of, residual
from vpbench.errors import UsageError


class Attention(nn.Module):
    """Multi-head self-attention; without `key_bias` only queries and values have a bias, each of its own."""

    def __init__(self, dim: int, heads: int, key_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=key_bias)
        if not key_bias:
            self.q_bias = nn.Parameter(torch.zeros(dim))
            self.v_bias = nn.Parameter(torch.zeros(dim))
            self._bias = Derived(_joint_bias)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor) -> Tensor:
        """Return queries, keys and values `[S, 3, H, D/H]` of normed tokens `x [S, D]`."""
        bias = self.qkv.bias
        if bias is None:
            bias = self._bias(self.q_bias, self.v_bias)
        return F.linear(x, self.qkv.weight, bias).unflatten(1, (3, self.heads, -1))

    def forward(self, projected: Tensor, tokens: Tokens, pruner: Pruner, layer: int) -> tuple[Tensor, Trace]:
        """Attend among tokens, given what `project` returns of them; returns `[S, D]` and what a pruner may see."""
        size = tokens.size if pruner.size_bias else None
        q, k, v = projected.unbind(dim=1)
        out, trace = attended(q, k, v, tokens.lengths, size, pruner, layer)
        return self.proj(out.flatten(1)), trace


def attended(
    q: Tensor, k: Tensor, v: Tensor, lengths: tuple[int, ...], size: Tensor | None, pruner: Pruner, layer: int
) -> tuple[Tensor, Trace]:
    """Attend among packed tokens `[S, H, D/H]` with what the pruner wants of it; returns the same and its trace."""
    lse = fused = None
    if pruner.wants_received(layer):
        out, lse = attend_with_lse(q, k, v, lengths, size)
    elif pruner.wants_fused(layer):
        out, fused = attend_with_fused(q, k, v, lengths, size)
    else:
        out = attend(q, k, v, lengths, size)
    return out, Trace(q, k, v, lengths, lse, fused, size)


def _joint_bias(q: Tensor, v: Tensor) -> Tensor:
    return torch.cat([q, torch.zeros_like(q), v])


class Block(nn.Module):
    """A pre-norm transformer block with the sites `after_attention` and `after_block`."""

    #: see `measure.stages`; each half with its norm and residual
    timed_as: ClassVar[Mapping[str, str]] = {"attend": "attention", "_feed_forward": "mlp"}
    #: see `measure.execution`
    compiled_alone: ClassVar[Sequence[str]] = ("_project", "_feed_forward")

    def __init__(self, dim: int, heads: int, hidden: int, eps: float, layer: int, key_bias: bool) -> None:
        super().__init__()
        self.layer = layer
        #: probability that a branch of a sequence is dropped in training
        self.drop = 0.0
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, key_bias)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden, dim)

    def forward(self, tokens: Tokens, pruner: Pruner = DENSE, counts: list[TokenCounts] | None = None) -> Tokens:
        """Run the block on packed tokens; `counts` collects how many tokens attention and MLP really saw."""
        tokens, entered = self._attend(tokens, pruner), tokens.lengths
        return self.finish(tokens, entered, pruner, counts)

    def _attend(self, tokens: Tokens, pruner: Pruner) -> Tokens:
        """Do the first half; queries, keys and values are gone when this returns."""
        return pruner.after_attention(self.layer, *self.attend(tokens, pruner))

    def attend(self, tokens: Tokens, pruner: Pruner) -> tuple[Tokens, Trace]:
        """Add the attention's part; returns the tokens before any reduction, and what a pruner may see."""
        x, trace = self.attn(self._project(tokens.x), tokens, pruner, self.layer)
        if self.training and self.drop:
            x = drop_packed(x, tokens.lengths, self.drop)
        return tokens.with_x(residual(x, tokens.x)), replace(trace, entered=tokens.x)

    def _project(self, x: Tensor) -> Tensor:
        return self.attn.project(self.norm1(x))

    def finish(
        self, tokens: Tokens, entered: tuple[int, ...], pruner: Pruner, counts: list[TokenCounts] | None
    ) -> Tokens:
        """Do the second half, after any reduction of the `entered` tokens per clip."""
        if counts is not None:
            counts.append(TokenCounts(attention=entered, mlp=tokens.lengths))
        if self.training and self.drop:
            branch = drop_packed(self.mlp(self.norm2(tokens.x)), tokens.lengths, self.drop)
            return pruner.after_block(self.layer, tokens.with_x(tokens.x + branch))
        return pruner.after_block(self.layer, tokens.with_x(self._feed_forward(tokens.x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        """Add the MLP's part to tokens `[S, D]`, on a CPU some rows at a time."""
        return joined([part + self.mlp(self.norm2(part)) for part in parts_of(x)])

    # the block by its parts, see `api.BlockParts`

    everywhere = True

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.attn.heads

    @property
    def hidden(self) -> int:
        """Width of the layer inside the MLP."""
        return self.mlp.fc1.out_features

    def qkv(self, normed: Tensor) -> Tensor:
        """Return queries, keys and values `[R, 3 D]` of normed tokens."""
        return self.attn.project(normed).flatten(1)

    def attention(self, projected: Tensor) -> Tensor:
        """Attend among the tokens of each item, `[B, N, 3 D]` to `[B, N, D]`."""
        batch, tokens, _ = projected.shape
        q, k, v = projected.view(batch * tokens, 3, self.heads, -1).unbind(dim=1)
        return attend(q, k, v, (tokens,) * batch).reshape(batch, tokens, -1)

    def projection(self, attended: Tensor) -> Tensor:
        """Return what the layer after attention makes of tokens `[R, D]`."""
        return self.attn.proj(attended)

    def feed_forward(self, normed: Tensor) -> Tensor:
        """Return what the MLP makes of normed tokens `[R, D]`, on a CPU some rows at a time."""
        return joined([self.mlp(part) for part in parts_of(normed)])

    def tables(self) -> None:
        """There are no relative positions."""

    def attention_macs(self, tokens: int) -> int:
        """Multiply-accumulates of both products among so many tokens."""
        return 2 * tokens**2 * self.attn.proj.in_features

    def attention_counts(self, tokens: int) -> Mapping[str, int]:
        """Return the same: nothing is added inside."""
        return {"matmul": self.attention_macs(tokens)}


@dataclass(frozen=True)
class Cut:
    """How clips are cut into tubelets of so many frames and square patches of so many pixels."""

    tubelet: int
    patch: int

    @property
    def values(self) -> int:
        """Values of one tubelet, of three colours."""
        return 3 * self.tubelet * self.patch**2

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """Return the token grid of clips of this size; raises UsageError if tubelets do not tile them."""
        t, p = self.tubelet, self.patch
        if frames % t or height % p or width % p or 0 in (frames, height, width):
            raise UsageError(
                f"{frames}x{height}x{width} frames cannot be cut into tubelets of {t}x{p}x{p}; give multiples of these"
            )
        return Grid(frames // t, height // p, width // p)

    def gather(self, pixels: Tensor, grid: Grid, selection: Selection) -> Tensor:
        """Return the selected tubelets `[S, p, P, P, 3]` of `pixels` `[B, T, H, W, 3]` without touching the others."""
        p, patch = self.tubelet, self.patch
        cut = pixels.view(-1, grid.slots, p, grid.rows, patch, grid.cols, patch, 3).permute(0, 1, 3, 5, 2, 4, 6, 7)
        if all(length == grid.tokens for length in selection.lengths):
            return cut.reshape(-1, p, patch, patch, 3)
        index = selection.index
        row, col = index // grid.cols % grid.rows, index % grid.cols
        return cut[selection.clip, index // grid.per_slot, row, col]


def projected(tubelets: Tensor, proj: nn.Module) -> Tensor:
    """Map normalised tubelets `[S, p, P, P, 3]` to `[S, D]` as a Conv3d does whose stride is its kernel."""
    assert isinstance(proj, nn.Conv3d)
    return F.linear(tubelets.flatten(1), proj.weight.permute(0, 2, 3, 4, 1).flatten(1), proj.bias)


class PatchEmbed(nn.Module):
    """Tubelet embedding: a Conv3d whose stride is its kernel, applied as one matrix product to the kept tubelets."""

    def __init__(self, dim: int, tubelet: int, patch: int) -> None:
        super().__init__()
        self.cut = Cut(tubelet, patch)
        shape = (tubelet, patch, patch)
        self.proj = nn.Conv3d(3, dim, kernel_size=shape, stride=shape)

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """Return the token grid of clips of this size; see `Cut.grid`."""
        return self.cut.grid(frames, height, width)

    def forward(self, tubelets: Tensor) -> Tensor:
        """Map normalised tubelets `[S, p, P, P, 3]` to `[S, D]`."""
        return projected(tubelets, self.proj)

    def select(
        self, pixels: Tensor, selection: Selection | None, normalise: Callable[[Tensor], Tensor], dtype: torch.dtype
    ) -> Tensor:
        """Embed the selected tubelets (None: all) of `pixels` `[B, T, H, W, 3]`, `[S, D]`; see `Classifier.patches`."""
        grid = self.grid(*pixels.shape[1:4])
        chosen = selection or Selection.everything(pixels.shape[0], grid.tokens, pixels.device)
        tubelets = self.gather(pixels, grid, chosen)
        if tubelets.dtype == torch.uint8:
            tubelets = normalise(tubelets)
        found: Tensor = self(tubelets.to(dtype))
        return found

    def gather(self, pixels: Tensor, grid: Grid, selection: Selection) -> Tensor:
        """Return the selected tubelets `[S, p, P, P, 3]` of `pixels` `[B, T, H, W, 3]`; see `Cut.gather`."""
        return self.cut.gather(pixels, grid, selection)


class PlainStream(SingleStream):
    """A plain ViT on one stream of tokens: what it embeds goes through its blocks, and is classified."""

    patch_embed: PatchEmbed
    #: of `Block`
    blocks: nn.ModuleList

    @abc.abstractmethod
    def embed(self, pixels: Tensor, selection: Selection | None = None) -> Tokens:
        """Embed the selected tubelets of `pixels` `[B, T, H, W, 3]` (None: all), with their positions."""

    @abc.abstractmethod
    def classify(self, tokens: Tokens, pruner: Pruner = DENSE) -> Tensor:
        """Return logits `[B, classes]` of the tokens that are left."""

    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips; see `Output` for what comes back."""
        batch = pruner.resample(batch)
        tokens = self.embed(batch.pixels, pruner.video(batch))
        counts: list[TokenCounts] = []
        for block in self.blocks:
            tokens = block(tokens, pruner, counts)
        return self.output(self.classify(tokens, pruner), counts)

    @property
    def _widths(self) -> tuple[int, int]:
        """Width of a token, and of the hidden layer of an MLP."""
        first: Block = self.blocks[0]  # type: ignore[assignment]
        return first.mlp.fc1.in_features, first.mlp.fc1.out_features

    def macs(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Multiply-accumulates of one clip whose block l sees `attention[l]` tokens, then `mlp[l]` in its MLP.

        Closed form `4 n d^2 + 2 n^2 d + 2 m n' d^2` per block plus embedding and head; norms, softmax and
        activations are not counted.
        """
        d, hidden = self._widths
        blocks = sum(4 * n * d * d + 2 * n * n * d + 2 * m * d * hidden for n, m in zip(attention, mlp, strict=True))
        return attention[0] * self.patch_embed.cut.values * d + blocks + d * self.config.classes

    def backward_macs(self, tokens: int) -> int:
        """Multiply-accumulates of the last block's and the head's backward pass; attention has four products there."""
        d, hidden = self._widths
        return tokens * (4 * d * d + 2 * d * hidden + 4 * tokens * d) + d * self.config.classes

    def normalised_elements(self, attention: tuple[int, ...], mlp: tuple[int, ...]) -> int:
        """Elements of both norms of every block and of the one before the head."""
        return self._widths[0] * (sum(attention) + sum(mlp) + 1)


def interpolate(table: Tensor, source: Grid, target: Grid) -> Tensor:
    """Resample a positional table `[source.tokens, D]` to `[target.tokens, D]`, linearly on all three axes."""
    volume = table.T.reshape(1, -1, source.slots, source.rows, source.cols)
    resized = F.interpolate(
        volume.float(), size=(target.slots, target.rows, target.cols), mode="trilinear", align_corners=False
    )
    return resized[0].flatten(1).T.to(table.dtype)
