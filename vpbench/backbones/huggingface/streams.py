"""Classifiers of `transformers` whose clip is one stream of tokens, with sites around the parts of each block."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vpbench.api import DENSE, ClipBatch, Grid, Output, Pruner, Selection, SingleStream, TokenCounts, Tokens, Trace
from vpbench.api.tokens import constant, joined
from vpbench.backbones.huggingface import HuggingFaceConfig, library
from vpbench.backbones.huggingface.library import Call
from vpbench.backbones.layers import parts_of, residual
from vpbench.backbones.plain import Cut, projected
from vpbench.errors import UsageError


class Stream(SingleStream):
    """A classifier of the library; `network` is its own, and so are all modules that are called here.

    Positions, what is dropped and what attends to what follow the packed stream: the library's own `forward` of whole
    models and blocks is not called, that of its attention, norms, MLPs, pooler and classifier is.
    """

    config: HuggingFaceConfig
    timed_as: ClassVar[Mapping[str, str]] = {
        "embed": "embed",
        "attend": "attention",
        "feed_forward": "mlp",
        "classify": "head",
    }
    #: for `--mode compile_dynamic`; the library's attention knows of clips
    compiled_alone: ClassVar[Sequence[str]] = ("second",)
    #: tokens of a clip that are no patches, come first, and are no pruner's business: class tokens
    classed: ClassVar[int] = 0

    def __init__(self, config: HuggingFaceConfig) -> None:
        super().__init__()
        self.config = config
        self.network: Any = library.classifier(config)
        own: Any = self.network.config
        if own.hidden_size % own.num_attention_heads:
            raise UsageError(f"a width of {own.hidden_size} cannot be cut into {own.num_attention_heads} heads")
        self.depth, self.heads, self.width = own.num_hidden_layers, own.num_attention_heads, own.hidden_size
        self.key_width = self.width // self.heads
        self.hidden = int(getattr(own, "intermediate_size", 0) or own.hidden_size * own.mlp_ratio)
        self.cut = self._cut(own)
        self.grid = self.cut.grid(config.frames, config.height, config.width)
        self.call = Call()
        for layer in self.layers:
            library.follow(self.attention_of(layer), self.call)

    @abc.abstractmethod
    def _cut(self, own: Any) -> Cut:
        """Return how clips are cut, by the library's configuration; raises UsageError for what cannot be run here."""

    @property
    @abc.abstractmethod
    def layers(self) -> nn.ModuleList:
        """The library's blocks."""

    @property
    @abc.abstractmethod
    def projection(self) -> nn.Module:
        """The library's convolution over tubelets."""

    @abc.abstractmethod
    def attention_of(self, layer: Any) -> nn.Module:
        """Return the module of a block that asks for the attention function."""

    @abc.abstractmethod
    def branch(self, layer: Any, x: Tensor) -> Tensor:
        """Return what a block's norm and attention, projection and all, make of packed tokens `[1, S, D]`."""

    @abc.abstractmethod
    def second(self, layer: Any, x: Tensor) -> Tensor:
        """Return tokens `[S, D]` with what a block's second norm and MLP make of them."""

    @abc.abstractmethod
    def positioned(self, x: Tensor, selection: Selection, grid: Grid) -> Tensor:
        """Return embedded tubelets `[S, D]` with positions, if these are added, and class tokens, if any."""

    @abc.abstractmethod
    def classify(self, x: Tensor, tokens: Tokens, pruner: Pruner) -> Tensor:
        """Return logits `[B, classes]` from what left the last block: the stream `x [S, D]`, and its patches."""

    @abc.abstractmethod
    def head_macs(self, left: int) -> int:
        """Multiply-accumulates behind the blocks, for one clip of which so many tokens left them."""

    @abc.abstractmethod
    def head_norms(self, left: int) -> int:
        """Tokens that pass norms behind the blocks."""

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels as normalised floats; see `Classifier.normalise`."""
        mean, std = (255 * constant(each, pixels.device) for each in (self.config.mean, self.config.std))
        return (pixels.float() - mean) / std

    def embed(self, pixels: Tensor, selection: Selection | None = None) -> tuple[Tensor, Tokens]:
        """Embed the selected tubelets of `pixels` `[B, T, H, W, 3]`; returns the stream, and its patches.

        uint8 pixels are normalised here; floating-point pixels count as normalised already.
        """
        grid = self.cut.grid(*pixels.shape[1:4])
        if selection is None:
            selection = Selection.everything(pixels.shape[0], grid.tokens, pixels.device)
        x = self.positioned(self.patches(pixels, selection), selection, grid)
        return x, Tokens(_patches(x, selection.lengths, self.classed), selection.index, selection.lengths)

    def patches(self, pixels: Tensor, selection: Selection | None = None) -> Tensor:
        """Return patch embeddings without positions; see `Classifier.patches`."""
        grid = self.cut.grid(*pixels.shape[1:4])
        chosen = selection or Selection.everything(pixels.shape[0], grid.tokens, pixels.device)
        tubelets = self.cut.gather(pixels, grid, chosen)
        if tubelets.dtype == torch.uint8:
            tubelets = self.normalise(tubelets)
        projection: Any = self.projection
        return projected(tubelets.to(projection.weight.dtype), projection)

    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips; see `Output` for what comes back."""
        batch = pruner.resample(batch)
        self.call.grid = self.cut.grid(*batch.pixels.shape[1:4])
        x, tokens = self.embed(batch.pixels, pruner.video(batch))
        counts: list[TokenCounts] = []
        for number, layer in enumerate(self.layers):
            x, trace = self.attend(number, layer, x, tokens, pruner)
            entered = tokens.lengths
            x, tokens = self._reduced("after_attention", number, x, tokens, pruner, trace)
            del trace
            counts.append(TokenCounts(entered, tokens.lengths))
            x = self.feed_forward(layer, x)
            x, tokens = self._reduced("after_block", number, x, tokens, pruner)
        return self._output(self.classify(x, tokens, pruner), counts, tokens.lengths)

    def attend(self, number: int, layer: Any, x: Tensor, tokens: Tokens, pruner: Pruner) -> tuple[Tensor, Trace]:
        """Add the attention's part to the stream; returns it, and what a pruner may see."""
        call = self.ask(tokens, pruner, number, pruner.size_bias)
        out = residual(self.branch(layer, x[None])[0], x)
        trace = call.answer()
        trace = replace(trace, entered=x)
        return out, self._of_patches(trace, tokens) if self.classed and _asked(pruner, "after_attention") else trace

    def ask(self, tokens: Tokens, pruner: Pruner, number: int, biased: bool) -> Call:
        """Tell the attention modules of the library what the next of them is to do."""
        size = tokens.size if biased else None
        if size is not None and self.classed:
            size = with_first(size.new_ones(len(tokens.lengths)), size, tokens.lengths)
        self.call.ask(tuple(self.classed + length for length in tokens.lengths), size, tokens.index, pruner, number)
        return self.call

    def feed_forward(self, layer: Any, x: Tensor) -> Tensor:
        """Add the MLP's part to the stream `[S, D]`, on a CPU some rows at a time."""
        return joined([self.second(layer, part) for part in parts_of(x)])

    def _reduced(
        self, site: str, number: int, x: Tensor, tokens: Tokens, pruner: Pruner, *trace: Trace
    ) -> tuple[Tensor, Tokens]:
        """Ask a pruner at a site; class tokens, which it never sees, stay first in their clips."""
        if not _asked(pruner, site):
            return x, tokens
        given = tokens.with_x(_patches(x, tokens.lengths, self.classed))
        found: Tokens = getattr(pruner, site)(number, given, *trace)
        if found is given or not self.classed:
            return x if found is given else found.x, found
        return with_first(first_of(x, given.lengths), found.x, found.lengths), found

    def _of_patches(self, trace: Trace, tokens: Tokens) -> Trace:
        """Leave class tokens out of a trace; what patches pay them stays in the sums that `lse` holds."""
        q, k, v, lse, entered = (
            None if each is None else _patches(each, tokens.lengths, 1)
            for each in (trace.queries, trace.keys, trace.values, trace.lse, trace.entered)
        )
        assert q is not None
        assert k is not None
        assert v is not None
        fused = None if trace.fused is None else trace.fused[:, 1:, 1:]
        size = None if trace.size is None else tokens.size
        return Trace(q, k, v, tokens.lengths, lse, fused, size, entered)

    def _output(self, logits: Tensor, counts: Sequence[TokenCounts], left: tuple[int, ...]) -> Output:
        attention, mlp = (
            list(zip(*of, strict=True)) for of in zip(*((c.attention, c.mlp) for c in counts), strict=True)
        )
        clips = list(zip(attention, mlp, left, strict=True))
        macs = tuple(self.macs(*clip) for clip in clips)
        return Output(logits, tuple(counts), macs, tuple(self.normalised_elements(*clip) for clip in clips))

    def macs(self, attention: tuple[int, ...], mlp: tuple[int, ...], left: int | None = None) -> int:
        """Multiply-accumulates of one clip whose block l sees `attention[l]` patches, then `mlp[l]` in its MLP.

        left: patches that leave the last block, all of its MLP's by default. Class tokens come on top, as they do in
        the network; positions, norms, softmax and activations are not counted.
        """
        d, more = self.width, self.classed
        blocks = sum(
            4 * (n + more) * d * d + 2 * (n + more) ** 2 * d + 2 * (m + more) * d * self.hidden
            for n, m in zip(attention, mlp, strict=True)
        )
        embedding = attention[0] * 3 * self.cut.tubelet * self.cut.patch**2 * d
        return embedding + blocks + self.head_macs(more + (mlp[-1] if left is None else left))

    def backward_macs(self, tokens: int) -> int:
        """Multiply-accumulates of the last block's and the head's backward pass; attention has four products there."""
        return self.block_backward(tokens + self.classed) + self.head_backward(tokens + self.classed)

    def block_backward(self, n: int) -> int:
        """Multiply-accumulates of the backward pass of a block of so many tokens, to its input alone."""
        return n * (4 * self.width**2 + 2 * self.width * self.hidden + 4 * n * self.width)

    def head_backward(self, left: int) -> int:
        """Do the same behind the blocks; linear layers cost what they do forward."""
        return self.head_macs(left)

    def normalised_elements(self, attention: tuple[int, ...], mlp: tuple[int, ...], left: int | None = None) -> int:
        """Elements of both norms of every block and of those behind them."""
        every = sum(attention) + sum(mlp) + 2 * self.depth * self.classed
        return self.width * (every + self.head_norms(self.classed + (mlp[-1] if left is None else left)))


