"""Losses of a two-stage detector (Faster R-CNN, arXiv 1506.01497): which boxes learn what, and how wrong they are.

Objects of B frames are padded to M each: `boxes [B, M, 4]` (x0, y0, x1, y1 in pixels) and `labels [B, M]`, -1 where
there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """What is in B frames, padded: see the module."""

    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Sampling:
    """Which candidates learn: `number` of a frame at most, up to `positive` of them on objects.

    A candidate is on an object from an overlap of `high` on, and on none below `low`; those between learn nothing.
    """

    number: int
    positive: float
    low: float
    high: float


#: of anchors, and of proposals
ANCHORS = Sampling(128, 0.5, low=0.3, high=0.5)
PROPOSALS = Sampling(24, 0.5, low=0.5, high=0.5)


def encode(boxes: Tensor, targets: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the deltas `[..., 4]` that move and stretch `boxes` to `targets`: the inverse of `boxes.decode`."""
    size, wanted = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    shift = (targets[..., :2] + wanted / 2 - boxes[..., :2] - size / 2) / size
    return torch.cat([shift, (wanted / size).log()], dim=-1) * boxes.new_tensor(weights)


def overlaps(candidates: Tensor, objects: Tensor) -> Tensor:
    """Return intersection over union `[..., n, M]` of boxes `[..., n, 4]` with boxes `[..., M, 4]`; 0 of empty ones."""
    a, b = candidates[..., :, None, :], objects[..., None, :, :]
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    total = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    return shared / total.clamp(min=1e-6)


def match(overlap: Tensor, labels: Tensor, sampling: Sampling, force: bool) -> tuple[Tensor, Tensor]:
    """Return the object each candidate is nearest to, `[B, n]`, and whether it is on it: 1, on none: 0, or between: -1.

    overlap `[B, n, M]`. force: the best candidates of each object are on it, however little they overlap.
    """
    overlap = overlap.masked_fill((labels < 0)[:, None], 0)
    best, nearest = overlap.max(dim=2)
    kind = torch.full_like(nearest, -1)
    kind[best < sampling.low] = 0
    kind[best >= sampling.high] = 1
    if force:
        most = overlap.amax(dim=1, keepdim=True)
        forced = (overlap == most) & (most > 0)
        kind[forced.any(dim=2)] = 1
        nearest = torch.where(forced.any(dim=2), forced.long().argmax(dim=2), nearest)
    return nearest, kind


def sample(kind: Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose candidates by `kind` `[B, n]` at random; returns those on objects and those on none, as masks `[B, n]`.

    Where too few are on objects, more of the others are taken.
    """
    draw = torch.rand(kind.shape, generator=generator)
    on = (kind == 1) & (_place(draw, kind == 1) < round(sampling.number * sampling.positive))
    rest = sampling.number - on.sum(dim=1, keepdim=True)
    return on, (kind == 0) & (_place(draw, kind == 0) < rest)


def _place(draw: Tensor, among: Tensor) -> Tensor:
    """Return the rank of each drawn number within its row, those `among` first."""
    return draw.masked_fill(~among, 2).argsort(dim=1).argsort(dim=1)


def proposal_loss(
    logits: Tensor, deltas: Tensor, anchors: Tensor, objects: Objects, sampling: Sampling, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the first stage's losses: is there an object (cross-entropy), and where (smooth L1 of its deltas).

    logits `[B, n]`, deltas `[B, n, 4]`, anchors `[n, 4]`. Both are sums over the sample by the size it may have.
    """
    nearest, kind = match(overlaps(anchors, objects.boxes), objects.labels, sampling, force=True)
    on, off = sample(kind, sampling, generator)
    size = sampling.number * len(logits)
    chosen = on | off
    objectness = F.binary_cross_entropy_with_logits(logits[chosen], on[chosen].float(), reduction="sum") / size
    frame, anchor = on.nonzero(as_tuple=True)
    wanted = encode(anchors[anchor], objects.boxes[frame, nearest[on]], (1, 1, 1, 1))
    return objectness, F.smooth_l1_loss(deltas[on], wanted, reduction="sum", beta=1 / 9) / size


@dataclass(frozen=True)
class Regions:
    """Proposals that learn: `boxes [R, 4]`, `frames [R]`, `labels [R]`, the last class being background.

    `targets [R, 4]`: the boxes of their objects; without meaning for background.
    """

    boxes: Tensor
    frames: Tensor
    labels: Tensor
    targets: Tensor


def choose_regions(
    candidates: Tensor, valid: Tensor, objects: Objects, classes: int, sampling: Sampling, generator: torch.Generator
) -> Regions:
    """Sample proposals `[B, n, 4]`, of which those `valid` `[B, n]` are there."""
    nearest, kind = match(overlaps(candidates, objects.boxes), objects.labels, sampling, force=False)
    on, off = sample(kind.masked_fill(~valid, -1), sampling, generator)
    frame, place = (on | off).nonzero(as_tuple=True)
    which = nearest[frame, place]
    labels = torch.where(on[frame, place], objects.labels[frame, which], classes)
    return Regions(candidates[frame, place], frame, labels, objects.boxes[frame, which])


def region_loss(logits: Tensor, deltas: Tensor, regions: Regions, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the second stage's losses: which class (cross-entropy), and where (smooth L1 of that class's deltas).

    logits `[R, classes + 1]`, deltas `[R, classes, 4]`. Both are sums over the regions by their number.
    """
    number = max(1, len(logits))
    kind = F.cross_entropy(logits, regions.labels, reduction="sum") / number
    on = (regions.labels < deltas.shape[1]).nonzero().flatten()
    wanted = encode(regions.boxes[on], regions.targets[on], weights)
    return kind, F.smooth_l1_loss(deltas[on, regions.labels[on]], wanted, reduction="sum") / number
