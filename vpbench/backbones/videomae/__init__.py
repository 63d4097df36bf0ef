"""Sizes of VideoMAE-style backbones. Imports no torch, so that listing them is instant."""

from dataclasses import dataclass
from functools import partial

from vpbench.backbones import WEIGHTS
from vpbench.registry import Entry

# ImageNet statistics: what every published VideoMAE checkpoint was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class VideoMAEConfig:
    """Sizes of a joint space-time ViT with mean pooling (VideoMAE, arXiv 2203.12602, fine-tuned form).

    `eps`: of the norms; `fc_eps`: of the one before the classifier, where it is another. `mean`, `std`: of the colours
    in [0, 1] that it was trained on: red, green, blue. `stored_positions`: the checkpoint holds the positional table;
    otherwise it is VideoMAE's fixed sinusoid. `run_lengths`: the checkpoint holds RLT's table of run-length embeddings.
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
    fc_eps: float | None = None
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
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
TINY = VideoMAEConfig(24, 3, 2, height=32, width=32, patch=8, classes=5)

_entry = partial(
    Entry,
    flow="stream",
    build=f"{__name__}.network:VideoMAE",
    protocol="videomae_5x3",
    layouts=f"{__name__}.layouts",
    tiny=TINY,
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
    "videomae_g": _entry(
        "VideoMAE V2 ViT-g/14, 16x224x224, 2048 tokens", VideoMAEConfig(1408, 40, 16, patch=14, mlp_ratio=48 / 11)
    ),
}
