"""Train the embedded ViTDet to find the shapes of the synthetic clips, frame by frame with all tokens."""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.backbones.vitdet import VITDET_EMBEDDED
from vpbench.backbones.vitdet.boxes import clip
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.backbones.vitdet.proposals import cell_anchors, grid_anchors
from vpbench.backbones.vitdet.regions import axis_weights, levels_of
from vpbench.commands.train import embedded, loop
from vpbench.commands.train.augment import recolour
from vpbench.commands.train.clips import motion_files
from vpbench.commands.train.detection_losses import (
    ANCHORS,
    PROPOSALS,
    Objects,
    Regions,
    choose_regions,
    proposal_loss,
    region_loss,
)
from vpbench.commands.train.embedded import EmbeddedTraining, Schedule
from vpbench.commands.train.engine import Losses
from vpbench.commands.train.loop import Batch, Entry, Job, State
from vpbench.data.boxes import Boxes, Frame, Segment
from vpbench.datasets.synthmotion.objects import training_objects
from vpbench.datasets.synthmotion_boxes import SynthMotionBoxes
from vpbench.tasks.detection.boxes import Detections, Truth
from vpbench.tasks.detection.precision import Scores, evaluate

#: frames that are looked at together where a detector is evaluated
_TOGETHER = 32


@dataclass(frozen=True, kw_only=True)
class ViTDetRecipe(Schedule):
    """Every number of the training run; `jitter`: shifted copies of each object among its frame's proposals."""

    steps: int = 3200
    batch: int = 16
    clip_norm: float | None = 5.0
    auxiliary_weight: float = 1.0
    jitter: int = 3


@dataclass(frozen=True)
class Pictures:
    """Frames of clips, uint8 `[n, T, 64, 64, 3]`, and their objects: `boxes [n, T, M, 4]`, `labels [n, T, M]`."""

    frames: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


@dataclass
class DetectorTraining(EmbeddedTraining[ViTDetRecipe, ViTDet]):
    """Training of the detector on single frames, drawn anew for each step."""

    def __post_init__(self) -> None:
        self.pictures, self.held_out = (
            pictures_of(*split)
            for split in (("train", self.job.recipe.train_clips), ("val", self.job.recipe.val_clips))
        )

    def batch(self, number: int) -> Batch:
        """Return augmented frames, and the boxes and labels of their objects."""
        size = self.job.recipe.batch
        pixels, objects = batch(self.pictures, size, self.state.generator)
        return Batch((pixels, objects.boxes, objects.labels), size)

    def losses(self, *given: Tensor) -> Losses:
        """Return the losses of both stages, and that of telling what each token shows."""
        pixels, boxes, labels = given
        return losses(self.state, self.job.recipe, pixels, Objects(boxes, labels))

    def validation(self) -> Entry:
        """Return average precision on one frame of each held-out clip."""
        return {"val_map50": round(scores(self.state.model, one_each(self.held_out)).map50, 4)}

    def test(self) -> Entry:
        """Return average precision on all frames of the test split."""
        source = SynthMotionBoxes()
        segments = (segment for video in source.videos("test") for segment in source.segments("test", video))
        frames = ((frame, source.pixels(frame)) for segment in segments for frame in segment.frames)
        result = scores(self.state.model, frames)
        by_class = zip(source.classes, result.ap50_per_class, strict=True)
        return {
            "test_frames": result.frames,
            "test_map50": round(result.map50, 4),
            "test_map": round(result.map, 4),
            "test_ap50_by_class": {name: round(float(ap), 4) for name, ap in by_class},
        }


def train(recipe: ViTDetRecipe, out: Path, command: str) -> Path:
    """Run the recipe, resuming from `out` if it was begun there; returns the safetensors file. See `loop.run`."""
    job = Job("vitdet_embedded", "random", None, recipe, out)
    return loop.run(DetectorTraining(job, start(recipe), recipe.steps, "synthmotion_boxes"), command)


def start(recipe: ViTDetRecipe) -> State[ViTDet]:
    """Build model, auxiliary head and optimizers from the seed; the head tells the class of each token."""
    torch.manual_seed(recipe.seed)
    model = ViTDet(VITDET_EMBEDDED)
    # few anchors and few proposals show an object: at first, none does
    bias = model.proposal_generator.rpn_head.objectness_logits.bias
    assert bias is not None
    nn.init.constant_(bias, -math.log(99))
    tables = ("pos_embed", "rel_pos")
    return embedded.begin(model, VITDET_EMBEDDED.dim, VITDET_EMBEDDED.classes + 1, tables, recipe)


