"""From a configuration to its network."""

from __future__ import annotations

from vpbench.api import Backbone, Classifier
from vpbench.backbones.catalog import Config
from vpbench.backbones.mvit import MViTConfig
from vpbench.backbones.mvit.network import MViT
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.backbones.videoswin import VideoSwinConfig
from vpbench.backbones.videoswin.network import VideoSwin
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.backbones.vivit import ViViTConfig
from vpbench.backbones.vivit.network import ViViT
from vpbench.errors import UsageError


def network(config: Config) -> Backbone:
    """Make the network of any configuration, with initial weights."""
    return ViTDet(config) if isinstance(config, ViTDetConfig) else construct(config)


def construct(config: Config) -> Classifier:
    """Make the network of a configuration, with initial weights; raises UsageError if it classifies no clips."""
    if isinstance(config, ViTDetConfig):
        raise UsageError("a ViTDet finds objects in the frames of videos; it cannot classify clips")
    if isinstance(config, MViTConfig):
        return MViT(config)
    if isinstance(config, ViViTConfig):
        return ViViT(config)
    return VideoSwin(config) if isinstance(config, VideoSwinConfig) else VideoMAE(config)
