"""Sizes of VideoMAE-style backbones. Imports no torch, so that listing them is instant."""

from __future__ import annotations

from dataclasses import dataclass


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
