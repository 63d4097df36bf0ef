"""Sizes of ViViT with a factorised encoder."""

from dataclasses import dataclass
from functools import partial

from vpbench.backbones import WEIGHTS
from vpbench.registry import Entry


@dataclass(frozen=True)
class ViViTConfig:
    """A spatial encoder on every step (tubelet time index) of its own, and a temporal encoder over their classes.

    `positions` is the grid (rows, cols) of the spatial positional table, None for that of the clips; `steps` the length
    of the temporal one. `stride`: frames between those of a clip.
    """

    dim: int
    depth: int
    heads: int
    temporal_depth: int = 4
    frames: int = 32
    height: int = 224
    width: int = 224
    tubelet: int = 2
    patch: int = 16
    positions: tuple[int, int] | None = None
    mlp_ratio: float = 4.0
    classes: int = 400
    eps: float = 1e-6
    stride: int = 2

    @property
    def grid(self) -> tuple[int, int, int]:
        """Steps, rows and columns of tokens."""
        return self.frames // self.tubelet, self.height // self.patch, self.width // self.patch

    @property
    def pixels_per_token(self) -> int:
        """Values of one tubelet: 3 channels x tubelet x patch x patch."""
        return 3 * self.tubelet * self.patch * self.patch


VIVIT_B_K400 = ViViTConfig(768, 12, 12)
VIVIT_B_EPIC = ViViTConfig(768, 12, 12, height=320, width=320, classes=97, stride=1)
VIVIT_EMBEDDED = ViViTConfig(192, 6, 3, temporal_depth=3, frames=16, height=64, width=64, patch=8, classes=18, stride=2)
TINY = ViViTConfig(24, 3, 2, temporal_depth=2, frames=20, height=48, width=48, patch=8, classes=5)

_entry = partial(
    Entry,
    flow="steps",
    build=f"{__name__}.network:ViViT",
    protocol="vivit_4x3",
    layouts=f"{__name__}.layouts",
    tiny=TINY,
)
ENTRIES: dict[str, Entry] = {
    "vivit_embedded": _entry(
        "ViViT, factorised, 16x64x64, 8 steps of 64 tokens; trained weights included",
        VIVIT_EMBEDDED,
        weights=WEIGHTS / "vivit_embedded.safetensors",
    ),
    "vivit_b_k400": _entry("ViViT-B, factorised, 32x224x224, 16 steps of 196 tokens, 400 classes", VIVIT_B_K400),
    "vivit_b_epic": _entry("ViViT-B, factorised, 32x320x320, 16 steps of 400 tokens, 97 verbs", VIVIT_B_EPIC),
}
