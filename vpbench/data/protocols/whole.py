"""How detectors see frames: whole, resized to fit."""

import numpy as np
import torch
from torch.nn import functional as F

from vpbench.data.boxes import Pixels

#: the short side of a frame whose long side may have 1024 pixels; other sizes keep that proportion
SHORT_OF_1024 = 640


def scale_of(height: int, width: int, longest: int, short_of_1024: int = SHORT_OF_1024) -> float:
    """Return the factor that fits a frame into `longest` pixels, and its short side into so many of every 1024."""
    shortest = short_of_1024 * longest // 1024
    return min(shortest / min(height, width), longest / max(height, width))


def resize(pixels: Pixels, longest: int, short_of_1024: int = SHORT_OF_1024) -> Pixels:
    """Resize a frame by `scale_of`: bilinear with antialias on floats, rounded back to 0..255.

    Sides are rounded to whole pixels, while boxes change by the scale itself: divided by it, what a detector finds in
    the resized frame is in the pixels of the annotations.
    """
    height, width = pixels.shape[:2]
    scale = scale_of(height, width, longest, short_of_1024)
    size = [max(1, round(scale * height)), max(1, round(scale * width))]
    if size == [height, width]:
        return pixels
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=True)
    # a mean of values in 0..255 stays there but for rounding errors of floats
    return resized[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
