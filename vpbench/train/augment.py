"""Augmentations of motion clips that permute the labels: mirror a clip and `move_e` becomes `move_w`."""

from __future__ import annotations

import torch
from torch import Tensor

from vpbench.datasets.synthmotion.scene import CLASSES, MOVES

# channels of the dense target, see scene.TARGETS
_VX, _VY, _SPIN, _GROW, _FADE = 1, 2, 3, 4, 5
_SWAPS = {"hop": "sway", "sway": "hop"}
_REVERSED = {"grow": "shrink", "shrink": "grow", "appear": "vanish", "vanish": "appear"}


def symmetric(pixels: Tensor, targets: Tensor, label: int, which: int) -> tuple[Tensor, Tensor, int]:
    """Apply one of the 16 symmetries: bit 0 mirrors x, bit 1 mirrors y, bit 2 swaps x and y, bit 3 reverses time.

    pixels `[T, H, W, 3]`, targets `[slots, rows, cols, 7]`; H = W.
    """
    sign = torch.ones(targets.shape[-1])
    if which & 1:
        pixels, targets, label = pixels.flip(2), targets.flip(2), _move(label, lambda k: 4 - k)
        sign[[_VX, _SPIN]] *= -1
    if which & 2:
        pixels, targets, label = pixels.flip(1), targets.flip(1), _move(label, lambda k: -k)
        sign[[_VY, _SPIN]] *= -1
    targets = targets * sign
    if which & 4:
        pixels, targets = pixels.transpose(1, 2), targets.transpose(1, 2)
        order = [0, _VY, _VX, *range(_SPIN, targets.shape[-1])]
        targets = targets[..., order]
        targets[..., _SPIN] *= -1
        label = _renamed(_move(label, lambda k: -k - 2), _SWAPS)
    if which & 8:
        pixels, targets = pixels.flip(0), targets.flip(0)
        targets[..., _VX : _FADE + 1] *= -1
        label = _renamed(_move(label, lambda k: k + 4), _REVERSED)
    return pixels, targets, label


def recolour(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Permute the colour channels, invert 30 % of the clips, and scale brightness by 0.8 to 1.2 (uint8 in and out)."""
    pixels = pixels[..., torch.randperm(3, generator=generator)]
    draw = torch.rand(2, generator=generator)
    if draw[0] < 0.3:
        pixels = 255 - pixels
    return (pixels.float() * (0.8 + 0.4 * draw[1])).clamp_(0, 255).to(torch.uint8)


def _move(label: int, turn) -> int:  # type: ignore[no-untyped-def]
    return turn(label) % len(MOVES) if label < len(MOVES) else label


def _renamed(label: int, names: dict[str, str]) -> int:
    return CLASSES.index(names.get(CLASSES[label], CLASSES[label]))
