"""VideoMAE, ViViT with joint attention, and V-JEPA 2 of `transformers`, as streams of tokens."""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vpbench.api import DENSE, Classifier, Grid, Pruner, Selection, Tokens
from vpbench.backbones.huggingface import HuggingFaceConfig
from vpbench.backbones.huggingface.library import follow
from vpbench.backbones.huggingface.streams import Stream, first_of, square, with_first
from vpbench.backbones.plain import Cut, interpolate
from vpbench.backbones.videomae.network import flat_sinusoid
from vpbench.errors import UsageError


def wrapped(sizes: HuggingFaceConfig) -> Classifier:
    """Build the classifier of `transformers` of these sizes; raises UsageError for types that are no stream."""
    kinds: dict[str, type[Stream]] = {"videomae": VideoMAE, "vivit": ViViT, "vjepa2": VJEPA2}
    if sizes.model_type == "":
        raise UsageError("hf takes its sizes from a folder's config.json: give --weights FOLDER or org/name")
    return kinds[sizes.model_type](sizes)


class VideoMAE(Stream):
    """`VideoMAEForVideoClassification`: a fixed table of positions, mean over tokens, norm, classifier."""

    table: Tensor

    def __init__(self, config: HuggingFaceConfig) -> None:
        super().__init__(config)
        own = self.network.videomae.embeddings.position_embeddings[0]
        self.register_buffer("table", own.to(torch.get_default_device()), persistent=False)

    def _cut(self, own: Any) -> Cut:
        if not own.use_mean_pooling:
            raise UsageError("use_mean_pooling false: the class is read off the first token, which pruning may drop")
        return Cut(own.tubelet_size, square(own.patch_size, "patch_size"))

    @property
    def layers(self) -> nn.ModuleList:
        """The library's blocks."""
        return self.network.videomae.encoder.layer

    @property
    def projection(self) -> nn.Module:
        """The library's convolution over tubelets."""
        return self.network.videomae.embeddings.patch_embeddings.projection

    def attention_of(self, layer: Any) -> nn.Module:
        """Return the module that asks for the attention function."""
        return layer.attention.attention

    def branch(self, layer: Any, x: Tensor) -> Tensor:
        """Run norm and attention."""
        return layer.attention(layer.layernorm_before(x))

    def second(self, layer: Any, x: Tensor) -> Tensor:
        """Run norm and MLP."""
        return layer.output(layer.intermediate(layer.layernorm_after(x)), x)

    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another size; see `Classifier.resize`."""
        config, grid = _resized(self, frames, size)
        recomputed = positions == "recompute"
        self.table = flat_sinusoid(grid.tokens, self.width) if recomputed else self._positions(grid)
        self.config, self.grid = config, grid

    def _positions(self, grid: Grid) -> Tensor:
        return self.table if grid == self.grid else interpolate(self.table, self.grid, grid)

    def positioned(self, x: Tensor, selection: Selection, grid: Grid) -> Tensor:
        """Add the fixed table's positions, interpolated for clips of another size."""
        return x + self._positions(grid)[selection.index]

    def classify(self, x: Tensor, tokens: Tokens, pruner: Pruner) -> Tensor:
        """Return logits: mean over each clip's tokens, norm, linear head."""
        return self.network.classifier(self.network.fc_norm(tokens.with_x(x).mean(pruner.size_pooling)))

    def head_macs(self, left: int) -> int:
        """Multiply-accumulates of the classifier."""
        return self.width * self.config.classes

    def head_norms(self, left: int) -> int:
        """Tokens that pass the last norm: the mean."""
        return 1


class ViViT(Stream):
    """`VivitForVideoClassification`: all tubelets of a clip and its class token attend to each other (model 1)."""

    classed: ClassVar[int] = 1

    def _cut(self, own: Any) -> Cut:
        tubelet, *patch = own.tubelet_size
        return Cut(tubelet, square(patch, "tubelet_size"))

    @property
    def layers(self) -> nn.ModuleList:
        """The library's blocks."""
        return self.network.vivit.layers

    @property
    def projection(self) -> nn.Module:
        """The library's convolution over tubelets."""
        return self.network.vivit.embeddings.patch_embeddings.projection

    def attention_of(self, layer: Any) -> nn.Module:
        """Return the module that asks for the attention function."""
        return layer.attention

    def branch(self, layer: Any, x: Tensor) -> Tensor:
        """Run norm and attention."""
        return layer.attention(layer.layernorm_before(x), None)[0]

    def second(self, layer: Any, x: Tensor) -> Tensor:
        """Run norm and MLP."""
        return x + layer.mlp(layer.layernorm_after(x))

    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another size; see `Classifier.resize`."""
        if positions == "recompute":
            raise UsageError("these weights hold a learned positional table, which can only be interpolated")
        config, grid = _resized(self, frames, size)
        self.network.vivit.embeddings.position_embeddings = nn.Parameter(self._positions(grid)[None].detach())
        self.config, self.grid = config, grid

    def _positions(self, grid: Grid) -> Tensor:
        """Return the table `[1 + N, D]` of a grid, interpolated linearly on three axes where it is another one's."""
        table = self.network.vivit.embeddings.position_embeddings[0]
        return table if grid == self.grid else torch.cat([table[:1], interpolate(table[1:], self.grid, grid)])

    def positioned(self, x: Tensor, selection: Selection, grid: Grid) -> Tensor:
        """Add the learned table's positions, and put the class token first in each clip."""
        table = self._positions(grid)
        first = self.network.vivit.embeddings.cls_token[0] + table[:1]
        return with_first(first.expand(len(selection.lengths), -1), x + table[1 + selection.index], selection.lengths)

    def classify(self, x: Tensor, tokens: Tokens, pruner: Pruner) -> Tensor:
        """Return logits: norm and linear head of the class tokens."""
        return self.network.classifier(self.network.vivit.layernorm(first_of(x, tokens.lengths)))

    def head_macs(self, left: int) -> int:
        """Multiply-accumulates of the classifier."""
        return self.width * self.config.classes

    def head_norms(self, left: int) -> int:
        """Tokens that pass the last norm: the class token."""
        return 1


