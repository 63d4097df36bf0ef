"""The detection head's parts against loops over boxes and samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vpbench.backbones.vitdet import HeadConfig
from vpbench.backbones.vitdet import boxes as vitdet_boxes
from vpbench.backbones.vitdet.boxes import clip, decode, overlap, suppress
from vpbench.backbones.vitdet.head import RoiHeads
from vpbench.backbones.vitdet.proposals import ProposalGenerator, Proposals, cell_anchors, grid_anchors
from vpbench.backbones.vitdet.regions import levels_of, pool_at_once, pool_regions

CONFIG = HeadConfig(
    classes=3, channels=4, rpn_convs=1, anchor_sizes=(8, 16, 32), pre_nms=50, post_nms=12, pooled=3,
    canonical_size=12, canonical_level=2, box_convs=1, fc_dim=8, max_detections=20,
)  # fmt: skip
STRIDES = (2, 4, 8)


def random_boxes(count: int, seed: int = 0, side: float = 40.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(count, 2, 2, generator=generator) * side
    return torch.cat([ends.amin(1), ends.amax(1)], dim=1)


def slow_overlap(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_suppress(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    """One box after the other, the best first."""
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i)):
        own = [other for other in kept if groups[other] == groups[index]]
        if all(slow_overlap(boxes[other].tolist(), boxes[index].tolist()) <= threshold for other in own):
            kept.append(index)
    return kept


def kept_of(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    order, survives = suppress(boxes, scores, groups, groups.bincount().tolist(), threshold)
    return order[survives].tolist()


@pytest.mark.parametrize("pairs", [1 << 24, 1])
@pytest.mark.parametrize(("count", "groups", "threshold"), [(150, 1, 0.3), (150, 1, 0.7), (200, 7, 0.2), (1, 1, 0.5)])
def test_suppression_is_the_greedy_loop(
    count: int, groups: int, threshold: float, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vitdet_boxes, "_PAIRS", pairs)
    generator = torch.Generator().manual_seed(count + groups)
    boxes, scores = random_boxes(count), torch.rand(count, generator=generator)
    scores[::5] = scores[0]  # equal ones
    group = torch.randint(0, groups, (count,), generator=generator)
    assert kept_of(boxes, scores, group, threshold) == slow_suppress(boxes, scores, group, threshold)


def test_a_chain_of_overlaps_is_settled_link_by_link() -> None:
    start = torch.arange(60.0)
    boxes = torch.stack([start, torch.zeros(60), start + 3, torch.ones(60)], dim=1)
    kept = kept_of(boxes, torch.arange(60.0).flip(0), torch.zeros(60, dtype=torch.int64), 0.4)
    assert kept == list(range(0, 60, 2))


def test_suppression_of_nothing_and_at_the_threshold() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    assert kept_of(torch.zeros(0, 4), torch.zeros(0), empty, 0.5) == []
    boxes = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1]])
    assert float(overlap(boxes)[0, 1]) == 0.5
    both = torch.zeros(2, dtype=torch.int64)
    assert kept_of(boxes, torch.tensor([0.1, 0.2]), both, 0.5) == [1, 0]
    assert kept_of(boxes, torch.tensor([0.1, 0.2]), both, 0.49) == [1]


def test_boxes_move_and_grow_by_deltas() -> None:
    box = torch.tensor([10.0, 20, 30, 60])
    assert decode(torch.zeros(4), box, (1, 1, 1, 1)).tolist() == box.tolist()
    moved = decode(torch.tensor([1.0, -1, 0, math.log(2) * 5]), box, (10, 10, 5, 5))
    torch.testing.assert_close(moved, torch.tensor([12.0, -4, 32, 76]))
    grown = decode(torch.tensor([0.0, 0, 100, 0]), box, (1, 1, 1, 1))
    torch.testing.assert_close(grown[2] - grown[0], torch.tensor(1250.0))
    assert clip(grown, 40).tolist() == [0, 20, 40, 60 - 20]


def test_anchors_are_centred_at_multiples_of_the_stride() -> None:
    anchors = cell_anchors(32, (0.5, 1.0, 2.0))
    assert all(w * h == pytest.approx(32**2) for w, h in anchors)
    assert [h / w for w, h in anchors] == pytest.approx([0.5, 1, 2])
    grid = grid_anchors(anchors, (2, 3), 16, torch.device("cpu")).view(2, 3, 3, 4)
    torch.testing.assert_close(grid[1, 2, 1], torch.tensor([16.0, 0, 48, 32]))
    centres = (grid[..., :2] + grid[..., 2:]) / 2
    torch.testing.assert_close(centres[1, 2], torch.tensor([32.0, 16]).expand(3, 2))


def slow_sample(picture: Tensor, y: float, x: float) -> Tensor:
    """A value `[C]` between positions of `[C, H, W]`, zero outside."""
    _, height, width = picture.shape
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros(len(picture))
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    return (
        picture[:, top, left] * (1 - dy) * (1 - dx)
        + picture[:, top, right] * (1 - dy) * dx
        + picture[:, bottom, left] * dy * (1 - dx)
        + picture[:, bottom, right] * dy * dx
    )


def slow_pool(picture: Tensor, box: Tensor, stride: int, pooled: int) -> Tensor:
    """`[C, pooled, pooled]`, sample by sample."""
    x0, y0, x1, y1 = (box / stride - 0.5).tolist()
    out = torch.zeros(len(picture), pooled, pooled)
    down, across = (max(0, math.ceil((end - start) / pooled)) for start, end in ((y0, y1), (x0, x1)))
    for row in range(pooled):
        for col in range(pooled):
            for i in range(down):
                for j in range(across):
                    y = y0 + (y1 - y0) / pooled * (row + (i + 0.5) / down)
                    x = x0 + (x1 - x0) / pooled * (col + (j + 0.5) / across)
                    out[:, row, col] += slow_sample(picture, y, x) / (down * across)
    return out


def test_pooling_is_the_mean_over_samples() -> None:
    levels = [torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(side)) for side in (20, 10, 5)]
    boxes = torch.cat([
        random_boxes(8),
        torch.tensor([[0.0, 0, 40, 40], [3, 4, 3, 9], [-20, -9, 5, 60], [39, 39, 40, 40], [41, 41, 44, 49]]),
    ])  # fmt: skip
    frames = torch.arange(len(boxes)) % 2
    level = torch.arange(len(boxes)) % 3
    ours = pool_regions(levels, boxes, frames, level, STRIDES, 3)
    for number, box in enumerate(boxes):
        which = int(level[number])
        expected = slow_pool(levels[which][int(frames[number])], box, STRIDES[which], 3)
        torch.testing.assert_close(ours[number], expected, atol=1e-5, rtol=1e-4)
    assert pool_regions(levels, boxes[:0], frames[:0], level[:0], STRIDES, 3).shape == (0, 4, 3, 3)


@pytest.mark.parametrize("counts", [(6, 6), (9, 3), (0, 12), (0, 0)])
def test_pooling_at_once_is_pooling_box_by_box(counts: tuple[int, int]) -> None:
    levels = [torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(side)) for side in (20, 10, 5)]
    boxes = torch.cat([random_boxes(11), torch.tensor([[0.0, 0, 40, 40]])])[: sum(counts)]
    frames = torch.arange(2).repeat_interleave(torch.tensor(counts))
    level = torch.arange(len(boxes)) % 3
    expected = pool_regions(levels, boxes, frames, level, STRIDES, 3)
    ours = pool_at_once(levels, boxes, counts, level, STRIDES, 3)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_larger_boxes_belong_to_coarser_levels() -> None:
    sides = torch.tensor([1.0, 111, 112, 223, 224, 447, 448, 5000])
    boxes = torch.stack([0 * sides, 0 * sides, sides, sides], dim=1)
    assert levels_of(boxes, (4, 8, 16, 32), 224, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def pyramid(frames: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(frames, 4, side, side, generator=generator) for side in (20, 10, 5)]


def heads(config: HeadConfig = CONFIG) -> tuple[ProposalGenerator, RoiHeads]:
    torch.manual_seed(0)
    return ProposalGenerator(config, STRIDES).eval(), RoiHeads(config, STRIDES, 1e-6).eval()


def slow_proposals(generator: ProposalGenerator, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Boxes and logits of one frame, level by level."""
    config, found = generator.config, []
    for number, level in enumerate(levels):
        logits, deltas = (x[0] for x in generator.rpn_head(level))
        anchors = cell_anchors(config.anchor_sizes[number], config.aspect_ratios)
        where = grid_anchors(anchors, tuple(level.shape[2:]), STRIDES[number], level.device)
        best = logits.argsort(descending=True, stable=True)[: config.pre_nms]
        boxes = clip(decode(deltas[best], where[best], (1, 1, 1, 1)), 40)
        solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes, logits = boxes[solid], logits[best][solid]
        kept = slow_suppress(boxes, logits, torch.zeros(len(boxes)), config.rpn_nms_threshold)
        found.append((boxes[kept], logits[kept]))
    boxes, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = logits.argsort(descending=True, stable=True)[: config.post_nms]
    return boxes[order], logits[order]


