"""RGTP on a detector: what guides it, and that frames between two resets can run beside other such groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vpbench.api import Detections
from vpbench.backbones.vitdet import VITDET_B_672, VITDET_B_1024, HeadConfig, ViTDetConfig
from vpbench.backbones.vitdet.costs import frame_macs, published_frame_macs
from vpbench.backbones.vitdet.network import Frame, Segments, ViTDet
from vpbench.measure.operators import count_operators
from vpbench.methods.rgtp import rollout
from vpbench.methods.rgtp.selection import Split
from vpbench.methods.rgtp.vitdet import VideoPruner
from vpbench.tasks.detection.follow import Follower, Look

HEAD = HeadConfig(
    classes=3, channels=8, rpn_convs=1, anchor_sizes=(8, 16, 32, 64, 128), pre_nms=40, post_nms=12, pooled=3,
    canonical_size=24, canonical_level=2, box_convs=1, fc_dim=12,
)  # fmt: skip
TINY = ViTDetConfig(
    dim=16, depth=4, heads=2, side=32, patch=4, window=3, windowed=(0, 2), positions=8, global_table=8, head=HEAD
)
FORMS = pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "vector"])


def sizes(config: ViTDetConfig) -> ViTDet:
    """A detector without numbers: what a method reads of it before anything runs."""
    with torch.device("meta"):
        return ViTDet(config)


SIZES = sizes(TINY)


def pruner(pooled: bool = False, keep: float = 0.3, reset: int = 3, radius: int = 1) -> VideoPruner:
    return VideoPruner(SIZES, Split(keep), reset, radius, 0.1, pooled)


def random_model() -> ViTDet:
    torch.manual_seed(0)
    model = ViTDet(TINY).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.15 * torch.randn_like(parameter))
    return model


def moving_frames(count: int) -> Tensor:
    """A bright square that moves over noise, `[T, 32, 32, 3]`."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 90, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
    for t in range(count):
        frames[t, 4 + t : 14 + t, 8 + 2 * t : 18 + 2 * t] = 220
    return frames


def found(*boxes: Sequence[float], score: float = 0.5) -> Detections:
    scores = torch.full((len(boxes),), score)
    return Detections(torch.tensor(boxes).view(-1, 4), scores, torch.zeros(len(boxes), dtype=torch.int64), 0)


def where(mask: Tensor) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for y, x in mask.view(8, 8).nonzero()}


def test_tokens_under_confident_boxes_are_anchors() -> None:
    each = pruner()
    assert where(each.anchors([found((8.0, 4, 16, 12))])) == {(y, x) for y in (1, 2) for x in (2, 3)}
    assert where(each.anchors([found((8.1, 4, 15.9, 4.2))])) == {(1, 2), (1, 3)}
    # ends are cut to the last row and column, which no box ever reaches
    assert where(each.anchors([found((20.0, 24, 32, 32))])) == {(6, 5), (6, 6)}
    assert where(each.anchors([found((28.0, 0, 32, 32))])) == set()
    assert bool(each.anchors([found()]).all())
    assert bool(each.anchors([found((8.0, 4, 16, 12), score=0.1)]).all())
    two = found((0.0, 0, 4, 4), (9.0, 9, 12, 12))
    assert where(each.anchors([replace(two, scores=torch.tensor([0.9, 0.05]))])) == {(0, 0)}


def softmaxed(batch: int, rows: int, seed: int) -> Tensor:
    return (2 * torch.randn(batch, rows, 64, generator=torch.Generator().manual_seed(seed))).softmax(-1)


def slow_rollout(maps: list[Tensor], anchors: Tensor) -> Tensor:
    """Mean over anchors of the rows of the whole product; maps `[n, n]`, the first block first."""
    product = torch.eye(len(maps[0]), dtype=torch.float64)
    for fused in maps:
        mixed = (fused.double() + torch.eye(len(fused))) / 2
        product = (mixed / mixed.sum(1, keepdim=True)) @ product
    return product[anchors].mean(0)


