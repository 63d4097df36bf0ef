"""Names and sizes of the backbones. Imports no torch, so that listing them is instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vpbench.backbones.mvit_config import MVIT_B, MViTConfig
from vpbench.backbones.videoswin_config import VIDEOSWIN_B, VIDEOSWIN_S, VIDEOSWIN_T, VideoSwinConfig
from vpbench.backbones.vitdet_config import VITDET_B_672, VITDET_B_1024, VITDET_EMBEDDED, ViTDetConfig
from vpbench.backbones.vivit_config import VIVIT_B_EPIC, VIVIT_B_K400, VIVIT_EMBEDDED, ViViTConfig

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True)
class VideoMAEConfig:
    """Sizes of a joint space-time ViT with mean pooling (VideoMAE, arXiv 2203.12602, fine-tuned form).

    `stored_positions`: the checkpoint holds the positional table; otherwise it is VideoMAE's fixed sinusoid.
    `run_lengths`: the checkpoint holds RLT's table of run-length embeddings.
    """

    dim: int
    depth: int
    heads: int
    frames: int = 16
    height: int = 224
    width: int = 224
    tubelet: int = 2
    patch: int = 16
    mlp_ratio: float = 4.0
    classes: int = 400
    eps: float = 1e-6
    stored_positions: bool = False
    run_lengths: bool = False
    stride: int = 4

    @property
    def pixels_per_token(self) -> int:
        """Values of one tubelet: 3 channels x tubelet x patch x patch."""
        return 3 * self.tubelet * self.patch * self.patch


Config = VideoMAEConfig | MViTConfig | VideoSwinConfig | ViViTConfig | ViTDetConfig


@dataclass(frozen=True)
class Entry:
    """One backbone by name: what it is, its sizes, and the weights that come with the package, if any."""

    summary: str
    config: Config
    weights: Path | None = None

    @property
    def plain(self) -> bool:
        """Whether tokens are a plain stream that can lose any of them, as random control cells need."""
        return isinstance(self.config, VideoMAEConfig | ViViTConfig)

    @property
    def detects(self) -> bool:
        """Whether it finds objects in the frames of videos, instead of classifying clips."""
        return isinstance(self.config, ViTDetConfig)


EMBEDDED = VideoMAEConfig(
    dim=192, depth=6, heads=3, height=64, width=64, patch=8, classes=18, stored_positions=True, stride=2
)

MVIT_EMBEDDED = MViTConfig(
    dim=96,
    depth=7,
    heads=2,
    dim_mul=((2, 2.0),),
    head_mul=((2, 2.0),),
    pool_q_stride=((2, 1, 2, 2),),
    pool_kv_stride_adaptive=(1, 2, 2),
    height=64,
    width=64,
    patch_kernel=(3, 12, 12),
    patch_stride=(2, 8, 8),
    patch_padding=(1, 2, 2),
    classes=18,
    stride=2,
)
VIDEOSWIN_EMBEDDED = VideoSwinConfig(
    dim=96, depths=(2, 6), heads=(3, 6), frames=16, height=64, width=64, patch=(2, 8, 8), window=(4, 4, 4), classes=18
)

CATALOG: dict[str, Entry] = {
    "videomae_embedded": Entry(
        "VideoMAE-style ViT, 16x64x64, 512 tokens; trained weights included",
        EMBEDDED,
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