def pictures_of(split: str, count: int) -> Pictures:
    """Open generated clips of a split and their objects, which are made unless they are there."""
    # the frames are gigabytes, of which a step needs few
    frames = np.load(motion_files(split, count)[0], mmap_mode="r")
    boxes, labels = training_objects(split, count, os.cpu_count() or 1)
    return Pictures(frames, np.load(boxes), np.load(labels))


def batch(pictures: Pictures, size: int, generator: torch.Generator) -> tuple[Tensor, Objects]:
    """Draw frames, uint8 `[size, 64, 64, 3]`, mirror, turn and recolour them; returns them with their objects."""
    clips = torch.randint(len(pictures.labels), (size,), generator=generator).tolist()
    times = torch.randint(pictures.labels.shape[1], (size,), generator=generator).tolist()
    turns = torch.randint(8, (size,), generator=generator).tolist()
    pixels, boxes = [], []
    for number, time_, turn in zip(clips, times, turns, strict=True):
        frame, own = torch.tensor(pictures.frames[number, time_]), torch.tensor(pictures.boxes[number, time_])
        frame, own = turned(frame, own, turn)
        pixels.append(recolour(frame, generator))
        boxes.append(own)
    return torch.stack(pixels), Objects(torch.stack(boxes), torch.from_numpy(pictures.labels[clips, times]))


def turned(frame: Tensor, boxes: Tensor, which: int) -> tuple[Tensor, Tensor]:
    """Apply one of the eight symmetries of a square frame `[S, S, 3]` to it and boxes `[M, 4]`; shapes stay shapes.

    Bit 0 of `which` mirrors x, bit 1 mirrors y, bit 2 swaps x and y.
    """
    side = frame.shape[0]
    x0, y0, x1, y1 = boxes.unbind(-1)
    if which & 1:
        frame, x0, x1 = frame.flip(1), side - x1, side - x0
    if which & 2:
        frame, y0, y1 = frame.flip(0), side - y1, side - y0
    if which & 4:
        frame, x0, y0, x1, y1 = frame.transpose(0, 1), y0, x0, y1, x1
    return frame.contiguous(), torch.stack([x0, y0, x1, y1], dim=-1)


def losses(state: State[ViTDet], recipe: ViTDetRecipe, pixels: Tensor, objects: Objects) -> Losses:
    """Return all losses of frames by name."""
    model, config = state.model, state.model.config
    output = model.forward_frame(model.embed(pixels), Segments()).output
    tokens = state.extra(output).float()
    found = stages(model, output, objects, recipe, state.generator)
    wanted = token_labels(objects, config.grid, config.patch, config.classes)
    return found | {"auxiliary": F.cross_entropy(tokens.flatten(0, 1), wanted.flatten())}