def square(size: Any, what: str) -> int:
    """Return the one side of what the library also takes as a pair; raises UsageError where they differ."""
    pair = list(size) if isinstance(size, list | tuple) else [size, size]
    if len(pair) != 2 or pair[0] != pair[1]:
        raise UsageError(f"{what} {pair}: only squares are cut here")
    return int(pair[0])


def _asked(pruner: Pruner, site: str) -> bool:
    """Whether a site is the method's own, or somebody stands in for it."""
    return pruner.acts_at(site) or site in vars(pruner)


def _patches(x: Tensor, lengths: tuple[int, ...], classed: int) -> Tensor:
    """Return the rows of packed `x` `[B + S, ...]` that are no clip's first, `[S, ...]`; all where there are none."""
    if not classed:
        return x
    if len(set(lengths)) == 1:
        return x.unflatten(0, (len(lengths), -1))[:, 1:].flatten(0, 1)
    return torch.cat([clip[1:] for clip in x.split([1 + length for length in lengths])])


def first_of(x: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Return the first row of each clip of packed `x` `[B + S, ...]`, `[B, ...]`."""
    if len(set(lengths)) == 1:
        return x.unflatten(0, (len(lengths), -1))[:, 0]
    return torch.stack([clip[0] for clip in x.split([1 + length for length in lengths])])


def with_first(first: Tensor, x: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Put a row `first` `[B, ...]` before the packed rows `x` `[S, ...]` of each clip."""
    if len(set(lengths)) == 1:
        return torch.cat([first[:, None], x.unflatten(0, (len(lengths), -1))], dim=1).flatten(0, 1)
    clips = zip(first.split(1), x.split(lengths), strict=True)
    return torch.cat([part for clip in clips for part in clip])
