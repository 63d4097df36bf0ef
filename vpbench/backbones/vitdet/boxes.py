"""Boxes `(x0, y0, x1, y1)` in pixels: decode, clip, overlap, and suppress those that overlap a better one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# A side grows at most this much (the natural logarithm) from an anchor or proposal to its box.
_LARGEST_GROWTH = math.log(1000 / 16)
# Pairs of boxes that are compared at a time.
_PAIRS = 1 << 24


def decode(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Move and stretch boxes `[..., 4]` by deltas `[..., 4]`: shifts of the centre in sides, and logarithms of growth.

    weights: what each of the four deltas is divided by.
    """
    dx, dy, dw, dh = (deltas / deltas.new_tensor(weights)).unbind(-1)
    x0, y0, x1, y1 = boxes.unbind(-1)
    width, height = x1 - x0, y1 - y0
    centre_x, centre_y = x0 + 0.5 * width + dx * width, y0 + 0.5 * height + dy * height
    half_w = 0.5 * width * dw.clamp(max=_LARGEST_GROWTH).exp()
    half_h = 0.5 * height * dh.clamp(max=_LARGEST_GROWTH).exp()
    return torch.stack([centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h], dim=-1)


def clip(boxes: Tensor, side: int) -> Tensor:
    """Cut boxes `[..., 4]` to a frame of `side` x `side` pixels."""
    return boxes.clamp(0, side)


def overlap(boxes: Tensor) -> Tensor:
    """Return intersection over union of every pair of boxes `[..., n, 4]`, as `[..., n, n]`; NaN of two empty ones."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    shared = _common(boxes[..., 0], boxes[..., 2]).mul_(_common(boxes[..., 1], boxes[..., 3]))
    union = (area[..., :, None] + area[..., None, :]).sub_(shared)
    return shared.div_(union)


def _common(low: Tensor, high: Tensor) -> Tensor:
    """Return the length that every pair of intervals `[..., n]` has in common, `[..., n, n]`."""
    ends, starts = (
        torch.minimum(high[..., :, None], high[..., None, :]),
        torch.maximum(low[..., :, None], low[..., None, :]),
    )
    return ends.sub_(starts).clamp_(min=0)


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Return the indices of boxes that survive greedy non-maximum suppression, best score first.

    boxes `[n, 4]`, scores `[n]`, groups `[n]` (int64, from 0). A box falls if one of its own group that survives, and
    comes before it, overlaps it by more than the threshold. Equal scores: the lower index comes first.
    """
    if not len(boxes):
        return groups
    order = scores.argsort(descending=True, stable=True)
    group = groups[order]
    by_group = group.argsort(stable=True)
    counts = group.bincount()
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(group)
    rank[by_group] = torch.arange(len(group), device=group.device) - first[group[by_group]]
    longest = int(counts.max())
    padded = boxes.new_zeros(len(counts), longest, 4)
    padded[group, rank] = boxes[order]
    some = max(1, _PAIRS // longest**2)
    survives = torch.cat([_survivors(part, threshold) for part in padded.split(some)])
    return order[survives[group, rank]]


def _survivors(boxes: Tensor, threshold: float) -> Tensor:
    """Say which boxes survive in each group `[G, n, 4]`, whose best come first; boxes without area are in nobody's way.

    Whether a box survives follows from those before it alone, so repeating the rule for all at once settles one more
    link of every chain of overlaps each time, and what no longer changes is the answer of the greedy loop.
    """
    beats = (overlap(boxes) > threshold).triu_(1)
    survives = torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    while True:
        again = ~(beats & survives[:, :, None]).any(dim=1)
        if torch.equal(again, survives):
            return survives
        survives = again
