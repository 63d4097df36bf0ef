"""Boxes `(x0, y0, x1, y1)` in pixels: decode, clip, overlap, and suppress those that overlap a better one."""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from vpbench.api.tokens import constant, joined, on_device

# A side grows at most this much (the natural logarithm) from an anchor or proposal to its box.
_LARGEST_GROWTH = math.log(1000 / 16)
# Pairs of boxes that are compared at a time, on a CPU and on other devices.
_PAIRS, _MANY_PAIRS = 1 << 24, 1 << 27
# Rounds between two questions whether anything changed: a device is not waited for in each. Few chains are longer.
_ROUNDS = 8


def decode(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Move and stretch boxes `[..., 4]` by deltas `[..., 4]`: shifts of the centre in sides, and logarithms of growth.

    weights: what each of the four deltas is divided by.
    """
    shift, growth = (deltas / constant(tuple(weights), deltas.device, deltas.dtype)).split(2, dim=-1)
    first, last = boxes.split(2, dim=-1)
    size = last - first
    half = 0.5 * size
    centre, half = first + half + shift * size, half * growth.clamp(max=_LARGEST_GROWTH).exp()
    return torch.cat([centre - half, centre + half], dim=-1)


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


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, counts: Sequence[int], threshold: float
) -> tuple[Tensor, Tensor]:
    """Suppress greedily what is no maximum; returns the order of boxes, best score first, and which survive, in it.

    boxes `[n, 4]`, scores `[n]`, groups `[n]` (int64, from 0), counts: boxes of each group. A box falls if one of its
    own group that survives, and comes before it, overlaps it by more than the threshold. Equal scores: the lower index
    comes first.
    """
    order = scores.argsort(descending=True, stable=True)
    if not len(boxes):
        return order, order > 0
    group = groups[order]
    by_group = group.argsort(stable=True)
    first = on_device(tuple(accumulate(counts, initial=0))[:-1], group.device)
    rank = torch.empty_like(group)
    rank[by_group] = torch.arange(len(group), device=group.device) - first[group[by_group]]
    padded = boxes.new_zeros(len(counts), max(counts), 4)
    padded[group, rank] = boxes[order]
    return order, survivors(padded, threshold)[group, rank]


def survivors(boxes: Tensor, threshold: float) -> Tensor:
    """Say which boxes survive in each group `[G, n, 4]`, whose best come first; boxes without area are in nobody's way.

    Asks the device once, or as often as a chain of overlaps is longer than others.
    """
    pairs = _PAIRS if boxes.device.type == "cpu" else _MANY_PAIRS
    some = max(1, pairs // boxes.shape[1] ** 2)
    return joined([_survivors(part, threshold) for part in boxes.split(some)])


def _survivors(boxes: Tensor, threshold: float) -> Tensor:
    """Apply the rule until nothing changes.

    Whether a box survives follows from those before it alone, so repeating the rule for all at once settles one more
    link of every chain of overlaps each time, and what no longer changes is the answer of the greedy loop.
    """
    beats = (overlap(boxes) > threshold).triu_(1)
    survives = before = torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    while True:
        for _ in range(1 if boxes.device.type == "cpu" else _ROUNDS):
            before, survives = survives, ~(beats & survives[:, :, None]).any(dim=1)
        if torch.equal(before, survives):
            return survives
