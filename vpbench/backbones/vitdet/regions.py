"""Pool regions of a pyramid to maps of one size (RoIAlign, arXiv 1703.06870, aligned form)."""

import math

import torch
from torch import Tensor

from vpbench.api.tokens import constant, joined, moved, summed

# Elements of products with whole maps that exist at a time on a GPU.
_ELEMENTS = 1 << 28


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


def pool_at_once(levels: list[Tensor], boxes: Tensor, counts: tuple[int, ...], level: Tensor, strides: tuple[int, ...],
                 pooled: int) -> Tensor:  # fmt: skip
    """Do as `pool_regions` by products with whole maps, launched a few times for all boxes, and waiting for nothing.

    That is more arithmetic, which a GPU has done before it could be launched for each box. counts: boxes of each frame,
    one frame after the other; boxes are inside frames.
    """
    sizes = tuple(float(side) for each in levels for side in (each.shape[3], each.shape[2]))
    longest, most, device = int(max(sizes)), max(counts, default=0), boxes.device
    places = boxes / constant(tuple(map(float, strides)), device)[level][:, None] - 0.5
    low, high = (each.flatten() for each in places.split(2, dim=1))
    length = constant(sizes, device).view(-1, 2)[level].flatten()
    weights, _ = _weights(low, high, length, longest, -(-longest // pooled), pooled)
    weights = weights.view(len(boxes), 2, pooled, longest)
    slots = None
    if min(counts, default=0) < most:  # products are of as many boxes in each frame
        ranks = [number * most + torch.arange(count, device="cpu") for number, count in enumerate(counts)]
        slots = moved(torch.cat(ranks), device)
        room = len(counts) * most
        weights = weights.new_zeros(room, *weights.shape[1:]).index_copy_(0, slots, weights)
        level = level.new_zeros(room).index_copy_(0, slots, level)
    across, down = weights.to(levels[0].dtype).unbind(1)
    out = [_products(each, down * (level == number)[:, None, None], across, len(counts))
           for number, each in enumerate(levels)]  # fmt: skip
    found = torch.stack(out).sum(0) if len(out) > 1 else out[0]
    return (found if slots is None else found[slots]).permute(0, 3, 1, 2)


def _products(features: Tensor, down: Tensor, across: Tensor, frames: int) -> Tensor:
    """Return `[R, pooled, pooled, C]` of a level `[B, C, H, W]`: as many boxes `[R, pooled, longest]` of each frame."""
    maps = features.permute(0, 2, 3, 1)
    _, height, width, channels = maps.shape
    boxes, pooled = len(down) // frames, down.shape[1]
    rows, maps = down[..., :height].reshape(frames, boxes * pooled, height), maps.flatten(2)
    some = max(1, _ELEMENTS // max(1, boxes * pooled * width * channels))
    parts = zip(rows.split(some), maps.split(some), across[:, None, :, :width].split(some * boxes), strict=True)
    return joined(
        [columns @ (part @ map_).view(len(columns), pooled, width, channels) for part, map_, columns in parts]
    )


def axis_weights(low: Tensor, high: Tensor, length: int, pooled: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return what each position of an axis counts in each bin, `[R, pooled, length]`, and where it is not 0 at all.

    low, high `[R]`: the box's ends in positions. A bin's samples, as many as positions in it, rounded up, lie evenly;
    each is shared between its two neighbours; outside [-1, length] it counts nothing, between that and the positions it
    is moved to the nearest one.
    """
    most = max(1, int(((high - low) / pooled).ceil().max()))
    weights, (below, above) = _weights(low, high, low.new_tensor([float(length)]), length, most, pooled)
    first = below.flatten(1).amin(1).tolist()
    last = above.flatten(1).amax(1).tolist()
    return weights, [(start, end + 1) for start, end in zip(first, last, strict=True)]


def _weights(
    low: Tensor, high: Tensor, length: Tensor, longest: int, most: int, pooled: int
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return weights `[R, pooled, longest]`, and each sample's neighbours `[R, pooled, most]`.

    length `[R or 1]`: of each box's own axis. most: samples of a bin, at most.
    """
    extent = high - low
    samples = (extent / pooled).ceil().clamp(min=0)
    bins = torch.arange(pooled, device=low.device)[None, :, None]
    step = torch.arange(most, device=low.device, dtype=low.dtype)
    width = (extent / pooled)[:, None, None]
    each, end = samples[:, None, None], length[:, None, None]
    place = low[:, None, None] + bins * width + (step + 0.5) * width / each
    valid = (step < each) & (place >= -1) & (place <= end)
    place = place.nan_to_num().clamp(min=0).minimum(end - 1)
    share = valid / each.clamp(min=1)
    below = place.floor().long()
    above = (below + 1).minimum(end.long() - 1)
    part = place - below
    first = torch.arange(0, len(low) * pooled * longest, longest, device=low.device).view(len(low), pooled, 1)
    into = torch.stack([first + below, first + above]).flatten()
    weights = summed(torch.stack([share * (1 - part), share * part]).flatten(), into, len(low) * pooled * longest)
    return weights.view(len(low), pooled, longest), (below, above)
