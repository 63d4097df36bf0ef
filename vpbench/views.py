"""From decoded frames to the pixels a backbone takes: resize and crop."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

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
