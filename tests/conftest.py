"""Shared fixtures: a tiny backbone, and a clean place for results."""

from __future__ import annotations

import os

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in two processes side by side

from vpbench.api import Clip
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.videomae.network import VideoMAE

TINY = VideoMAEConfig(dim=24, depth=3, heads=2, frames=16, height=32, width=32, tubelet=2, patch=8, classes=5)


#: files of tests that run whole commands: they begin first, or one process would wait for the other at the end
LONG = ("test_runner.py", "test_cli.py", "test_packaging.py", "test_real_datasets.py", "test_check_command.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, in the order of `LONG`."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture
def tiny() -> VideoMAE:
    """A backbone of 128 tokens with random weights large enough to make tokens matter."""
    torch.manual_seed(0)
    model = VideoMAE(TINY).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def moving_clip(number: int, config: VideoMAEConfig = TINY) -> Clip:
    """A clip with a still background, a moving square and noise that differs from clip to clip."""
    generator = torch.Generator().manual_seed(number)
    frames = torch.randint(60, 120, (1, config.height, config.width, 3), generator=generator).repeat(
        config.frames, 1, 1, 1
    )
    for t in range(config.frames):
        at = (number + t) % (config.height - 8)
        frames[t, at : at + 8, 4:12] = 240
    noise = torch.randint(0, 1 + number % 4 * 8, frames.shape, generator=generator)
    return Clip(
        f"clip{number}",
        f"clip{number}",
        0,
        number % config.classes,
        (frames + noise).clamp(0, 255).to(torch.uint8).numpy(),
    )
