"""From decoded frames to the pixels a backbone takes: resize and crop."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Frames = NDArray[np.uint8]


def centre_crop(frames: Frames, height: int, width: int) -> Frames:
    """Return uint8 `[T, height, width, 3]`: the shorter side resized to fit, then the centre cut out.

    VideoMAE's rule: bilinear without antialiasing, the longer side rounded down. `frames`: uint8 `[T, H, W, 3]`;
    returned as they are if they have the size already.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    rows, cols = frames.shape[1:3]
    scale = max(height / rows, width / cols)
    size = (max(height, int(rows * scale)), max(width, int(cols * scale)))
    flat = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    large = F.interpolate(flat, size=size, mode="bilinear", align_corners=False).round().clamp(0, 255)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    cut = large[:, :, top : top + height, left : left + width]
    return cut.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def normalised_views(
    frames: Tensor, *, count: int, stride: int, size: tuple[int, int], views: tuple[int, int], mean: float, std: float
) -> Tensor:
    """Cut (temporal, spatial) `views` out of a video as ViViT's evaluation does: `[V, count, height, width, 3]`.

    `frames`: uint8 `[F, H, W, 3]`; a video that is too short repeats its last frame. Each view takes every `stride`-th
    of `count * stride` frames; starts are spread over the video, or centred for a single one. Normalised first, then
    resized (antialiased bilinear) until both sides cover `size`, then cut at spread corners. Spatial views outermost.
    """
    times, places = views
    length = count * stride
    late = frames[-1:].expand(max(0, length - len(frames)), -1, -1, -1)
    whole = torch.cat([frames, late])
    starts = spread(len(whole) - length, times)
    clips = [_covering((whole[s : s + length : stride].float() / 255 - mean) / std, size) for s in starts]
    height, width = size
    rows, cols = (spread(free, places) for free in (clips[0].shape[1] - height, clips[0].shape[2] - width))
    corners = zip(rows, cols, strict=True)
    return torch.stack([clip[:, y : y + height, x : x + width] for y, x in corners for clip in clips])


def spread(free: int, count: int) -> list[int]:
    """Return `count` starts from 0 to `free`, evenly spread and rounded down; the middle for a single one."""
    return [free // 2] if count == 1 else [int(k * free / (count - 1)) for k in range(count)]


def _covering(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `[T, H, W, 3]` so that it covers `size` tightly; unchanged if it does already."""
    rows, cols = frames.shape[1:3]
    scale = max(size[0] / rows, size[1] / cols)
    if scale == 1:
        return frames
    target = (round(scale * rows), round(scale * cols))
    flat = F.interpolate(frames.permute(0, 3, 1, 2), size=target, mode="bilinear", align_corners=False, antialias=True)
    return flat.permute(0, 2, 3, 1)
