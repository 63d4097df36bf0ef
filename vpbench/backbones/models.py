"""From a configuration to its network."""

from __future__ import annotations

from vpbench.api import Backbone
from vpbench.backbones.catalog import Config
from vpbench.backbones.mvit import MViT
from vpbench.backbones.mvit_config import MViTConfig
from vpbench.backbones.videomae import VideoMAE


def construct(config: Config) -> Backbone:
    """Make the network of a configuration, with initial weights."""
    return MViT(config) if isinstance(config, MViTConfig) else VideoMAE(config)
