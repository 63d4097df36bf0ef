"""TimeSformer of `transformers`: attention over time at each place, then over the places of each frame, by its modules.

Its tokens form a grid of frames and places, and stay one: whole frames and windows of places can go, before any block.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from vpbench.api import DENSE, ClipBatch, Grid, GridBackbone, Output, Pruner, TokenCounts
from vpbench.api.tokens import constant
from vpbench.backbones.huggingface import TimeSformerConfig, library
from vpbench.backbones.huggingface.streams import square
from vpbench.backbones.plain import Cut
from vpbench.errors import UsageError


class TimeSformer(GridBackbone):
    """`TimesformerForVideoClassification` with divided attention; the class token takes part in that over places."""

    config: TimeSformerConfig
    costs: ClassVar[str] = "counted"
    timed_as: ClassVar[Mapping[str, str]] = {
        "embed": "embed",
        "in_time": "attention",
        "in_space": "attention",
        "feed_forward": "mlp",
        "classify": "head",
    }

    def __init__(self, config: TimeSformerConfig) -> None:
        super().__init__()
        self.config = config
        self.network: Any = library.classifier(config)
        own: Any = self.network.config
        if own.attention_type != "divided_space_time":
            raise UsageError(
                f"transformers' timesformer with attention_type {own.attention_type!r}: only divided is run"
            )
        self.addons = {}
        self.depth, self.heads, self.width = own.num_hidden_layers, own.num_attention_heads, own.hidden_size
        self.key_width = self.width // self.heads
        self.cut = Cut(1, square(own.patch_size, "patch_size"))
        self.grid = self.cut.grid(config.frames, config.height, config.width)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return pixels as normalised floats; see `Classifier.normalise`."""
        mean, std = (255 * constant(each, pixels.device) for each in (self.config.mean, self.config.std))
        return (pixels.float() - mean) / std

    def resize(self, frames: int | None, size: int | None, positions: str) -> None:
        """Take clips of another size: the library takes the nearest entry of its tables for them."""
        if positions == "recompute":
            raise UsageError("these weights hold learned positional tables, which can only be interpolated")
        own = self.config
        config = replace(own, frames=frames or own.frames, height=size or own.height, width=size or own.width)
        self.grid = self.cut.grid(config.frames, config.height, config.width)
        self.config = config

    @property
    def planned_slots(self) -> int:
        """Frames."""
        return self.grid.slots

    def planned_windows(self, ratios: Mapping[int, float]) -> dict[int, int]:
        """Return places per frame that windows before these blocks leave, each a share of what the last one left."""
        left, found = self.grid.per_slot, {}
        for block, ratio in sorted(ratios.items()):
            left = found[block] = int(left * ratio)
        return found

    def width_before(self, block: int) -> int:
        """Return the channels of tokens, the same in all blocks."""
        return self.width

    def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return class tokens `[B, 1, D]` and the grid `[B, T, H, W, D]` of `pixels` `[B, T, H, W, 3]`."""
        grid = self.cut.grid(*pixels.shape[1:4])
        if pixels.dtype == torch.uint8:
            pixels = self.normalise(pixels)
        embeddings = self.network.timesformer.embeddings
        pixels = pixels.to(embeddings.cls_token.dtype).permute(0, 1, 4, 2, 3)
        x = embeddings(pixels)
        places = x[:, 1:].unflatten(1, (grid.rows, grid.cols, grid.slots))
        return x[:, :1], places.permute(0, 3, 1, 2, 4)

    def forward(self, batch: ClipBatch, pruner: Pruner = DENSE) -> Output:
        """Classify a batch of clips; see `Output` for what comes back. Costs are counted, not in closed form."""
        batch = pruner.resample(batch)
        first, x = self.embed(batch.pixels)
        entered, counts, clips = tuple(batch.pixels.shape[1:4]), list[TokenCounts](), len(batch.ids)
        grids: list[Grid] = []
        for number, layer in enumerate(self.network.timesformer.encoder.layer):
            x = pruner.stage(number, x)
            grids.append(Grid(*x.shape[1:4]))
            tokens = (1 + grids[-1].tokens,) * clips
            counts.append(TokenCounts(tokens, tokens))
            first, x = self.block(layer, first, x)
        logits = self.classify(first)
        macs = self.counted(entered, tuple(grids))
        norms = self.width * (sum(grid.tokens + (grid.tokens + grid.slots) + 1 + grid.tokens for grid in grids) + 1)
        return Output(logits, tuple(counts), (macs,) * clips, (norms,) * clips)

    def block(self, layer: Any, first: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run one block on class tokens `[B, 1, D]` and the grid."""
        x = self.in_time(layer, x)
        first, x = self.in_space(layer, first, x)
        tokens = self.feed_forward(layer, torch.cat([first, x.flatten(1, 3)], dim=1))
        return tokens[:, :1], tokens[:, 1:].unflatten(1, x.shape[1:4])

    def in_time(self, layer: Any, x: Tensor) -> Tensor:
        """Let each place's tokens of all frames attend to each other."""
        clips, slots, rows, cols, width = x.shape
        over_time = x.permute(0, 2, 3, 1, 4).reshape(clips * rows * cols, slots, width)
        out = layer.temporal_dense(layer.temporal_attention(layer.temporal_layernorm(over_time))[0])
        return x + out.view(clips, rows, cols, slots, width).permute(0, 3, 1, 2, 4)

    def in_space(self, layer: Any, first: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Let each frame's tokens and the class token attend to each other; the class takes the mean over frames."""
        clips, slots, rows, cols = x.shape[:4]
        frames = torch.cat([first[:, None].expand(-1, slots, -1, -1), x.flatten(2, 3)], dim=2).flatten(0, 1)
        out = layer.attention(layer.layernorm_before(frames))[0].unflatten(0, (clips, slots))
        return first + out[:, :, 0].mean(dim=1, keepdim=True), x + out[:, :, 1:].unflatten(2, (rows, cols))

    def feed_forward(self, layer: Any, x: Tensor) -> Tensor:
        """Add the MLP's part to tokens `[B, N, D]`."""
        return x + layer.output(layer.intermediate(layer.layernorm_after(x)))

    def classify(self, first: Tensor) -> Tensor:
        """Return logits `[B, classes]` of the class tokens `[B, 1, D]`."""
        return self.network.classifier(self.network.timesformer.layernorm(first[:, 0]))

    def counted(self, entered: tuple[int, ...], grids: tuple[Grid, ...]) -> int:
        """Multiply-accumulates of one clip of this size whose blocks see these grids: operators, counted once for each.

        There is no closed form here: what runs is what a counter sees, on the meta device.
        """
        head = self.width * self.config.classes
        return _of_embedding(self.config, entered) + sum(_of_block(self.config, grid) for grid in grids) + head


@lru_cache(maxsize=4)
def _outline(config: TimeSformerConfig) -> TimeSformer:
    """Build a network of one block without numbers."""
    import json

    from vpbench.backbones.huggingface import settings

    shallow = replace(config, settings=settings(**json.loads(config.settings) | {"num_hidden_layers": 1}))
    with torch.inference_mode(False), torch.device("meta"):
        return TimeSformer(shallow).eval().requires_grad_(False)


@lru_cache(maxsize=256)
def _of_block(config: TimeSformerConfig, grid: Grid) -> int:
    model = _outline(config)
    first = torch.empty(1, 1, model.width, device="meta")
    x = torch.empty(1, grid.slots, grid.rows, grid.cols, model.width, device="meta")
    return _counted(lambda: model.block(model.network.timesformer.encoder.layer[0], first, x))


@lru_cache(maxsize=256)
def _of_embedding(config: TimeSformerConfig, entered: tuple[int, ...]) -> int:
    model = _outline(config)
    return _counted(lambda: model.embed(torch.empty(1, *entered, 3, device="meta")))


def _counted(run: Any) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    # inference mode hides operators from the counter
    with torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2
