"""Labelled training clips: the embedded set's arrays, or the videos of a dataset's training split, augmented."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench import registry
from vpbench.api import Classifier, Clip, Video
from vpbench.commands.train.augment import erase, rand_augment, recolour, resized_crop, symmetric
from vpbench.commands.train.engine import first_here, place
from vpbench.commands.train.loop import Batch
from vpbench.commands.train.recipe import ClipRecipe
from vpbench.data import Dataset, manifest_digest
from vpbench.data.feed import ViewLoader
from vpbench.data.protocols import catalog
from vpbench.data.protocols.shape import Shape
from vpbench.data.sources import load_dataset
from vpbench.data.video import open_video
from vpbench.data.video.reader import DecodeError, frame_indices
from vpbench.datasets.synthmotion.encode import array_files, training_arrays
from vpbench.errors import UsageError, VpbenchError
from vpbench.progress import say
from vpbench.tasks.task import calibration_of

#: generated clips of the embedded set that its networks are trained on
TRAINING_CLIPS = 12006


class Source(Protocol):
    """Where batches come from; batch number n of a run is the same whenever it is asked for.

    A batch is normalised pixels `[B, T, H, W, 3]` and target probabilities `[B, classes]`. Of several processes each
    gets every so manieth clip of it.
    """

    #: what tells these clips from others
    name: str
    #: batches in which every clip is seen once
    per_epoch: int

    def batch(self, number: int) -> Batch:
        """Return one batch."""


def source(name: str, root: Path | None, split: str, model: Classifier, recipe: ClipRecipe, decoder: str) -> Source:
    """Return the training clips of a dataset: generated ones for the embedded set, else the videos of a split.

    Raises UsageError for datasets and splits that are not there, and for classes that the backbone has no outputs for.
    """
    return clips_of(dataset_for(name, root, model), name, split, model, recipe, decoder)


def clips_of(
    dataset: Dataset, name: str, split: str, model: Classifier, recipe: ClipRecipe, decoder: str
) -> "MotionClips | VideoClips":
    """Return the training clips of a dataset that is open; raises UsageError for splits that are not there."""
    if name == "synthmotion" and dataset.root is None:
        return MotionClips(model, recipe)
    return VideoClips(listed(dataset, name, split), model, recipe, decoder)


def dataset_for(name: str, root: Path | None, model: Classifier) -> Dataset:
    """Load a dataset; raises UsageError if there is none, or its classes are not the model's."""
    dataset = load_dataset(name)(root)
    if model.config.classes != len(dataset.classes):
        raise UsageError(f"the weights know {model.config.classes} classes, {name} has {len(dataset.classes)}")
    return dataset


def listed(dataset: Dataset, name: str, split: str) -> Sequence[Video]:
    """List the videos of a split; raises UsageError if there are none, and for labels that are no class's number."""
    videos, classes = dataset.videos(split), len(dataset.classes)
    if not videos:
        raise UsageError(f"{name} split {split!r} holds no videos")
    if beyond := [video for video in videos if not 0 <= video.label < classes]:
        first = f"{beyond[0].video_id} has label {beyond[0].label}"
        raise UsageError(
            f"{name} split {split!r}: {len(beyond)} labels are not among the {classes} classes, 0 to {classes - 1} "
            f"({first}); mend the list"
        )
    return videos


def calibration(dataset: Dataset, backbone: str, model: Classifier, decoder: str) -> Sequence[Clip]:
    """Return the clips that parameters are derived from, one of each video, decoded once they are looked at."""
    config, known = model.config, registry.backbone(backbone).protocol
    protocol = catalog.find(catalog.default(dataset.protocol, known), seed=0)
    loader = ViewLoader(protocol, Shape(config.frames, config.height, config.width, config.stride), decoder)

    def read() -> list[Clip]:
        found = [loaded.clips[0] for loaded in map(loader.load, dataset.calibration()) if loaded.clips]
        if not found:
            raise UsageError("none of the dataset's calibration videos can be read; give the parameter with --set")
        return found

    return calibration_of(read)


def generator(seed: int, number: int) -> torch.Generator:
    """Return the generator of one batch."""
    return torch.Generator().manual_seed(seed * 1_000_003 + number)


def order(items: int, size: int, per_epoch: int, seed: int, number: int) -> list[int]:
    """Return the items of batch `number`: every epoch of so many batches goes through a permutation of its own."""
    epoch, place = divmod(number, per_epoch)
    shuffled = torch.randperm(items, generator=torch.Generator().manual_seed(seed * 1000 + epoch))
    return shuffled[place * size : (place + 1) * size].tolist()


