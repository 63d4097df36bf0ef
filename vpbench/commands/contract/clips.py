"""Clips and frames that the contract is checked on: made, not read, and the same every time."""

from collections.abc import Sequence

import torch

from vpbench.api import Clip
from vpbench.registry import Sizes
from vpbench.tasks.detection.follow import Look


def moving_clip(number: int, sizes: Sizes) -> Clip:
    """Make a clip with a still background, a moving square and noise that differs from clip to clip."""
    with torch.device("cpu"):
        generator = torch.Generator().manual_seed(number)
        frames = torch.randint(60, 120, (1, sizes.height, sizes.width, 3), generator=generator).repeat(
            sizes.frames, 1, 1, 1
        )
        for t in range(sizes.frames):
            at = (number + t) % (sizes.height - 8)
            frames[t, at : at + 8, 4:12] = 240
        noise = torch.randint(0, 1 + number % 4 * 8, frames.shape, generator=generator)
        pixels = (frames + noise).clamp(0, 255).to(torch.uint8).numpy()
    return Clip(f"clip{number}", f"clip{number}", 0, number % sizes.classes, pixels)


def clips(sizes: Sizes, count: int) -> Sequence[Clip]:
    """Make the first `count` clips of a backbone's sizes."""
    return [moving_clip(number, sizes) for number in range(count)]


def looks(count: int, video: str = "v", first: int = 0) -> list[Look]:
    """Make frames of 48 x 64 pixels with a square that moves over noise."""
    generator = torch.Generator().manual_seed(len(video))
    pixels = torch.randint(0, 90, (count, 48, 64, 3), generator=generator, dtype=torch.uint8)
    for t in range(count):
        pixels[t, 6 + t : 30 + t, 8 + 2 * t : 36 + 2 * t] = 220
    return [Look(video, first + t, each, 1.0) for t, each in enumerate(pixels)]
