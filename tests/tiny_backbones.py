"""One tiny backbone of each family that classifies clips, as entries name them."""

from __future__ import annotations

from vpbench import registry
from vpbench.backbones.mvit import TINY as MVIT
from vpbench.backbones.videoswin import TINY as VIDEOSWIN
from vpbench.backbones.vivit import TINY as VIVIT
from vpbench.registry import Sizes

__all__ = ["CONFIGS", "MVIT", "VIDEOSWIN", "VIVIT"]
CONFIGS: dict[str, Sizes] = {
    entry.family.lower(): entry.tiny
    for entry in registry.backbones().values()
    if entry.tiny is not None and entry.task == "recognition"
}