def motion_files(split: str, count: int) -> Sequence[Path]:
    """Return the files of frames, targets and labels of generated clips, which are made unless they are there.

    Of several processes on a machine one makes them, and the others wait; where it fails, `torchrun` ends them.
    """
    while not first_here() and not all(path.exists() for path in array_files(split, count)):
        time.sleep(1)
    for done in training_arrays(split, count, os.cpu_count() or 1):
        if done % 1000 == 0 or done == count:
            say(f"{split} clips: {done}/{count}")
    return array_files(split, count)


@dataclass(frozen=True)
class MotionArrays:
    """Generated clips of the embedded set: `frames [n, 16, 64, 64, 3]`, dense `targets`, `labels [n]`."""

    frames: Tensor
    targets: Tensor
    labels: Tensor

    @classmethod
    def of(cls, split: str, count: int) -> "MotionArrays":
        """Load clips, which are made unless they are there."""
        return cls(*(torch.from_numpy(np.load(path)) for path in motion_files(split, count)))

    def augmented(self, chosen: Sequence[int], draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels, targets and labels of clips, each under a random symmetry and in other colours."""
        turns = torch.randint(16, (len(chosen),), generator=draw).tolist()
        made = [
            symmetric(self.frames[i], self.targets[i].float(), int(self.labels[i]), turn)
            for i, turn in zip(chosen, turns, strict=True)
        ]
        pixels = torch.stack([recolour(p, draw) for p, _, _ in made])
        return pixels, torch.stack([t for _, t, _ in made]), torch.tensor([label for _, _, label in made])


class MotionClips:
    """The embedded set's training clips, augmented by symmetries and colours of their own."""

    name = "synthmotion"

    def __init__(self, model: Classifier, recipe: ClipRecipe) -> None:
        self.clips = MotionArrays.of("train", TRAINING_CLIPS)
        self.model, self.recipe = model, recipe
        self.per_epoch = max(len(self.clips.labels) // recipe.batch, 1)

    def batch(self, number: int) -> Batch:
        """Return one batch."""
        recipe, draw = self.recipe, generator(self.recipe.seed, number)
        chosen = order(len(self.clips.labels), recipe.batch, self.per_epoch, recipe.seed, number)
        repeated = [which for which in chosen for _ in range(recipe.repeats)]
        pixels, _, labels = self.clips.augmented(repeated, draw)
        target = smoothed(labels, self.model.config.classes, recipe.label_smoothing)
        rank, processes = place()
        mine = self.model.normalise(pixels[rank::processes]), target[rank::processes]
        return Batch(mixed(*mine, recipe, draw), len(mine[0])) if len(mine[0]) else blank(self.model)


class VideoClips:
    """Random clips of random videos, decoded by threads; a video that cannot be read is said and left out."""

    def __init__(self, videos: Sequence[Video], model: Classifier, recipe: ClipRecipe, decoder: str) -> None:
        self.videos, self.model, self.recipe, self.decoder = videos, model, recipe, decoder
        self.name = f"{manifest_digest(videos)} {decoder}"
        self.per_epoch = max(len(videos) // recipe.batch, 1)

    def batch(self, number: int) -> Batch:
        """Return one batch; raises VpbenchError if none of its videos can be read."""
        recipe, draw = self.recipe, generator(self.recipe.seed, number)
        chosen = order(len(self.videos), recipe.batch, self.per_epoch, recipe.seed, number)
        seeds = torch.randint(2**62, (len(chosen),), generator=draw).tolist()
        rank, processes = place()
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            mine = (chosen[rank::processes], seeds[rank::processes])
            made = [each for each in workers.map(self._augmented, *mine) if each is not None]
        if not made and processes == 1:
            raise VpbenchError(f"none of the {len(chosen)} videos of a batch can be read; see the messages above")
        if not made:
            return blank(self.model)
        pixels = torch.stack([clip for clips, _ in made for clip in clips])
        labels = torch.tensor([label for _, label in made]).repeat_interleave(recipe.repeats)
        target = smoothed(labels, self.model.config.classes, recipe.label_smoothing)
        return Batch(mixed(self.model.normalise(pixels), target, recipe, draw), len(pixels))

    def _augmented(self, which: int, seed: int) -> tuple[list[Tensor], int] | None:
        video, draw = self.videos[which], torch.Generator().manual_seed(seed)
        try:
            return list(self._clips(video, draw)), video.label
        except DecodeError as error:
            say(f"unreadable, left out: {error}")
            return None

    def _clips(self, video: Video, draw: torch.Generator) -> Iterator[Tensor]:
        """Yield the copies of a clip that starts anywhere, uint8 `[T, H, W, 3]`."""
        config, recipe = self.model.config, self.recipe
        with open_video(video, self.decoder) as reader:
            wanted = (spread if recipe.spread else window)(len(reader), config.frames, config.stride, draw)
            frames = torch.from_numpy(reader.read(wanted))
        for _ in range(recipe.repeats):
            clip = frames if recipe.rand_augment is None else rand_augment(frames, *recipe.rand_augment, draw)
            clip = resized_crop(clip, config.height, recipe.crop or (1.0, 1.0), draw)
            clip = clip.flip(2) if recipe.flip and torch.rand((), generator=draw) < 0.5 else clip
            clip = clip.flip(1) if recipe.flip_rows and torch.rand((), generator=draw) < 0.5 else clip
            yield erase(clip, recipe.erase, draw)


class Ahead:
    """Batches of a source, of which the next one is made in a thread while one is learnt from on an accelerator."""

    def __init__(self, source: Source) -> None:
        self.source, self.name, self.per_epoch = source, source.name, source.per_epoch
        self._worker = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Batch]] | None = None

    def batch(self, number: int) -> Batch:
        """Return one batch, and begin with the one after it."""
        ready = self._next is not None and self._next[0] == number
        found = self._next[1].result() if self._next is not None and ready else self.source.batch(number)
        self._next = (number + 1, self._worker.submit(self.source.batch, number + 1))
        return found


def window(length: int, frames: int, stride: int, draw: torch.Generator) -> list[int]:
    """Choose frames of a video `stride` apart, from anywhere on."""
    span = (frames - 1) * stride + 1
    first = int(torch.randint(max(length - span, 0) + 1, (1,), generator=draw))
    return [first + index for index in frame_indices(length - first, frames, stride)]


def spread(length: int, frames: int, stride: int, draw: torch.Generator) -> list[int]:
    """Choose one frame from each of `frames` equal parts of a video, anywhere in it."""
    part = length / frames
    return [min(int((number + float(torch.rand((), generator=draw))) * part), length - 1) for number in range(frames)]


def blank(model: Classifier) -> Batch:
    """Return what stands for a process's part of a batch where nothing is in it: it counts for nothing."""
    config = model.config
    pixels = torch.zeros(1, config.frames, config.height, config.width, 3)
    return Batch((pixels, torch.full((1, config.classes), 1 / config.classes)), 0)


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Return probabilities `[B, classes]` of labels `[B]`."""
    return F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mixed(pixels: Tensor, target: Tensor, recipe: ClipRecipe, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix each clip with its mirror image in the batch: by mixup or cutmix, at even odds where both are on."""
    ways = [way for way, alpha in (("mixup", recipe.mixup), ("cutmix", recipe.cutmix)) if alpha]
    if not ways:
        return pixels, target
    way = ways[int(torch.randint(len(ways), (1,), generator=draw))]
    share = _beta(recipe.mixup if way == "mixup" else recipe.cutmix, draw)
    if way == "mixup":
        pixels = pixels * share + pixels.flip(0) * (1 - share)
    else:
        height, width = pixels.shape[2:4]
        top, left = (int(torch.randint(side, (1,), generator=draw)) for side in (height, width))
        half_h, half_w = (int(side * math.sqrt(1 - share)) // 2 for side in (height, width))
        rows = slice(max(top - half_h, 0), min(top + half_h, height))
        cols = slice(max(left - half_w, 0), min(left + half_w, width))
        other = pixels.flip(0)
        pixels = pixels.clone()
        pixels[:, :, rows, cols] = other[:, :, rows, cols]
        share = 1 - (rows.stop - rows.start) * (cols.stop - cols.start) / (height * width)
    return pixels, target * share + target.flip(0) * (1 - share)


def _beta(alpha: float, draw: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha), by Joehnk's method: two powers of uniform numbers whose sum is at most 1."""
    while True:
        x, y = (float(torch.rand((), generator=draw)) ** (1 / alpha) for _ in range(2))
        if 0 < x + y <= 1:
            return x / (x + y)