def slow_cells(rows: Tensor, kept: list[int], before: Tensor) -> Tensor:
    """The map `[16, 16]` of cells of 2 x 2 tokens after rows `[K, 64]` of kept tokens came in."""
    cell = [(token // 8 // 2) * 4 + token % 8 // 2 for token in range(64)]
    after = before.clone()
    for own in range(16):
        inside = [number for number, token in enumerate(kept) if cell[token] == own]
        if inside:
            after[own] = 0
            for key in range(64):
                after[own, cell[key]] += rows[inside, key].mean()
    return after


@FORMS
def test_heat_is_a_row_of_the_product_of_all_maps(pooled: bool) -> None:
    each, embedded = pruner(pooled, reset=0), torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(1))
    boxes = [found((8.0, 8, 16, 24)), found((0.0, 0, 8, 8), (16.0, 4, 28, 20))]
    assert each.frame(embedded) is None
    dense = tuple(softmaxed(2, 64, seed) for seed in (1, 2))
    each.output(tuple(map(torch.clone, dense)), boxes)
    first = each.heat
    kept = each.frame(embedded + 0.1)
    assert kept is not None
    assert kept.shape == (2, 19)
    rows = tuple(softmaxed(2, 19, seed) for seed in (3, 4))
    each.output(rows, boxes)
    assert first is not None
    assert each.heat is not None
    for one in range(2):
        anchors = where(each.anchors([boxes[one]]))
        tokens = torch.tensor([y * 8 + x for y, x in anchors])
        if pooled:
            known = [slow_cells(layer[one], list(range(64)), torch.zeros(16, 16)) for layer in dense]
            known = [slow_cells(r[one], kept[one].tolist(), k) for r, k in zip(rows, known, strict=True)]
            covered = torch.zeros(16).index_add_(0, tokens // 16 * 4 + tokens % 8 // 2, torch.ones(len(tokens)))
            row = slow_rollout(known, covered >= 2).view(1, 1, 4, 4)
            expected = torch.nn.functional.interpolate(row, (8, 8), mode="bilinear").flatten()
        else:
            known = [layer[one].clone() for layer in dense]
            for layer, new in zip(known, rows, strict=True):
                layer[kept[one]] = new[one]
            row = slow_rollout(known, tokens)
            expected = first[one].double()
            expected[kept[one]] = row[kept[one]]
        torch.testing.assert_close(each.heat[one].double(), expected / expected.sum(), atol=1e-6, rtol=1e-4)


@FORMS
def test_boxes_that_miss_every_token_guide_like_none(pooled: bool) -> None:
    heats = []
    # in the last column; and, over cells, a token's box that covers a quarter of one
    for boxes in (found(), found((28.0, 0, 32, 32)), *([found((4.0, 4, 8, 8))] if pooled else [])):
        each = pruner(pooled)
        each.frame(torch.zeros(1, 64, 16))
        each.output(tuple(softmaxed(1, 64, seed) for seed in (1, 2)), [boxes])
        assert each.heat is not None
        assert each.heat.isfinite().all()
        heats.append(each.heat)
    assert all(torch.equal(heat, heats[0]) for heat in heats)


@FORMS
def test_groups_between_resets_run_beside_each_other(pooled: bool) -> None:
    model, frames = random_model(), moving_frames(8)
    with torch.inference_mode():
        alone, segments, outputs = pruner(pooled), Segments(), []
        for t in range(8):
            outputs.append(model(frames[t : t + 1], segments, alone))
        together, groups = pruner(pooled), Segments()
        for depth in range(3):
            members = [start + depth for start in (0, 3, 6) if start + depth < 8]
            if len(members) < 3:
                groups.narrow(len(members))
                together.narrow(len(members))
            frame, detections = model(frames[members], groups, together)
            for own, t in enumerate(members):
                torch.testing.assert_close(frame.output[own], outputs[t][0].output[0], atol=1e-4, rtol=1e-4)
                torch.testing.assert_close(detections[own].scores, outputs[t][1][0].scores, atol=1e-5, rtol=0)


def test_what_is_asked_for_changes_nothing() -> None:
    """Maps are left out where the next frame is dense, unless somebody looks at them."""
    model, frames = random_model(), moving_frames(7)
    runs: list[list[Tensor]] = []
    asked = []
    with torch.inference_mode():
        for watched in (False, True):
            each, segments = pruner(), Segments()
            each.record = {} if watched else None
            runs.append([])
            for t in range(7):
                frame, _ = model(frames[t : t + 1], segments, each)
                runs[-1].append(frame.output)
                asked.append(len(frame.maps))
    assert asked == [2, 2, 0, 2, 2, 0, 2, *[2] * 7]
    for silent, seen in zip(*runs, strict=True):
        torch.testing.assert_close(silent, seen, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("pooled", "rolled_out"), [(False, 2 * 64**2), (True, 2 * 16**2)], ids=["vector", "pooled"])
def test_work_is_charged_where_it_runs(pooled: bool, rolled_out: int) -> None:
    """Two global blocks, 64 tokens or 16 cells; tracking, 9 x 64 x 16, is elementwise and no operator's that count."""
    model, each, frames = random_model(), pruner(pooled), moving_frames(7)
    follower, seen, charged = Follower(model, each), [], []
    looks = [Look("v", t, frame, 1.0) for t, frame in enumerate(frames)]
    for step in follower.walk([looks]):
        charged += [each.frame_macs(one.kept, one.traced) for one in step]
    follower.start(looks[:1])
    for look in looks:
        results: list[Frame] = []

        def run(now: Look = look, results: list[Frame] = results) -> None:
            results.append(follower.transform(now.pixels[None], [found()]))

        seen.append(count_operators(run) - frame_macs(TINY, results[0].kept) - results[0].padding)
    track = 9 * 64 * 16
    assert seen == [rolled_out, rolled_out, 0, rolled_out, rolled_out, 0, rolled_out]
    assert charged == [rolled_out, track + rolled_out, track, rolled_out, track + rolled_out, track, rolled_out]


def test_without_tracking_the_heat_stays_where_it_was() -> None:
    each = pruner(radius=0, keep=0.05)
    each.frame(torch.zeros(1, 64, 16))
    each.heat = torch.arange(64.0)[None]
    kept = each.frame(torch.ones(1, 64, 16))
    assert kept is not None
    assert kept.tolist() == [[63, 62, 61]]
    each.restart()
    assert each.frame(torch.ones(1, 64, 16)) is None


@pytest.mark.parametrize(
    ("config", "pooled", "kept", "published"),
    [(VITDET_B_672, True, 512, 57.78), (VITDET_B_1024, False, 750, 106.71), (VITDET_B_672, True, None, 174.84)],
)
def test_published_counts(config: ViTDetConfig, pooled: bool, kept: int | None, published: float) -> None:
    each = VideoPruner(sizes(config), Split(0.3), 8, 1, 0.1, pooled)
    assert (published_frame_macs(config, kept) + each.published_frame_macs(kept)) / 1e9 == pytest.approx(
        published, abs=0.005
    )
    positions = config.tokens // (4 if pooled else 1)
    tracking = 0 if kept is None else 9 * config.tokens * config.dim
    assert each.frame_macs(kept) == 4 * positions**2 + tracking
    assert each.frame_macs(kept, guides=False) == tracking
    if kept is not None:
        assert frame_macs(config, kept) < published_frame_macs(config, kept)


def test_a_map_that_is_the_identity_moves_nothing() -> None:
    each = VideoPruner(SIZES, Split(0.3), 0, 0, 0.1, False)
    each.frame(torch.zeros(1, 64, 16))
    each.output((torch.eye(64)[None], torch.eye(64)[None]), [found((8.0, 4, 16, 12))])
    anchors = each.anchors([found((8.0, 4, 16, 12))]).float()
    assert each.heat is not None
    torch.testing.assert_close(each.heat, rollout.normalised(anchors))