@torch.no_grad()
def test_proposals_of_frames_together_are_those_of_each() -> None:
    generator, _ = heads()
    levels = pyramid(3)
    together = generator(levels, 40)
    assert together.counts == (12, 12, 12)
    for frame in range(3):
        boxes, logits = slow_proposals(generator, [level[frame : frame + 1] for level in levels])
        torch.testing.assert_close(together.boxes[together.frames == frame], boxes, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.objectness[together.frames == frame], logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_detections_of_frames_together_are_those_of_each() -> None:
    generator, roi = heads(replace(CONFIG, score_threshold=0.2, max_detections=9))
    roi.box_predictor.cls_score.weight.mul_(8)
    levels = pyramid(3)
    together = roi(levels, generator(levels, 40), 40)
    for frame in range(3):
        own = [level[frame : frame + 1] for level in levels]
        [alone] = roi(own, generator(own, 40), 40)
        torch.testing.assert_close(together[frame].boxes, alone.boxes, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together[frame].scores, alone.scores, atol=1e-5, rtol=1e-4)
        assert torch.equal(together[frame].labels, alone.labels)
        assert 0 < len(alone.scores) <= 9
        assert alone.scores.min() > 0.2
        assert torch.equal(alone.scores, alone.scores.sort(descending=True).values)


@torch.no_grad()
def test_broken_numbers_are_counted_and_hurt_no_other_frame() -> None:
    generator, roi = heads()
    levels = pyramid(2)
    sound = roi(levels, generator(levels, 40), 40)
    levels[1][0, 0, 5, 5] = torch.nan
    proposals = generator(levels, 40)
    # a 3x3 convolution spreads it to 9 positions of 3 anchors
    assert proposals.broken == (27, 0)
    assert proposals.boxes.isfinite().all()
    found = roi(levels, proposals, 40)
    assert found[0].broken >= 27
    assert found[1].broken == 0
    torch.testing.assert_close(found[1].scores, sound[1].scores)
    assert all(each.scores.isfinite().all() and each.boxes.isfinite().all() for each in found)
    nothing = [torch.full_like(level, torch.nan) for level in levels]
    empty = roi(nothing, generator(nothing, 40), 40)
    assert [len(each.boxes) for each in empty] == [0, 0]
    assert [each.broken for each in empty] == [3 * (400 + 100 + 25)] * 2


@torch.no_grad()
def test_broken_regions_are_counted() -> None:
    _, roi = heads()
    levels = pyramid(1)
    levels[0].fill_(torch.inf)
    boxes = torch.tensor([[1.0, 1, 5, 5], [0, 0, 40, 40]])
    [found] = roi(levels, Proposals(boxes, torch.zeros(2), (2,), (3,)), 40)
    assert found.broken == 3 + 1
    assert len(found.scores) > 0
