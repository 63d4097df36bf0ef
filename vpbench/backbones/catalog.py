"""Names and sizes of the backbones. Imports no torch, so that listing them is instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import vpbench
from vpbench.backbones.mvit import MVIT_B, MVIT_EMBEDDED, MViTConfig
from vpbench.backbones.videomae import VIDEOMAE_EMBEDDED, VideoMAEConfig
from vpbench.backbones.videoswin import VIDEOSWIN_B, VIDEOSWIN_EMBEDDED, VIDEOSWIN_S, VIDEOSWIN_T, VideoSwinConfig
from vpbench.backbones.vitdet import VITDET_B_672, VITDET_B_1024, VITDET_EMBEDDED, ViTDetConfig
from vpbench.backbones.vivit import VIVIT_B_EPIC, VIVIT_B_K400, VIVIT_EMBEDDED, ViViTConfig
from vpbench.registry import Flow

WEIGHTS = vpbench.PACKAGE / "backbones" / "weights"
Config = VideoMAEConfig | MViTConfig | VideoSwinConfig | ViViTConfig | ViTDetConfig
_FLOWS: dict[type[Config], Flow] = {
    VideoMAEConfig: "stream",
    ViViTConfig: "steps",
    MViTConfig: "grid",
    VideoSwinConfig: "grid",
    ViTDetConfig: "frames",
}


@dataclass(frozen=True)
class Entry:
    """One backbone by name: what it is, its sizes, and the weights that come with the package, if any."""

    summary: str
    config: Config
    weights: Path | None = None

    @property
    def flow(self) -> Flow:
        """How its tokens flow, which says what methods run there."""
        return _FLOWS[type(self.config)]


CATALOG: dict[str, Entry] = {
    "videomae_embedded": Entry(
        "VideoMAE-style ViT, 16x64x64, 512 tokens; trained weights included",
        VIDEOMAE_EMBEDDED,
        WEIGHTS / "videomae_embedded.safetensors",
    ),
    "videomae_s": Entry("VideoMAE ViT-S, 16x224x224, 1568 tokens", VideoMAEConfig(384, 12, 6)),
    "videomae_b": Entry("VideoMAE ViT-B, 16x224x224, 1568 tokens", VideoMAEConfig(768, 12, 12)),
    "videomae_l": Entry("VideoMAE ViT-L, 16x224x224, 1568 tokens", VideoMAEConfig(1024, 24, 16)),
    "videomae_h": Entry("VideoMAE ViT-H, 16x224x224, 1568 tokens", VideoMAEConfig(1280, 32, 16)),
    "mvit_embedded": Entry(
        "MViT with conv pooling, 16x64x64, grid of 8x8x8 tokens; trained weights and STTS scorers included",
        MVIT_EMBEDDED,
        WEIGHTS / "mvit_embedded.safetensors",
    ),
    "mvit_b_16x4": Entry("MViT-B with conv pooling, 16x224x224, grid of 8x56x56 tokens", MVIT_B),
    "videoswin_embedded": Entry(
        "VideoSwin, 16x64x64, grid of 8x8x8 tokens, windows of 4x4x4; trained weights and STTS scorers included",
        VIDEOSWIN_EMBEDDED,
        WEIGHTS / "videoswin_embedded.safetensors",
    ),
    "videoswin_t": Entry("VideoSwin-T, 32x224x224, grid of 16x56x56 tokens, windows of 8x7x7", VIDEOSWIN_T),
    "videoswin_s": Entry("VideoSwin-S, 32x224x224, grid of 16x56x56 tokens, windows of 8x7x7", VIDEOSWIN_S),
    "videoswin_b": Entry("VideoSwin-B, 32x224x224, grid of 16x56x56 tokens, windows of 8x7x7", VIDEOSWIN_B),
    "vivit_embedded": Entry(
        "ViViT, factorised, 16x64x64, 8 steps of 64 tokens; trained weights included",
        VIVIT_EMBEDDED,
        WEIGHTS / "vivit_embedded.safetensors",
    ),
    "vivit_b_k400": Entry("ViViT-B, factorised, 32x224x224, 16 steps of 196 tokens, 400 classes", VIVIT_B_K400),
    "vivit_b_epic": Entry("ViViT-B, factorised, 32x320x320, 16 steps of 400 tokens, 97 verbs", VIVIT_B_EPIC),
    "vitdet_embedded": Entry(
        "ViTDet, finds 6 shapes in frames of 64x64, grid of 16x16 tokens; trained weights included",
        VITDET_EMBEDDED,
        WEIGHTS / "vitdet_embedded.safetensors",
    ),
    "vitdet_b_672": Entry(
        "ViTDet-B, finds objects in frames of 672x672, grid of 42x42 tokens, 30 classes", VITDET_B_672
    ),
    "vitdet_b_1024": Entry(
        "ViTDet-B, finds objects in frames of 1024x1024, grid of 64x64 tokens, 30 classes", VITDET_B_1024
    ),
}
