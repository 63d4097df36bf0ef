"""Sizes of VideoMAE-style backbones. Imports no torch, so that listing them is instant."""

from dataclasses import dataclass
from functools import partial

from vpbench.backbones import WEIGHTS
from vpbench.registry import Entry


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


VIDEOMAE_EMBEDDED = VideoMAEConfig(
    dim=192, depth=6, heads=3, height=64, width=64, patch=8, classes=18, stored_positions=True, stride=2
)

_entry = partial(
    Entry, flow="stream", build=f"{__name__}.network:VideoMAE", protocol="videomae_5x3", layouts=f"{__name__}.layouts"
)
ENTRIES: dict[str, Entry] = {
    "videomae_embedded": _entry(
        "VideoMAE-style ViT, 16x64x64, 512 tokens; trained weights included",
        VIDEOMAE_EMBEDDED,
        weights=WEIGHTS / "videomae_embedded.safetensors",
    ),
    "videomae_s": _entry("VideoMAE ViT-S, 16x224x224, 1568 tokens", VideoMAEConfig(384, 12, 6)),
    "videomae_b": _entry("VideoMAE ViT-B, 16x224x224, 1568 tokens", VideoMAEConfig(768, 12, 12)),
    "videomae_l": _entry("VideoMAE ViT-L, 16x224x224, 1568 tokens", VideoMAEConfig(1024, 24, 16)),
    "videomae_h": _entry("VideoMAE ViT-H, 16x224x224, 1568 tokens", VideoMAEConfig(1280, 32, 16)),
}
