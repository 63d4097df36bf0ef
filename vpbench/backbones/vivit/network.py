"""ViViT with a factorised encoder (arXiv 2103.15691, model 2): every step of a clip on its own, then a few in time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import (
    DENSE,
    Classifier,
    ClipBatch,
    Flow,
    Grid,
    Output,
    Pruner,
    Ran,
    Selection,
    TokenCounts,
    Tokens,
    Trace,
    UsageError,
)
from vpbench.api.contexts import precise
from vpbench.api.tokens import constant, on_device
from vpbench.backbones.layers import initialise
from vpbench.backbones.plain import Block, PatchEmbed
from vpbench.backbones.vivit import ViViTConfig

# What the published checkpoints were trained with, of pixels in [0, 1], on every channel.
MEAN, STD = 0.45, 0.225


class ViViT(Classifier):
    """Spatial encoder with a class token on every step; temporal encoder over the steps' class outputs.

    In the packed stream each step of each clip is a sequence of its own, its class token first (grid position -1).
    """

    config: ViViTConfig
    flow: ClassVar[Flow] = "steps"
    timed_as: ClassVar[Mapping[str, str]] = {
        "embed": "embed",
        "part": "gather",
        "in_order": "restore",
        "classify": "head",
    }

    def __init__(self, config: ViViTConfig) -> None:
        super().__init__()
        self.config = config
        self.depth, self.heads, self.key_width = config.depth, config.heads, config.dim // config.heads
        self.patch_embed = PatchEmbed(config.dim, config.tubelet, config.patch)
        self.grid = self.patch_embed.grid(config.frames, config.height, config.width)
        sizes = (config.dim, config.heads, int(config.dim * config.mlp_ratio), config.eps)
        rows, cols = config.positions or (self.grid.rows, self.grid.cols)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * cols, config.dim))
        self.blocks = nn.ModuleList(Block(*sizes, layer, key_bias=True) for layer in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.temporal_cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.temporal_pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid.slots, config.dim))
        self.temporal_blocks = nn.ModuleList(Block(*sizes, n, key_bias=True) for n in range(config.temporal_depth))
        self.temporal_norm = nn.LayerNorm(config.dim, eps=config.eps)
        self.head = nn.Linear(config.dim, config.classes)
        self.apply(partial(initialise, kinds=nn.Linear | nn.Conv3d))
        tables = (self.cls_token, self.pos_embed, self.temporal_cls_token, self.temporal_pos_embed)
        for table in tables:
            nn.init.trunc_normal_(table, std=0.02)

    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another size; the spatial table is resampled, the temporal one is tied to its steps."""
        config = self.config
        frames, height, width = frames or config.frames, size or config.height, size or config.width
        grid = self.patch_embed.grid(frames, height, width)
        if positions == "recompute":
            raise UsageError("these weights hold a learned positional table, which can only be interpolated")
        if grid.slots != self.grid.slots:
            raise UsageError(f"the temporal encoder of these weights takes {config.frames} frames, not {frames}")
        self.pos_embed = nn.Parameter(self.positions(grid)[None].detach())
        self.grid = grid
        self.config = replace(config, height=height, width=width, positions=None)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels as normalised floats; see `Classifier.normalise`."""
        return (pixels.float() - 255 * MEAN) / (255 * STD)

    def patches(self, pixels: Tensor, selection: Selection | None = None) -> Tensor:
        """Return patch embeddings without positions; see `Classifier.patches`."""
        return self.patch_embed.select(pixels, selection, self.normalise, self.pos_embed.dtype)

    def positions(self, grid: Grid) -> Tensor:
        """Return the spatial table `[1 + N, D]` of a grid, resampled bicubically where it is another one's."""
        rows, cols = self.config.positions or (self.grid.rows, self.grid.cols)
        table = self.pos_embed[0]
        if (rows, cols) == (grid.rows, grid.cols):
            return table
        image = table[1:].T.reshape(1, -1, rows, cols)
        resized = F.interpolate(precise(image), size=(grid.rows, grid.cols), mode="bicubic", align_corners=False)
        return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])

    def embed(self, pixels: Tensor, selection: Selection | None, pruner: Pruner) -> Tokens:
        """Embed the selected tubelets of `pixels` `[B, T, H, W, 3]`, as one sequence for each step of each clip."""
        grid = self.patch_embed.grid(*pixels.shape[1:4])
        clips = pixels.shape[0]
        chosen = selection or Selection.everything(clips, grid.tokens, pixels.device)
        x, table = self.patches(pixels, chosen), self.positions(grid)
        if selection is None:
            pruner.embedded(x.view(clips, grid.slots, grid.per_slot, -1))
        place = chosen.index % grid.per_slot
        x = x + table[1 + place]
        per_step = (grid.per_slot,) * (clips * grid.slots) if selection is None else selection.counts(grid)
        return _with_class(x, place, per_step, self.cls_token[0] + table[:1])

    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips; see `Output` for what comes back."""
        steps, counted = self.encode(batch, pruner)
        return self._output(self.classify(steps), counted)

    def encode(self, batch: ClipBatch, pruner: Pruner = DENSE) -> "tuple[Tensor, Counted]":
        """Return the spatial encoder's class outputs `[B, steps, D]`, and how many tokens it saw."""
        batch = pruner.resample(batch)
        clips = batch.pixels.shape[0]
        tokens = self.embed(batch.pixels, pruner.video(batch), pruner)
        steps = len(tokens.lengths) // clips
        if pruner.acts_at("run_block"):
            return self.run_parts(tokens.x.view(clips, steps, -1, self.config.dim), pruner)
        first: Block = self.blocks[0]  # type: ignore[assignment]
        # the first attention sees all tokens of every step, whatever steps learn from each other later
        tokens, trace = first.attend(tokens, pruner)
        outputs: list[tuple[Sequence[int], Tensor]] = []
        counted = Counted(clips, steps, self.depth)
        for wave in pruner.waves(steps):
            part, seen = self.part(tokens, trace, clips, steps, wave)
            entered = part.lengths
            part = pruner.after_attention(0, part, seen)
            counts: list[TokenCounts] = []
            part = first.finish(part, entered, pruner, counts)
            for block in self.blocks[1:]:
                part = block(part, pruner, counts)
            counted.add(wave, counts)
            outputs.append((wave, self.norm(_first(part)).view(clips, len(wave), -1)))
        return self.in_order(outputs), counted

    def run_parts(self, x: Tensor, pruner: Pruner) -> "tuple[Tensor, Counted]":
        """Let the pruner run the blocks on all tokens `x` `[B, steps, 1 + N, D]` of steps, wave after wave."""
        clips, steps = x.shape[:2]
        outputs: list[tuple[Sequence[int], Tensor]] = []
        counted = Counted(clips, steps, self.depth)
        for wave in pruner.waves(steps):
            part, ran = x.index_select(1, constant(tuple(wave), x.device, torch.int64)).flatten(0, 1), list[Ran]()
            for layer, block in enumerate(self.blocks):
                ran.append(pruner.run_block(layer, part, block))  # type: ignore[arg-type]
                part = ran[-1].x
            counted.add(wave, [TokenCounts(each.attention, each.mlp) for each in ran])
            counted.spend(ran)
            outputs.append((wave, self.norm(part[:, 0]).view(clips, len(wave), -1)))
        return self.in_order(outputs), counted

    def part(self, tokens: Tokens, trace: Trace, clips: int, steps: int, wave: Sequence[int]) -> tuple[Tokens, Trace]:
        """Cut the sequences of some steps out of all; free where they are all there is."""
        if list(wave) == list(range(steps)):
            return tokens, trace
        sequences = [clip * steps + step for clip in range(clips) for step in wave]
        lengths = tuple(tokens.lengths[n] for n in sequences)
        chosen = constant(tuple(sequences), tokens.x.device, torch.int64)
        rows = _rows(tokens, chosen, sum(lengths))
        queries, keys, values = (t[rows] for t in (trace.queries, trace.keys, trace.values))
        fused = None if trace.fused is None else trace.fused[chosen]
        lse, size = (None if t is None else t[rows] for t in (trace.lse, trace.size))
        return tokens.take(rows, lengths), Trace(queries, keys, values, lengths, lse, fused, size)

    def in_order(self, outputs: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
        """Put the class outputs `[B, steps of a wave, D]` of waves in the order of their steps, `[B, steps, D]`."""
        order = [step for wave, _ in outputs for step in wave]
        found = outputs[0][1] if len(outputs) == 1 else torch.cat([out for _, out in outputs], dim=1)
        if order == sorted(order):
            return found
        ranks = sorted(range(len(order)), key=order.__getitem__)
        return found[:, constant(tuple(ranks), found.device, torch.int64)]

    def classify(self, steps: Tensor) -> Tensor:
        """Return logits `[B, classes]` from the spatial encoder's class outputs `[B, steps, D]`."""
        return self.head(self.in_time(steps))

    def in_time(self, steps: Tensor) -> Tensor:
        """Return the temporal encoder's class output `[B, D]` from the spatial encoder's `[B, steps, D]`."""
        clips, count, _ = steps.shape
        x = torch.cat([self.temporal_cls_token.expand(clips, -1, -1), steps], dim=1) + self.temporal_pos_embed
        tokens = Tokens(x.flatten(0, 1), torch.arange(-1, count, device=x.device).repeat(clips), (count + 1,) * clips)
        for block in self.temporal_blocks:
            tokens = block(tokens)
        return self.temporal_norm(tokens.x.view(clips, count + 1, -1)[:, 0])

    def refuses(self, pruner: Pruner) -> str | None:
        """Refuse what shortens the clip, and what takes its steps for one sequence."""
        blank = torch.zeros(1, self.config.frames, self.config.height, self.config.width, 3, dtype=torch.uint8)
        if pruner.resample(ClipBatch(blank, ("",), (0,))).pixels.shape[1] != self.config.frames:
            return "it changes the number of frames, which the temporal encoder is tied to"
        if (pruner.acts_at("after_attention") or pruner.acts_at("after_block")) and not pruner.stepwise:
            return "it compares the tokens of a whole clip, while this backbone encodes its steps one by one"
        return super().refuses(pruner)

    def _output(self, logits: Tensor, counted: "Counted") -> Output:
        clips = [list(zip(*clip, strict=True)) for clip in counted.steps()]
        if counted.spent:
            costs = [self._cost_of(spent) for spent in counted.spent]
            embedding = (self.grid.tokens * self.config.pixels_per_token * self.config.dim,) * len(costs)
        else:
            costs = [self._cost(steps) for steps in clips]
            embedding = tuple(
                sum(a[0] - 1 for a, _ in steps) * self.config.pixels_per_token * self.config.dim for steps in clips
            )
        macs = tuple(cost.macs + first for cost, first in zip(costs, embedding, strict=True))
        normalised = tuple(cost.normalised for cost in costs)
        added = tuple(cost.added for cost in costs)
        return Output(logits, counted.per_clip(), macs, normalised, embedding=embedding, added=added)

    def _cost_of(self, spent: "_Cost") -> "_Cost":
        """Cost of one clip, but for its embedding, whose blocks in space, run by a method, took `spent`."""
        tokens = self.grid.tokens + self.grid.slots
        rest, d = self._cost([]), self.config.dim
        normalised = d * tokens * 2 * self.depth + d * self.grid.slots
        return _Cost(spent.macs + rest.macs, normalised + rest.normalised, spent.added + tokens * d + rest.added)

    def _cost(self, steps: Sequence[tuple[Sequence[int], Sequence[int]]]) -> "_Cost":
        """Cost of one clip, but for its embedding, from the tokens (attention, MLP) of each step in each block."""
        d, classes = self.config.dim, self.config.classes
        every = (self.grid.slots + 1,) * self.config.temporal_depth
        sequences = [*steps, (every, every)]
        spent = [self._blocks(*sequence) for sequence in sequences]
        positions = sum(attention[0] for attention, _ in sequences) * d
        return _Cost(
            sum(cost.macs for cost in spent) + d * classes,
            sum(cost.normalised for cost in spent) + d * len(sequences),
            sum(cost.added for cost in spent) + positions + classes,
        )

    def _blocks(self, attention: Sequence[int], mlp: Sequence[int]) -> "_Cost":
        d, hidden = self.config.dim, int(self.config.dim * self.config.mlp_ratio)
        return _Cost(
            sum(4 * n * d * d + 2 * n * n * d + 2 * m * d * hidden for n, m in zip(attention, mlp, strict=True)),
            d * (sum(attention) + sum(mlp)),
            # biases of queries, keys, values and projection, and of both layers of the MLP; a residual for each half
            sum(attention) * 5 * d + sum(mlp) * (hidden + 2 * d),
        )


@dataclass(frozen=True)
class _Cost:
    """Multiply-accumulates, elements that pass a norm, and additions of biases, residuals and positions."""

    macs: int
    normalised: int
    added: int


class Counted:
    """Tokens that entered attention and MLP: of each clip, step and block."""

    def __init__(self, clips: int, steps: int, depth: int) -> None:
        self.clips, self.depth = clips, depth
        self.of: list[list[tuple[tuple[int, ...], tuple[int, ...]]]] = [[((), ())] * steps for _ in range(clips)]
        #: what blocks in space took of each clip, where a method ran them
        self.spent: list[_Cost] = []

    def add(self, wave: Sequence[int], counts: Sequence[TokenCounts]) -> None:
        """Note a wave's counts: one per block, each for all clips and the wave's steps."""
        for clip in range(self.clips):
            for number, step in enumerate(wave):
                at = clip * len(wave) + number
                self.of[clip][step] = tuple(c.attention[at] for c in counts), tuple(c.mlp[at] for c in counts)

    def spend(self, ran: Sequence[Ran]) -> None:
        """Add what a wave's blocks took, run by a method; sequences of a clip follow each other."""
        each = len(ran[0].macs) // self.clips
        macs, published = (
            [sum(sequence) for sequence in zip(*blocks, strict=True)]
            for blocks in ((one.macs for one in ran), (one.published for one in ran))
        )
        for clip, known in enumerate(self.spent or [_Cost(0, 0, 0)] * self.clips):
            own, counted = (sum(each_of[clip * each : (clip + 1) * each]) for each_of in (macs, published))
            self.spent[clip : clip + 1] = [_Cost(known.macs + own, 0, known.added + counted - own)]

    def steps(self) -> list[tuple[list[tuple[int, ...]], list[tuple[int, ...]]]]:
        """Return for each clip the tokens of its steps in each block: attention, MLP."""
        return [([a for a, _ in clip], [m for _, m in clip]) for clip in self.of]

    def per_clip(self) -> tuple[TokenCounts, ...]:
        """Return the tokens of whole clips, block by block."""
        return tuple(
            TokenCounts(
                tuple(sum(a[block] for a, _ in clip) for clip in self.of),
                tuple(sum(m[block] for _, m in clip) for clip in self.of),
            )
            for block in range(self.depth)
        )


def _with_class(x: Tensor, place: Tensor, lengths: tuple[int, ...], token: Tensor) -> Tokens:
    """Put the class token `[1, D]` in front of each sequence of packed tokens."""
    longer = tuple(length + 1 for length in lengths)
    if len(set(lengths)) == 1:
        count = len(lengths)
        stacked = torch.cat([token.expand(count, 1, -1), x.view(count, lengths[0], -1)], dim=1)
        index = torch.cat([place.new_full((count, 1), -1), place.view(count, -1)], dim=1)
        return Tokens(stacked.flatten(0, 1), index.flatten(), longer)
    counts = on_device(lengths, x.device)
    sequence = torch.arange(len(lengths), device=x.device)
    # each sequence moves its tokens by the class tokens up to its own, which comes to lie before them
    rows = torch.arange(len(x), device=x.device) + 1 + sequence.repeat_interleave(counts, output_size=len(x))
    stacked = x.new_empty(sum(longer), x.shape[1]).index_copy_(0, rows, x)
    stacked[counts.cumsum(0) - counts + sequence] = token
    return Tokens(stacked, place.new_full((sum(longer),), -1).index_copy_(0, rows, place), longer)


def _first(tokens: Tokens) -> Tensor:
    """Return the first token of each sequence, its class token, `[sequences, D]`."""
    if tokens.uniform:
        return tokens.x.view(len(tokens.lengths), -1, tokens.x.shape[1])[:, 0]
    return tokens.x[on_device((0, *tokens.lengths[:-1]), tokens.x.device).cumsum(0)]


def _rows(tokens: Tokens, chosen: Tensor, total: int) -> Tensor:
    """Return the packed rows of the sequences with the numbers `chosen`, of `total` tokens."""
    if tokens.uniform:
        length = tokens.lengths[0]
        return (chosen[:, None] * length + torch.arange(length, device=chosen.device)).flatten()
    counts = on_device(tokens.lengths, tokens.x.device)
    starts, counts = (counts.cumsum(0) - counts)[chosen], counts[chosen]
    shift = starts - (counts.cumsum(0) - counts)
    return torch.arange(total, device=counts.device) + shift.repeat_interleave(counts, output_size=total)
