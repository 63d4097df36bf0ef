"""Sizes of detectors of the ViTDet kind. Imports no torch, so that listing them is instant."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from vpbench.backbones import WEIGHTS
from vpbench.errors import UsageError
from vpbench.registry import Entry

Quadruple = tuple[float, float, float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class HeadConfig:
    """Sizes and thresholds of a two-stage detection head (Faster R-CNN) on a pyramid; lengths are in pixels.

    `anchor_sizes`: of each pyramid level, the finest first; `aspect_ratios`: height / width. `pre_nms`, `post_nms`:
    proposals of each level before suppression, and of a frame after it. `canonical_size`: side of the square regions
    that are pooled from the level of stride `2 ** canonical_level`. `box_weights`: what the second stage's deltas are
    divided by.
    """

    classes: int = 30
    channels: int = 256
    rpn_convs: int = 2
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    pre_nms: int = 1000
    post_nms: int = 300
    rpn_nms_threshold: float = 0.7
    pooled: int = 7
    canonical_size: float = 224
    canonical_level: int = 4
    box_convs: int = 4
    fc_dim: int = 1024
    box_weights: Quadruple = (10, 10, 5, 5)
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100


@dataclass(frozen=True)
class ViTDetConfig:
    """Sizes of a ViTDet (arXiv 2203.16527) with a simple feature pyramid; frames are padded to `side` x `side` pixels.

    `window`: side of the attention windows, in tokens, of the blocks `windowed`; the others attend globally.
    `short_of_1024`: how long the short side of a frame may be for every 1024 pixels of `side`.
    `positions`: side of the stored table of positions; `global_table`: side of the grid that the relative positions of
    global blocks were trained for. `mean`, `std`: of RGB in 0..255. `scales`: sides of the first pyramid levels
    relative to the token grid.
    """

    dim: int = 768
    depth: int = 12
    heads: int = 12
    side: int = 672
    short_of_1024: int = 640
    patch: int = 16
    window: int = 14
    windowed: tuple[int, ...] = (0, 1, 3, 4, 6, 7, 9, 10)
    positions: int = 14
    global_table: int = 64
    mlp_ratio: float = 4.0
    eps: float = 1e-6
    mean: Colour = (123.675, 116.28, 103.53)
    std: Colour = (58.395, 57.12, 57.375)
    scales: tuple[float, ...] = (4.0, 2.0, 1.0, 0.5)
    head: HeadConfig = HeadConfig()

    #: frames that run at a time, and the step between them: every one is looked at
    frames: ClassVar[int] = 1
    stride: ClassVar[int] = 1

    @property
    def height(self) -> int:
        """Rows of a padded frame, which are as many as its columns."""
        return self.side

    width = height

    @property
    def classes(self) -> int:
        """Kinds of objects."""
        return self.head.classes

    @property
    def grid(self) -> int:
        """Tokens along a side of the grid."""
        return self.side // self.patch

    @property
    def tokens(self) -> int:
        """Tokens of a frame."""
        return self.grid**2

    @property
    def hidden(self) -> int:
        """Width of the layer inside an MLP."""
        return int(self.dim * self.mlp_ratio)

    @property
    def unwindowed(self) -> tuple[int, ...]:
        """Blocks whose attention is global, in order."""
        return tuple(block for block in range(self.depth) if block not in self.windowed)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between neighbours of each pyramid level; one level more than `scales`, at half the last one's."""
        first = [int(self.patch / scale) for scale in self.scales]
        return (*first, 2 * first[-1])

    def sized(self, side: int) -> "ViTDetConfig":
        """Return a detector of frames of another side; its weights stay as they are, tables of positions are resized.

        Raises UsageError for sides that patches do not tile, and for grids that are not larger than a window of
        attention: blocks inside windows would be global there.
        """
        if side % self.patch or side // self.patch <= self.window:
            least = (self.window + 1) * self.patch
            raise UsageError(
                f"size {side} is not possible: give a multiple of {self.patch} (a patch), at least {least}"
            )
        return replace(self, side=side)


#: ViTDet-B as published for ImageNet VID; sizes differ in their input alone, so one set of weights fits both
VITDET_B_672 = ViTDetConfig()
VITDET_B_1024 = replace(VITDET_B_672, side=1024)
#: finds the six shapes of the synthetic clips, 6 to 30 pixels long
VITDET_EMBEDDED = ViTDetConfig(
    dim=128,
    depth=6,
    heads=4,
    side=64,
    short_of_1024=1024,
    patch=4,
    window=8,
    windowed=(0, 1, 3, 4),
    positions=16,
    global_table=16,
    scales=(1.0, 0.5),
    head=HeadConfig(
        classes=6,
        channels=64,
        rpn_convs=1,
        anchor_sizes=(10, 18, 30),
        aspect_ratios=(0.6, 1.0, 1.67),
        pre_nms=64,
        post_nms=16,
        canonical_size=28,
        canonical_level=3,
        box_convs=1,
        fc_dim=128,
    ),
)
#: 8 x 8 tokens, two of four blocks global
TINY = ViTDetConfig(
    dim=16,
    depth=4,
    heads=2,
    side=64,
    patch=8,
    window=3,
    windowed=(0, 2),
    positions=8,
    global_table=8,
    head=HeadConfig(
        channels=8,
        rpn_convs=1,
        anchor_sizes=(8, 16, 32, 64, 128),
        pre_nms=40,
        post_nms=12,
        pooled=3,
        canonical_size=24,
        canonical_level=2,
        box_convs=1,
        fc_dim=12,
    ),
)

_entry = partial(
    Entry, flow="frames", build=f"{__name__}.network:ViTDet", task="detection", layouts=f"{__name__}.layouts", tiny=TINY
)
ENTRIES: dict[str, Entry] = {
    "vitdet_embedded": _entry(
        "ViTDet, finds 6 shapes in frames of 64x64, grid of 16x16 tokens; trained weights included",
        VITDET_EMBEDDED,
        weights=WEIGHTS / "vitdet_embedded.safetensors",
    ),
    "vitdet_b_672": _entry(
        "ViTDet-B, finds objects in frames of 672x672, grid of 42x42 tokens, 30 classes", VITDET_B_672
    ),
    "vitdet_b_1024": _entry(
        "ViTDet-B, finds objects in frames of 1024x1024, grid of 64x64 tokens, 30 classes", VITDET_B_1024
    ),
}
