"""Augmentations of clips; those of motion clips permute the labels: mirror one and `move_e` becomes `move_w`."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps
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


def resized_crop(frames: Tensor, side: int, area: tuple[float, float], draw: torch.Generator) -> Tensor:
    """Cut the same random rectangle out of uint8 frames `[T, H, W, 3]` and resize it to `side` x `side`, bilinearly.

    area: least and largest share of the frame; the aspect ratio is between 3:4 and 4:3. A frame in which ten rectangles
    in a row do not fit gives its centre.
    """
    height, width = frames.shape[1:3]
    h = w = min(height, width)
    top, left = (height - h) // 2, (width - w) // 2
    for _ in range(10):
        share, slant = torch.rand(2, generator=draw).tolist()
        surface = height * width * (area[0] + (area[1] - area[0]) * share)
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * slant)
        tall, wide = round(math.sqrt(surface / ratio)), round(math.sqrt(surface * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            h, w = tall, wide
            top = int(torch.randint(height - h + 1, (1,), generator=draw))
            left = int(torch.randint(width - w + 1, (1,), generator=draw))
            break
    cut = frames[:, top : top + h, left : left + w].permute(0, 3, 1, 2).float()
    resized = F.interpolate(cut, size=(side, side), mode="bilinear", align_corners=False)
    return resized.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def erase(frames: Tensor, probability: float, draw: torch.Generator) -> Tensor:
    """With this probability fill one rectangle, 2 to 33 % of each frame, with noise; uint8 `[T, H, W, 3]`.

    The noise is uniform over all levels: normalised, it has about the mean and spread of pictures.
    """
    if torch.rand((), generator=draw) >= probability:
        return frames
    height, width = frames.shape[1:3]
    share, slant = torch.rand(2, generator=draw).tolist()
    surface, ratio = height * width * (0.02 + 0.31 * share), 0.3 * (1 / 0.3 / 0.3) ** slant
    h, w = min(round(math.sqrt(surface * ratio)), height), min(round(math.sqrt(surface / ratio)), width)
    top = int(torch.randint(height - h + 1, (1,), generator=draw))
    left = int(torch.randint(width - w + 1, (1,), generator=draw))
    frames = frames.clone()
    noise = torch.randint(256, (len(frames), h, w, 3), generator=draw, dtype=torch.uint8)
    frames[:, top : top + h, left : left + w] = noise
    return frames


# Colour of what comes into view from outside the frame: the middle of what networks are normalised to.
_FILL = (124, 116, 104)
# What magnitude 10 means.
_DEGREES, _SHEAR, _SHIFT, _ENHANCE, _ADD = 30.0, 0.3, 0.45, 0.9, 110
Change = Callable[[Image.Image], Image.Image]


def rand_augment(frames: Tensor, operations: int, magnitude: float, deviation: float, draw: torch.Generator) -> Tensor:
    """Apply `operations` of 15 in turn, each with probability 1/2, to uint8 frames `[T, H, W, 3]`.

    magnitude: of 10, with normal noise of standard deviation `deviation` on it; more always changes more.
    """
    changes = []
    for which in torch.randint(len(_KINDS), (operations,), generator=draw).tolist():
        share = magnitude + deviation * float(torch.randn((), generator=draw))
        signed = min(max(share / 10, 0.0), 1.0) * (1 if torch.rand((), generator=draw) < 0.5 else -1)
        if torch.rand((), generator=draw) < 0.5:
            changes.append(_KINDS[which](signed))
    if not changes:
        return frames
    done = []
    for frame in frames.numpy():
        picture = Image.fromarray(frame)
        for change in changes:
            picture = change(picture)
        done.append(np.asarray(picture))
    return torch.from_numpy(np.stack(done))


def _affine(a: float, b: float, c: float, d: float, e: float, f: float) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        # shifts are shares of the frame's sides
        matrix = (a, b, c * picture.width, d, e, f * picture.height)
        return picture.transform(
            picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_FILL
        )

    return change


def _rotate(m: float) -> Change:
    return lambda picture: picture.rotate(_DEGREES * m, Image.Resampling.BILINEAR, fillcolor=_FILL)


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[[float], Change]:
    return lambda m: lambda picture: kind(picture).enhance(1 + _ENHANCE * m)


def _solarize_add(m: float) -> Change:
    amount = int(_ADD * abs(m))
    table = [min(level + amount, 255) if level < 128 else level for level in range(256)] * 3
    return lambda picture: picture.point(table)


_KINDS: tuple[Callable[[float], Change], ...] = (
    lambda m: ImageOps.autocontrast,
    lambda m: ImageOps.equalize,
    lambda m: ImageOps.invert,
    _rotate,
    lambda m: lambda picture: ImageOps.posterize(picture, max(4 - int(4 * abs(m)), 1)),
    lambda m: lambda picture: ImageOps.solarize(picture, 256 - int(256 * abs(m))),
    _solarize_add,
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    lambda m: _affine(1, _SHEAR * m, 0, 0, 1, 0),
    lambda m: _affine(1, 0, 0, _SHEAR * m, 1, 0),
    lambda m: _affine(1, 0, _SHIFT * m, 0, 1, 0),
    lambda m: _affine(1, 0, 0, 0, 1, _SHIFT * m),
)
