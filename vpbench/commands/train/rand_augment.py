"""RandAugment (arXiv 1909.13719) on clips: a few random operations of Pillow, the same on every frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

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
