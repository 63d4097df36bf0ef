"""Tiny sizes of every family, for tests of what all backbones have in common."""

from __future__ import annotations

from vpbench import registry
from vpbench.backbones.mvit import TINY as MVIT
from vpbench.backbones.videoswin import TINY as VIDEOSWIN
from vpbench.backbones.vivit import TINY as VIVIT
from vpbench.registry import Sizes

__all__ = ["CONFIGS", "MVIT", "VIDEOSWIN", "VIVIT", "WRAPPED"]
#: those of transformers that are one stream, run by its code
WRAPPED = ("hf_videomae", "hf_vivit", "hf_vjepa2")


def _configs() -> dict[str, Sizes]:
    found: dict[Sizes, str] = {}
    for name, entry in registry.backbones().items():
        if entry.tiny is not None and entry.task == "recognition":
            found.setdefault(entry.tiny, name if entry.needs else entry.family.lower())
    return {name: tiny for tiny, name in found.items()}


CONFIGS = _configs()
