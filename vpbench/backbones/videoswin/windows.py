"""How a grid is cut into windows, which windows see a mask, and what it says: depends on sizes alone."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from vpbench.api.contexts import plain

Triple = tuple[int, int, int]
# What the published code adds between tokens of different regions: their weights underflow, but are not cut.
MASKED = -100.0
# Windows x tokens^2 of a shifted grid up to which all its windows run as one call, each with a mask of its own.
_ONE_CALL = 1 << 17


@dataclass(frozen=True)
class Group:
    """Windows that run together: their numbers (None: all), and their mask `[1 or windows, V, V]` (None: none)."""

    windows: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True)
class Partition:
    """A grid padded on its far sides to whole windows, and rolled back by `shift` where it is not 0."""

    window: Triple
    shift: Triple
    padded: Triple
    groups: tuple[Group, ...]

    @property
    def count(self) -> tuple[int, int, int]:
        """Windows along each axis."""
        t, h, w = (n // size for n, size in zip(self.padded, self.window, strict=True))
        return t, h, w

    def cut(self, x: Tensor) -> Tensor:
        """Bring a padded grid `[B, D, H, W, C]` into windows `[B, count, V, C]`."""
        if any(self.shift):
            x = x.roll([-s for s in self.shift], (1, 2, 3))
        (nd, nh, nw), (wd, wh, ww) = self.count, self.window
        boxes = x.reshape(x.shape[0], nd, wd, nh, wh, nw, ww, x.shape[-1]).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return boxes.reshape(x.shape[0], nd * nh * nw, wd * wh * ww, x.shape[-1])

    def joined(self, windows: Tensor) -> Tensor:
        """Undo `cut`."""
        batch, channels = windows.shape[0], windows.shape[-1]
        boxes = windows.view(batch, *self.count, *self.window, channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = boxes.reshape(batch, *self.padded, channels)
        return x.roll(self.shift, (1, 2, 3)) if any(self.shift) else x


@lru_cache(maxsize=64)
@plain()  # what is kept is for callers in any context
def partition(grid: Triple, full: Triple, shifted: bool, device: torch.device) -> Partition:
    """Cut a grid into windows of at most `full`; an axis not larger than its window is one window and never shifts."""
    axes = tuple(zip(grid, full, strict=True))
    wd, wh, ww = window = tuple(min(n, size) for n, size in axes)
    shift = tuple(size // 2 if shifted and n > size else 0 for n, size in axes)
    padded = tuple(-(-n // size) * size for n, size in zip(grid, window, strict=True))
    groups = _groups(padded, window, shift, device) if any(shift) else (Group(None, None),)
    return Partition((wd, wh, ww), shift, padded, groups)  # type: ignore[arg-type]


def _groups(
    padded: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], device: torch.device
) -> tuple[Group, ...]:
    """Group the windows of a shifted grid by their masks: only the last ones along an axis have any."""
    volume = prod(window)
    plain = Partition(window, (0, 0, 0), padded, ())  # type: ignore[arg-type]
    regions = plain.cut(_regions(padded, window, shift)[None, ..., None])[0, ..., 0]
    masks = torch.where(regions[:, :, None] == regions[:, None, :], 0.0, MASKED)
    if len(masks) * volume * volume <= _ONE_CALL:
        return (Group(None, masks.to(device)),)
    # windows with the same borders in them have the same mask, wherever they lie
    kinds, which = (regions - regions[:, :1]).unique(dim=0, return_inverse=True)
    found = []
    for kind in range(len(kinds)):
        members = (which == kind).nonzero().flatten()
        mask = masks[members[:1]]
        found.append(Group(members.to(device), mask.to(device) if mask.any() else None))
    return tuple(found)


def _regions(padded: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """Number the regions `[D, H, W]` of a rolled grid inside which all were neighbours before: up to 3 on an axis."""
    codes = torch.zeros(padded, dtype=torch.int64)
    for axis, (length, size, step) in enumerate(zip(padded, window, shift, strict=True)):
        place = torch.arange(length)
        region = (place >= length - size).long() + (place >= length - step).long() if step else torch.zeros_like(place)
        codes = codes * 3 + region.view([-1 if axis == own else 1 for own in range(3)])
    return codes


@lru_cache(maxsize=8)
@plain()
def relative_index(full: Triple, tokens: int, device: torch.device) -> Tensor:
    """Return `[tokens, tokens]`: the row of the bias table for each query and key of a window.

    It is the first part of the full window's index: right where only the depth of the window is smaller, and wrong, as
    published, where a spatial side is.
    """
    d, h, w = full
    place = torch.cartesian_prod(torch.arange(d), torch.arange(h), torch.arange(w))[:tokens]
    dd, dh, dw = (place[:, None] - place[None]).unbind(-1)
    return (((dd + d - 1) * (2 * h - 1) + (dh + h - 1)) * (2 * w - 1) + (dw + w - 1)).to(device)
