"""Pool regions of a pyramid to maps of one size (RoIAlign, arXiv 1703.06870, aligned form)."""

import math

import torch
from torch import Tensor


def levels_of(boxes: Tensor, strides: tuple[int, ...], canonical_size: float, canonical_level: int) -> Tensor:
    """Return, int64 `[R]`, the number of the level from which each box is pooled: the larger the box, the coarser.

    A box of side `canonical_size` belongs to the level of stride `2 ** canonical_level`.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = (canonical_level + (side / canonical_size + 1e-8).log2()).floor()
    first, last = (int(math.log2(stride)) for stride in (strides[0], strides[-1]))
    return level.clamp(first, last).long() - first


def pool_regions(levels: list[Tensor], boxes: Tensor, frames: Tensor, level: Tensor, strides: tuple[int, ...],
                 pooled: int) -> Tensor:  # fmt: skip
    """Pool boxes `[R, 4]` (pixels), each from a frame and level of its own, to `[R, C, pooled, pooled]`.

    levels: `[B, C, H, W]` each; frames, level: int64 `[R]`.
    """
    out = boxes.new_zeros(len(boxes), pooled, pooled, levels[0].shape[1], dtype=levels[0].dtype)
    for number, (features, stride) in enumerate(zip(levels, strides, strict=True)):
        rows = (level == number).nonzero().flatten()
        if len(rows):
            maps = features.permute(0, 2, 3, 1).contiguous()
            out[rows] = _pool(maps, boxes[rows] / stride - 0.5, frames[rows], pooled).to(out.dtype)
    return out.permute(0, 3, 1, 2)


def _pool(maps: Tensor, boxes: Tensor, frames: Tensor, pooled: int) -> Tensor:
    """Pool boxes, in positions of the maps `[B, H, W, C]`, to `[R, pooled, pooled, C]`.

    Samples of a bin form a grid, so their mean is a product of one weight for each row and one for each column, and two
    matrix products with the part of the map under the box are all there is to do.
    """
    vertical, top = axis_weights(boxes[:, 1], boxes[:, 3], maps.shape[1], pooled)
    horizontal, left = axis_weights(boxes[:, 0], boxes[:, 2], maps.shape[2], pooled)
    vertical, horizontal = vertical.to(maps.dtype), horizontal.to(maps.dtype)
    out = []
    for number, (frame, (y0, y1), (x0, x1)) in enumerate(zip(frames.tolist(), top, left, strict=True)):
        region = maps[frame, y0:y1, x0:x1]
        rows = horizontal[number, :, x0:x1] @ region
        out.append((vertical[number, :, y0:y1] @ rows.flatten(1)).view(pooled, pooled, -1))
    return torch.stack(out)


def axis_weights(low: Tensor, high: Tensor, length: int, pooled: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return what each position of an axis counts in each bin, `[R, pooled, length]`, and where it is not 0 at all.

    low, high `[R]`: the box's ends in positions. A bin's samples, as many as positions in it, rounded up, lie evenly;
    each is shared between its two neighbours; outside [-1, length] it counts nothing, between that and the positions it
    is moved to the nearest one.
    """
    extent = high - low
    samples = (extent / pooled).ceil().clamp(min=0)
    most = max(1, int(samples.max()))
    bins = torch.arange(pooled, device=low.device)[None, :, None]
    step = torch.arange(most, device=low.device, dtype=low.dtype)
    width = (extent / pooled)[:, None, None]
    each = samples[:, None, None]
    place = low[:, None, None] + bins * width + (step + 0.5) * width / each
    valid = (step < each) & (place >= -1) & (place <= length)
    place = place.nan_to_num().clamp(0, length - 1)
    share = valid / each.clamp(min=1)
    below = place.floor().long()
    above = (below + 1).clamp(max=length - 1)
    part = place - below
    weights = low.new_zeros(len(low), pooled, length)
    weights.scatter_add_(2, below, share * (1 - part))
    weights.scatter_add_(2, above, share * part)
    first = below.flatten(1).amin(1).tolist()
    last = above.flatten(1).amax(1).tolist()
    return weights, [(start, end + 1) for start, end in zip(first, last, strict=True)]