def stages(
    model: ViTDet, output: Tensor, objects: Objects, recipe: ViTDetRecipe, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the losses of both stages from the transformer's output `[B, N, D]`."""
    config, head = model.config, model.config.head
    levels = model.pyramid(output)
    guesses = [model.proposal_generator.rpn_head(level) for level in levels]
    logits, deltas = (torch.cat(parts, dim=1).float() for parts in zip(*guesses, strict=True))
    objectness, place = proposal_loss(logits, deltas, anchors_of(model, levels), objects, ANCHORS, generator)
    with torch.no_grad():
        candidates, valid = proposals(model, levels, objects, recipe.jitter, generator)
    regions = choose_regions(candidates, valid, objects, head.classes, PROPOSALS, generator)
    pooled = pool(model, levels[: len(config.scales)], regions)
    kinds, moves = (x.float() for x in model.roi_heads.box_predictor(model.roi_heads.box_head(pooled)))
    kind, box = region_loss(kinds, moves, regions, head.box_weights)
    return {"objectness": objectness, "place": place, "kind": kind, "box": box}


def anchors_of(model: ViTDet, levels: list[Tensor]) -> Tensor:
    """Return the anchors `[n, 4]` of all levels in the order of the first stage's output."""
    head = model.config.head
    each = zip(levels, head.anchor_sizes, model.config.strides, strict=True)
    return torch.cat([
        grid_anchors(cell_anchors(size, head.aspect_ratios), (level.shape[2], level.shape[3]), stride, level.device)
        for level, size, stride in each
    ])  # fmt: skip


def proposals(
    model: ViTDet, levels: list[Tensor], objects: Objects, jitter: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return what the second stage learns from: `[B, n, 4]` and which of them are there, `[B, n]`.

    These are the first stage's proposals and the objects themselves, also shifted and stretched, because at first no
    proposal is on an object.
    """
    found = model.propose([level.float() for level in levels])
    own = torch.zeros(len(found.counts), model.config.head.post_nms, 4)
    there = torch.arange(own.shape[1]) < torch.tensor(found.counts)[:, None]
    own[there] = found.boxes
    copies = objects.boxes.repeat(1, 1 + jitter, 1)
    size = (copies[..., 2:] - copies[..., :2]).repeat(1, 1, 2)
    moved = copies + size * 0.12 * torch.randn(copies.shape, generator=generator)
    moved[:, : objects.boxes.shape[1]] = objects.boxes
    moved = clip(moved, model.config.side)
    solid = (moved[..., 2:] > moved[..., :2] + 1).all(dim=-1)
    return torch.cat([own, moved], dim=1), torch.cat([there, solid & (objects.labels >= 0).repeat(1, 1 + jitter)], 1)


def pool(model: ViTDet, levels: list[Tensor], regions: Regions) -> Tensor:
    """Pool regions to `[R, C, pooled, pooled]`, as `pool_regions` does, with products over whole maps.

    That is more arithmetic, but a gradient for a part of a map is as large as the map, one for each region.
    """
    head, strides = model.config.head, model.config.strides
    level = levels_of(regions.boxes, strides[: len(levels)], head.canonical_size, head.canonical_level)
    out, order = [], []
    for number, (features, stride) in enumerate(zip(levels, strides, strict=False)):
        rows = (level == number).nonzero().flatten()
        boxes = regions.boxes[rows] / stride - 0.5
        if not len(rows):
            continue
        vertical, _ = axis_weights(boxes[:, 1], boxes[:, 3], features.shape[2], head.pooled)
        horizontal, _ = axis_weights(boxes[:, 0], boxes[:, 2], features.shape[3], head.pooled)
        maps = features.permute(0, 2, 3, 1).index_select(0, regions.frames[rows])
        down = (vertical.to(maps.dtype) @ maps.flatten(2)).unflatten(2, maps.shape[2:])
        out.append(horizontal.to(maps.dtype)[:, None] @ down)
        order.append(rows)
    return torch.cat(out)[torch.cat(order).argsort()].permute(0, 3, 1, 2)


def token_labels(objects: Objects, grid: int, patch: int, classes: int) -> Tensor:
    """Return the class of each token, `[B, grid x grid]`: of the object in whose inscribed ellipse its centre is."""
    centre = (torch.arange(grid) + 0.5) * patch
    middle = (objects.boxes[..., 2:] + objects.boxes[..., :2]) / 2
    half = ((objects.boxes[..., 2:] - objects.boxes[..., :2]) / 2).clamp(min=1e-6)
    along = ((centre - middle[..., None]) / half[..., None]).square()  # [B, M, 2, grid]
    inside = along[:, :, 1, :, None] + along[:, :, 0, None, :] < 1
    found = torch.full((len(objects.labels), grid, grid), classes)
    for number in range(objects.labels.shape[1]):  # later things are drawn over earlier ones
        own = objects.labels[:, number, None, None]
        found = torch.where(inside[:, number] & (own >= 0), own, found)
    return found.flatten(1)


def one_each(pictures: Pictures) -> Iterator[tuple[Frame, np.ndarray]]:
    """Yield one frame of each clip, from the first to the last in turn."""
    length = pictures.labels.shape[1]
    for number, (boxes, labels) in enumerate(zip(pictures.boxes, pictures.labels, strict=True)):
        at = number % length
        there = labels[at] >= 0
        objects = Boxes(boxes[at][there], labels[at][there], np.flatnonzero(there))
        yield Frame(f"clip{number}", at, objects), pictures.frames[number, at]


@torch.no_grad()
def scores(model: ViTDet, frames: Iterable[tuple[Frame, np.ndarray]]) -> Scores:
    """Evaluate the detector on frames, in float32."""
    model.eval()
    annotated, found, waiting = [], [], []
    for frame, pixels in frames:
        annotated.append(Segment(frame.video_id, (frame,)))
        waiting.append(torch.tensor(pixels))
        if len(waiting) == _TOGETHER:
            found += model(torch.stack(waiting), Segments())[1]
            waiting = []
    found += model(torch.stack(waiting), Segments())[1] if waiting else []
    model.train()
    frame_of = np.repeat(np.arange(len(found)), [len(each.scores) for each in found])
    labels, values, boxes = (
        torch.cat([getattr(each, name) for each in found]).numpy() for name in ("labels", "scores", "boxes")
    )
    detections = Detections(frame_of, labels, values.astype(np.float64), boxes.astype(np.float64))
    return evaluate(Truth.of(annotated, model.config.classes), detections)
