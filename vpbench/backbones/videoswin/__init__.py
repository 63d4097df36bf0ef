"""Sizes of video Swin transformers. Imports no torch, so that listing them is instant."""

from dataclasses import dataclass, replace
from functools import partial
from math import ceil

from vpbench.backbones import WEIGHTS
from vpbench.registry import Entry

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class VideoSwinConfig:
    """Sizes of a video Swin transformer (arXiv 2106.13230); triples are (t, h, w).

    `dim`: channels at stage 0, twice as many at each next one. `depths`, `heads`: of each stage. `stride`: the step
    between frames that the weights were trained for. `drop_path`, `dropout`: of the last block's branches (rising from
    0 at the first) and before the classifier, in training only.
    """

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    frames: int = 32
    height: int = 224
    width: int = 224
    patch: Triple = (2, 4, 4)
    window: Triple = (8, 7, 7)
    mlp_ratio: float = 4.0
    classes: int = 400
    eps: float = 1e-5
    stride: int = 2
    drop_path: float = 0.0
    dropout: float = 0.0

    def grid(self, frames: int, height: int, width: int) -> Triple:
        """Return slots, rows and columns of clips of this size; what patches do not tile is padded."""
        t, h, w = (ceil(n / p) for n, p in zip((frames, height, width), self.patch, strict=True))
        return t, h, w


#: the published sizes for Kinetics-400
VIDEOSWIN_T = VideoSwinConfig(96, (2, 2, 6, 2), (3, 6, 12, 24))
VIDEOSWIN_S = replace(VIDEOSWIN_T, depths=(2, 2, 18, 2))
VIDEOSWIN_B = VideoSwinConfig(128, (2, 2, 18, 2), (4, 8, 16, 32))
VIDEOSWIN_EMBEDDED = VideoSwinConfig(
    dim=96, depths=(2, 6), heads=(3, 6), frames=16, height=64, width=64, patch=(2, 8, 8), window=(4, 4, 4), classes=18
)
TINY = VideoSwinConfig(dim=8, depths=(2, 2), heads=(1, 2), frames=16, height=32, width=32, window=(4, 3, 3), classes=5)

_entry = partial(
    Entry,
    flow="grid",
    build=f"{__name__}.network:VideoSwin",
    protocol="videoswin_4x3",
    layouts=f"{__name__}.layouts",
    tiny=TINY,
)
ENTRIES: dict[str, Entry] = {
    "videoswin_embedded": _entry(
        "VideoSwin, 16x64x64, grid of 8x8x8 tokens, windows of 4x4x4; trained weights and STTS scorers included",
        VIDEOSWIN_EMBEDDED,
        weights=WEIGHTS / "videoswin_embedded.safetensors",
    ),
    "videoswin_t": _entry("VideoSwin-T, 32x224x224, grid of 16x56x56 tokens, windows of 8x7x7", VIDEOSWIN_T),
    "videoswin_s": _entry("VideoSwin-S, 32x224x224, grid of 16x56x56 tokens, windows of 8x7x7", VIDEOSWIN_S),
    "videoswin_b": _entry("VideoSwin-B, 32x224x224, grid of 16x56x56 tokens, windows of 8x7x7", VIDEOSWIN_B),
}
