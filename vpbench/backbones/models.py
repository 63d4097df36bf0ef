"""From a configuration to its network."""

from __future__ import annotations

from vpbench.api import Backbone
from vpbench.backbones.catalog import Config
from vpbench.backbones.mvit import MViT
from vpbench.backbones.mvit_config import MViTConfig
from vpbench.backbones.videomae import VideoMAE
from vpbench.backbones.videoswin import VideoSwin
from vpbench.backbones.videoswin_config import VideoSwinConfig
from vpbench.backbones.vivit import ViViT
from vpbench.backbones.vivit_config import ViViTConfig


def construct(config: Config) -> Backbone:
    """Make the network of a configuration, with initial weights."""
    if isinstance(config, MViTConfig):
        return MViT(config)
    if isinstance(config, ViViTConfig):
        return ViViT(config)
    return VideoSwin(config) if isinstance(config, VideoSwinConfig) else VideoMAE(config)