class VJEPA2(Stream):
    """`VJEPA2ForVideoClassification`: rotary positions in each attention, an attentive pooler, classifier.

    Its library takes positions from the order of tokens, `arange(N)`; here they are each token's own place on the grid,
    in each block. A merged token has the place of the one that the others were merged into.
    """

    def __init__(self, config: HuggingFaceConfig) -> None:
        super().__init__(config)
        del self.network.vjepa2.predictor  # of its pre-training; no class follows from it
        for layer in self.layers:
            attention: Any = self.attention_of(layer)
            attention.get_position_ids = self.call.places
        for layer in self.network.pooler.self_attention_layers:
            follow(layer.self_attn, self.call)

    def _cut(self, own: Any) -> Cut:
        return Cut(own.tubelet_size, square(own.patch_size, "patch_size"))

    @property
    def layers(self) -> nn.ModuleList:
        """The library's blocks."""
        return self.network.vjepa2.encoder.layer

    @property
    def projection(self) -> nn.Module:
        """The library's convolution over tubelets."""
        return self.network.vjepa2.encoder.embeddings.patch_embeddings.proj

    def attention_of(self, layer: Any) -> nn.Module:
        """Return the module that asks for the attention function."""
        return layer.attention

    def branch(self, layer: Any, x: Tensor) -> Tensor:
        """Run norm and attention."""
        return layer.attention(layer.norm1(x))[0]

    def second(self, layer: Any, x: Tensor) -> Tensor:
        """Run norm and MLP."""
        return x + layer.mlp(layer.norm2(x))

    def caveat(self, pruner: Pruner) -> str:
        """Say what place a merged token has: nothing published says it for rotary positions."""
        return "merged tokens keep the place of the one merged into" if pruner.merges else ""

    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another size: places are counted from 0 on in each, and no table is interpolated."""
        self.config, self.grid = _resized(self, frames, size)

    def positioned(self, x: Tensor, selection: Selection, grid: Grid) -> Tensor:
        """Add nothing: positions are rotary."""
        return x

    def classify(self, x: Tensor, tokens: Tokens, pruner: Pruner) -> Tensor:
        """Return logits: norm, attentive pooler and linear head, over what is left of each clip.

        Where tokens were merged, the pooler's blocks are biased by sizes as those of the encoder are, and its query
        attends to a token as to so many of them (`Pruner.size_pooling`).
        """
        x = self.network.vjepa2.encoder.layernorm(x)
        for layer in self.network.pooler.self_attention_layers:
            self.ask(tokens, DENSE, 0, biased=pruner.size_bias)
            x = layer(x[None], None)[0][0]
            self.call.answer()
        size = tokens.size if pruner.size_pooling else None
        return self.network.classifier(self._pooled(x, tokens.lengths, size))

    def _pooled(self, x: Tensor, lengths: tuple[int, ...], size: Tensor | None) -> Tensor:
        """Return `[B, D]`: what the pooler's query makes of each clip; clips of different lengths one by one."""
        if len(set(lengths)) > 1:
            sizes = [None] * len(lengths) if size is None else size.split(lengths)
            clips = zip(x.split(lengths), lengths, sizes, strict=True)
            return torch.cat([self._pooled(clip, (length,), own) for clip, length, own in clips])
        pooler, clips_ = self.network.pooler, x.unflatten(0, (len(lengths), -1))
        bias = None if size is None else size.log().to(x.dtype).view(len(lengths), 1, 1, -1)
        return pooler.cross_attention_layer(pooler.query_tokens.repeat(len(lengths), 1, 1), clips_, bias)[0][:, 0]

    def head_macs(self, left: int) -> int:
        """Multiply-accumulates of the pooler's blocks, its cross-attention (no projection) and the classifier."""
        d, hidden = self.width, 4 * self.width
        block = 4 * left * d * d + 2 * left * left * d + 2 * left * d * hidden
        cross = d * d + 2 * left * d * d + 2 * left * d + 2 * d * hidden
        return len(self.network.pooler.self_attention_layers) * block + cross + d * self.config.classes

    def head_backward(self, left: int) -> int:
        """Do as `head_macs` for the backward pass: the pooler's query is a parameter, which owes none to its input."""
        d = self.width
        blocks = len(self.network.pooler.self_attention_layers) * self.block_backward(left)
        return blocks + 2 * left * d * d + 3 * left * d + 8 * d * d + d * self.config.classes

    def head_norms(self, left: int) -> int:
        """Tokens that pass norms: the encoder's last, two of each block of the pooler, two of its last layer."""
        return left + 2 * left * len(self.network.pooler.self_attention_layers) + left + 1


def _resized(model: Stream, frames: int | None, size: int | None) -> tuple[HuggingFaceConfig, Grid]:
    own = model.config
    config = replace(own, frames=frames or own.frames, height=size or own.height, width=size or own.width)
    return config, model.cut.grid(config.frames, config.height, config.width)
