"""A pixel score for use before the patch embedding."""

from typing import Literal

import torch
from torch import Tensor

from vpbench.api.tokens import Grid, constant

# 255 x the ImageNet deviations: differences of uint8 frames become differences of normalised ones.
_UINT8_STD = (255 * 0.229, 255 * 0.224, 255 * 0.225)
Pair = Literal["ends", "tubelet"]


def temporal_difference(pixels: Tensor, grid: Grid, pair: Pair) -> Tensor:
    """Return `[B, slots-1, rows, cols]`: how much each tubelet from slot 1 on differs from its predecessor.

    The mean over channels and pixels of the absolute difference, in normalised pixel units, of `pixels`
    `[B, T, H, W, 3]` (uint8, or floats that are normalised already). `pair` says what is compared:

    - `ends`: the last frame of the tubelet with the first frame of the one before (RLT, arXiv 2411.05222);
    - `tubelet`: frame by frame, the whole tubelet with the whole one before (MGTC and EVS rule).
    """
    if grid.slots == 1:
        return torch.zeros(pixels.shape[0], 0, grid.rows, grid.cols, device=pixels.device, dtype=torch.float32)
    length = pixels.shape[1] // grid.slots
    if pair == "ends":
        now, before = pixels[:, 2 * length - 1 :: length], pixels[:, :-length:length]
    else:
        now, before = pixels[:, length:], pixels[:, :-length]
    difference = (now.float() - before.float()).abs()
    batch, frames, height, width = difference.shape[:4]
    cells = difference.view(
        batch,
        grid.slots - 1,
        frames // (grid.slots - 1),
        grid.rows,
        height // grid.rows,
        grid.cols,
        width // grid.cols,
        3,
    )
    per_channel = cells.mean(dim=(2, 4, 6))
    if pixels.dtype == torch.uint8:
        per_channel = per_channel / constant(_UINT8_STD, per_channel.device)
    return per_channel.mean(dim=-1)
