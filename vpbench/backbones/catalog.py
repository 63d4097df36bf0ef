"""Names and sizes of the backbones. Imports no torch, so that listing them is instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vpbench.backbones.mvit_config import MVIT_B, MViTConfig

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


Config = VideoMAEConfig | MViTConfig


@dataclass(frozen=True)
class Entry:
    """One backbone by name: what it is, its sizes, and the weights that come with the package, if any."""

    summary: str
    config: Config
    weights: Path | None = None

    @property
    def plain(self) -> bool:
        """Whether tokens are a plain stream that can lose any of them, as random control cells need."""
        return isinstance(self.config, VideoMAEConfig)


EMBEDDED = VideoMAEConfig(
    dim=192, depth=6, heads=3, height=64, width=64, patch=8, classes=18, stored_positions=True, stride=2
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
    "mvit_b_16x4": Entry("MViT-B with conv pooling, 16x224x224, grid of 8x56x56 tokens", MVIT_B),
}
