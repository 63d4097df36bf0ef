"""Training of the embedded ViTDet: losses against cases worked out by hand, and what a step does."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vpbench import registry
from vpbench.backbones import loading
from vpbench.backbones.vitdet import VITDET_EMBEDDED
from vpbench.backbones.vitdet.boxes import decode
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.backbones.vitdet.regions import levels_of, pool_regions
from vpbench.commands.train.detection_losses import (
    Objects,
    Regions,
    Sampling,
    choose_regions,
    encode,
    match,
    overlaps,
    proposal_loss,
    region_loss,
    sample,
)
from vpbench.commands.train.embedded import vitdet
from vpbench.commands.train.loop import Batch, Job, State
from vpbench.data.boxes import Boxes, Frame
from vpbench.datasets.synthmotion_boxes import SynthMotionBoxes

#: one frame with two objects and an empty place
OBJECTS = Objects(
    torch.tensor([[[0.0, 0, 10, 10], [20, 20, 40, 30], [0, 0, 0, 0]]]), torch.tensor([[2, 0, -1]])
)  # fmt: skip


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_deltas_lead_to_the_objects() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 9, 25]])
    targets = torch.tensor([[5.0, 0, 15, 20], [0, 0, 30, 8]])
    torch.testing.assert_close(encode(boxes, targets, (10, 10, 5, 5))[0], torch.tensor([5.0, 5, 0, 5 * math.log(2)]))
    torch.testing.assert_close(decode(encode(boxes, targets, (1, 2, 3, 4)), boxes, (1, 2, 3, 4)), targets)


def test_overlaps_are_shared_area_by_total_area() -> None:
    found = overlaps(torch.tensor([[0.0, 0, 10, 5], [5, 5, 15, 15], [3, 3, 3, 9]]), OBJECTS.boxes[0])
    torch.testing.assert_close(found, torch.tensor([[0.5, 0, 0], [25 / 175, 0, 0], [0, 0, 0]]))


def test_candidates_are_on_the_object_they_overlap_most() -> None:
    overlap = torch.tensor([[[0.6, 0.7, 0.9], [0.4, 0.1, 0.0], [0.2, 0.1, 0.0], [0.0, 0.0, 1.0]]])
    nearest, kind = match(overlap, OBJECTS.labels, Sampling(8, 0.5, low=0.3, high=0.5), force=False)
    assert kind.tolist() == [[1, -1, 0, 0]]  # what the empty place says counts for nothing
    assert nearest[0, 0] == 1


def test_the_best_anchor_of_an_object_is_on_it_however_little() -> None:
    overlap = torch.tensor([[[0.9, 0.2, 0.0], [0.8, 0.1, 0.0], [0.25, 0.15, 0.0]]])
    nearest, kind = match(overlap, OBJECTS.labels, Sampling(8, 0.5, low=0.3, high=0.5), force=True)
    assert kind.tolist() == [[1, 1, 0]]
    assert nearest.tolist()[0][:2] == [0, 0]  # best of both, it is on the first
    overlap[0, 2, 1] = 0.21
    nearest, kind = match(overlap, OBJECTS.labels, Sampling(8, 0.5, low=0.3, high=0.5), force=True)
    assert [int(kind[0, 2]), int(nearest[0, 2])] == [1, 1]


def test_samples_are_balanced_and_filled_with_background() -> None:
    kind = torch.tensor([[1] * 20 + [0] * 30 + [-1] * 10, [1] * 2 + [0] * 30 + [-1] * 28, [1] * 5 + [-1] * 55])
    on, off = sample(kind, Sampling(16, 0.5, low=0.3, high=0.5), draw())
    assert on.sum(1).tolist() == [8, 2, 5]
    assert off.sum(1).tolist() == [8, 14, 0]
    assert (kind[on] == 1).all()
    assert (kind[off] == 0).all()
    again, _ = sample(kind, Sampling(16, 0.5, low=0.3, high=0.5), torch.Generator().manual_seed(1))
    assert not torch.equal(on[0], again[0])


def test_first_stage_loss_of_a_case_by_hand() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 30], [50, 50, 60, 60], [0, 0, 10, 4]])
    # the third is background, the fourth between; the second's width is guessed 0.5 too large in logarithm
    logits = torch.tensor([[0.0, 2.0, -1.0, 9.0]])
    deltas = torch.zeros(1, 4, 4)
    deltas[0, 1, 2], deltas[0, 2] = 0.5, 7.0
    objectness, place = proposal_loss(logits, deltas, anchors, OBJECTS, Sampling(4, 0.5, 0.3, 0.5), draw())
    expected = math.log(2) + math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))
    assert float(objectness) == pytest.approx(expected / 4)
    assert float(place) == pytest.approx((0.5 - 1 / 18) / 4)


def test_second_stage_loss_of_a_case_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    regions = Regions(boxes, torch.tensor([0, 0]), torch.tensor([2, 3]), OBJECTS.boxes[0, [0, 0]])
    logits = torch.zeros(2, 4)
    deltas = torch.full((2, 3, 4), 50.0)  # those of other classes and of background must not count
    deltas[0, 2] = torch.tensor([0.0, 3.0, 0.0, 0.5])
    kind, box = region_loss(logits, deltas, regions, (10, 10, 5, 5))
    assert float(kind) == pytest.approx(math.log(4))
    assert float(box) == pytest.approx((2.5 + 0.125) / 2)


def test_regions_without_an_object_are_background() -> None:
    candidates = torch.tensor([[[1.0, 0, 10, 10], [20, 20, 40, 28], [50, 50, 60, 60], [0, 0, 10, 10]]])
    valid = torch.tensor([[True, True, True, False]])
    found = choose_regions(candidates, valid, OBJECTS, 3, Sampling(8, 0.5, 0.5, 0.5), draw())
    assert found.labels.tolist() == [2, 0, 3]
    assert found.frames.tolist() == [0, 0, 0]
    torch.testing.assert_close(found.targets[:2], OBJECTS.boxes[0, :2])
    empty = Objects(OBJECTS.boxes, torch.full((1, 3), -1))
    assert choose_regions(candidates, valid, empty, 3, Sampling(8, 0.5, 0.5, 0.5), draw()).labels.tolist() == [3] * 3


@pytest.mark.parametrize("which", range(8))
def test_boxes_go_with_the_pixels(which: int) -> None:
    frame = torch.zeros(64, 64, 3, dtype=torch.uint8)
    frame[5:20, 30:60] = 255
    turned, boxes = vitdet.turned(frame, torch.tensor([[30.0, 5, 60, 20]]), which)
    rows, columns = turned[..., 0].nonzero(as_tuple=True)
    drawn = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
    assert boxes.tolist() == [drawn]


def test_tokens_inside_an_object_have_its_class() -> None:
    objects = Objects(torch.tensor([[[0.0, 0, 16, 16], [8, 8, 16, 16], [0, 0, 64, 64]]]), torch.tensor([[4, 1, -1]]))
    found = vitdet.token_labels(objects, grid=16, patch=4, classes=6).view(16, 16)
    assert found[1, 1] == 4
    assert found[0, 0] == 6  # a corner is outside the ellipse
    assert found[2:4, 2:4].tolist() == [[1, 1], [1, 1]]  # the later one is in front
    assert (found[4:] == 6).all()


def random_objects(frames: int) -> Objects:
    generator = torch.Generator().manual_seed(3)
    corner, size = torch.rand(2, frames, 4, 2, generator=generator) * torch.tensor([40.0, 18.0]).view(2, 1, 1, 1)
    labels = torch.randint(-1, 6, (frames, 4), generator=generator)
    return Objects(torch.cat([corner, corner + size + 5], dim=-1), labels)


def random_frames(number: int) -> Tensor:
    return torch.randint(0, 256, (number, 64, 64, 3), generator=draw(), dtype=torch.uint8)


def test_pooling_in_training_is_that_of_the_detector() -> None:
    model, objects = vitdet.start(vitdet.ViTDetRecipe()).model, random_objects(3)
    objects.boxes[:, 0] = torch.tensor([5.0, 3, 38, 40])  # large enough for the coarser level
    head, strides = VITDET_EMBEDDED.head, VITDET_EMBEDDED.strides[:2]
    levels = [torch.randn(3, 8, side, side, generator=draw()) for side in (16, 8)]
    boxes, frames = objects.boxes.flatten(0, 1), torch.arange(3).repeat_interleave(4)
    level = levels_of(boxes, strides, head.canonical_size, head.canonical_level)
    expected = pool_regions(levels, boxes, frames, level, strides, head.pooled)
    regions = Regions(boxes, frames, objects.labels.flatten(), boxes)
    assert level.float().std() > 0
    torch.testing.assert_close(vitdet.pool(model, levels, regions), expected)


class Still(vitdet.DetectorTraining):
    """Training on the same frames in each step."""

    def __post_init__(self) -> None:
        """Read no clips."""


def trained(recipe: vitdet.ViTDetRecipe, state: State[ViTDet], pixels: Tensor, objects: Objects) -> Still:
    training = Still(Job("vitdet_embedded", "random", None, recipe, Path()), state, recipe.steps, "noise")
    given = (pixels, objects.boxes, objects.labels)
    training.batch = lambda number: Batch(given, len(pixels))  # type: ignore[method-assign]
    return training


def test_a_step_moves_all_weights_down_the_losses() -> None:
    recipe = vitdet.ViTDetRecipe(bf16=False, warm_up=1, lr=5e-4)
    state, pixels, objects = vitdet.start(recipe), random_frames(2), random_objects(2)
    training = trained(recipe, state, pixels, objects)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    losses = []
    for _ in range(4):
        losses.append(sum(training.step().values()))
        state.step += 1
    assert all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    still = {name for name, value in state.model.state_dict().items() if torch.equal(value, before[name])}
    assert still == set()


def test_proposals_of_training_hold_the_objects_and_copies_of_them() -> None:
    model, objects = vitdet.start(vitdet.ViTDetRecipe()).model, random_objects(2)
    with torch.no_grad():
        levels = model.pyramid(model.forward_frame(model.embed(random_frames(2)), Segments()).output)
        boxes, there = vitdet.proposals(model, levels, objects, 2, draw())
    own = slice(VITDET_EMBEDDED.head.post_nms, VITDET_EMBEDDED.head.post_nms + 4)
    torch.testing.assert_close(boxes[:, own], objects.boxes)
    assert torch.equal(there[:, own], objects.labels >= 0)
    assert boxes.shape == (2, VITDET_EMBEDDED.head.post_nms + 4 * 3, 4)
    assert (boxes[there][:, 2:] > boxes[there][:, :2]).all()


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe = vitdet.ViTDetRecipe(bf16=False)
    generator = np.random.default_rng(0)
    boxes = np.array([[[[4, 4, 20, 20], [30, 30, 60, 60]]] * 2] * 3, np.float32)
    labels = np.array([[[1, 5]] * 2] * 3)
    pictures = vitdet.Pictures(generator.integers(0, 256, (3, 2, 64, 64, 3), np.uint8), boxes, labels)

    def step(state: State[ViTDet]) -> dict[str, float]:
        return trained(recipe, state, *vitdet.batch(pictures, 2, state.generator)).step()

    state = vitdet.start(recipe)
    step(state)
    state.save(tmp_path / "checkpoint.pt", "mine")
    expected = step(state)
    again = vitdet.start(recipe)
    again.load(tmp_path / "checkpoint.pt", "mine")
    assert step(again) == expected


def test_precision_is_measured_over_all_frames() -> None:
    model = vitdet.start(vitdet.ViTDetRecipe()).model
    boxes = Boxes.of([((4, 4, 20, 20), 1, 0)])
    frames = [(Frame("a", number, boxes), pixels.numpy()) for number, pixels in enumerate(random_frames(33))]
    result = vitdet.scores(model, frames)
    assert result.frames == 33
    assert 0 <= result.map50 < 0.5
    assert (result.ap50_per_class >= 0).tolist() == [False, True, False, False, False, False]
    assert model.training


def test_embedded_weights_are_the_recorded_ones_and_find_things() -> None:
    file = registry.backbone("vitdet_embedded").weights
    assert file is not None
    assert file.stat().st_size < 10e6
    record = json.loads(file.with_suffix(".json").read_text())
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record["sha256"]
    assert record["test_frames"] == 504 * 32
    assert record["test_map50"] > 0.8
    assert file.with_suffix(".log.jsonl").read_text().count("\n") >= 10
    model, source = loading.build_detector("vitdet_embedded", "embedded", seed=0), SynthMotionBoxes()
    assert isinstance(model, ViTDet)
    assert all(torch.equal(v, load_file(file)[k].float()) for k, v in model.state_dict().items())
    spread = [frame for video in source.videos("ci")[:18:2] for frame in source.segments("ci", video)[0].frames[::8]]
    assert vitdet.scores(model, [(frame, source.pixels(frame)) for frame in spread]).map50 > 0.7
