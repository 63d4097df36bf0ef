"""What the cells of one group share, loaded once: videos, and the backbone that classifies their clips."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from vpbench import registry
from vpbench.api import Classifier, Clip, ClipBatch, Dataset, Video
from vpbench.backbones.loading import load_backbone, outputs, preparation
from vpbench.data import Given
from vpbench.data.cache import ClipCache
from vpbench.data.feed import Feed, Loaded, ViewLoader
from vpbench.data.protocols import catalog
from vpbench.data.protocols import shape as protocols_shape
from vpbench.data.sources import load_dataset
from vpbench.errors import UsageError
from vpbench.measure.execution import forward_of
from vpbench.plan import Options, Setting
from vpbench.rows import fates
from vpbench.tasks.recognition.questions import Question, questions
from vpbench.tasks.task import calibration_of

#: clips that the rounds of timing walk through, and batches of them where batches are large
TIMED_CLIPS, TIMED_BATCHES = 40, 4


class Session:
    """The shared state of one group of cells."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.dataset = open_dataset(setting)
        began = time.perf_counter()
        self.backbone = load_backbone(setting)
        #: seconds to build the backbone and to load its weights
        self.setup_s = time.perf_counter() - began
        self.forward = forward_of(self.backbone, setting.mode, setting.device)
        self.config = self.backbone.config
        stated = preparation(setting.backbone, setting.weights)
        full = catalog.default(self.dataset.protocol, registry.backbone(setting.backbone).protocol, stated)
        self.protocol = catalog.find(setting.protocol, setting.seed, full, stated)
        self.feed = Feed(self._loader(), setting.workers)
        self.calibration = calibration_of(self._calibration)
        #: cell id -> clip id -> tokens kept on average over the layers; random controls copy it
        self.kept: dict[str, dict[str, int]] = {}
        #: video id -> view -> its clip, of those that will be timed or shown
        self._aside: dict[str, dict[int, Clip]] = {}

    @cached_property
    def listed(self) -> list[Video]:
        """The videos of the split as they are listed; raises UsageError where there are none."""
        return listed(self.setting, self.dataset)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """What the outputs answer; raises UsageError for weights of other classes than the videos'."""
        return questions_of(self.setting, self.dataset, self.config.classes)

    @cached_property
    def videos(self) -> list[Video]:
        """The listed videos, labelled as the first question asks."""
        return [replace(video, label=self.questions[0].label(video)) for video in self.listed]

    def _calibration(self) -> list[Clip]:
        """Decode what thresholds are derived from, one view per video; raises UsageError where there is nothing."""
        found, why = list[Clip](), "there are none"
        for loaded in self.feed.stream(self.dataset.calibration()):
            if loaded.clips:
                found.append(loaded.clips[0])
            else:
                why = str(loaded.error)
        if not found:
            raise UsageError(f"{self.setting.dataset}: none of its calibration videos can be read ({why})")
        return found

    def _loader(self) -> ViewLoader:
        setting, config = self.setting, self.config
        cache = None if setting.cache is None else ClipCache(Path(setting.cache), round(1e9 * setting.cache_gb))
        shape = protocols_shape.Shape(config.frames, config.height, config.width, config.stride)
        return ViewLoader(self.protocol, shape, setting.decoder, cache)

    @property
    def views(self) -> int:
        """Views of each video."""
        times, places = self.protocol.views
        return times * places

    @cached_property
    def _timed(self) -> Sequence[tuple[str, int]]:
        """Id and view of the clips to time: spread over the split, and over the views where videos are few."""
        wanted = min(max(TIMED_CLIPS, TIMED_BATCHES * self.setting.batch), self.views * len(self.videos))
        spread = np.linspace(0, len(self.videos) - 1, min(wanted, len(self.videos))).round().astype(int)
        ids = [self.videos[number].video_id for number in dict.fromkeys(spread.tolist())]
        return [(ids[k % len(ids)], (k % len(ids) + k // len(ids)) % self.views) for k in range(wanted)]

    def lay_aside(self, loaded: Loaded) -> None:
        """Keep what will be timed or shown of a video that has just been loaded, so that it is not decoded again."""
        own = {view for video_id, view in self._timed if video_id == loaded.video.video_id}
        own |= {0} if loaded.video.video_id in self._shown else set()
        self._aside[loaded.video.video_id] = {c.view: c for c in loaded.clips if c.view in own}

    def clips_to_time(self) -> list[Clip]:
        """Return the clips to time; those that were not laid aside are decoded, unreadable ones are left out."""
        self._fetch({video_id for video_id, _ in self._timed})
        self.feed.close()  # from here on time is measured, and idle workers are processes beside it
        return [self._aside[video_id][view] for video_id, view in self._timed if view in self._aside[video_id]]

    @property
    def _shown(self) -> list[str]:
        """Ids of the videos whose first views are shown."""
        return [video.video_id for video in self.videos[: fates.CLIPS]]

    def clips_to_show(self) -> list[Clip]:
        """Return the first views of the first videos, laid aside or decoded; unreadable ones are left out."""
        self._fetch(set(self._shown))
        return [self._aside[video_id][0] for video_id in self._shown if 0 in self._aside[video_id]]

    def _fetch(self, wanted: set[str]) -> None:
        """Decode videos of which nothing was laid aside yet."""
        missing = wanted - self._aside.keys()
        for loaded in self.feed.stream(video for video in self.videos if video.video_id in missing):
            self.lay_aside(loaded)


def open_dataset(asked: Setting | Options) -> Dataset:
    """Open a dataset at its root; one that names no classes takes those that the weights name."""

    def names() -> Sequence[str]:
        found = outputs(asked.backbone, asked.weights, asked.weights_key, asked.dataset)
        return () if found is None else found.names

    root, listed, classes = (None if path is None else Path(path) for path in (asked.root, asked.list, asked.classes))
    return load_dataset(asked.dataset).opened(root, Given(listed, classes, names, asked.split))


def listed(setting: Setting, dataset: Dataset) -> list[Video]:
    """Return the videos that are to be seen as they are listed; raises UsageError where there are none."""
    found = dataset.videos(setting.split)[: setting.limit]
    if not found:
        raise UsageError(f"{setting.dataset} split {setting.split!r} holds no videos")
    return found


def to_batch(clips: Sequence[Clip], device: str) -> ClipBatch:
    """Stack clips into one batch on the device, their pixels as they are."""
    pixels = torch.from_numpy(np.stack([clip.pixels for clip in clips])).to(device)
    return ClipBatch(pixels, tuple(clip.clip_id for clip in clips), tuple(clip.label for clip in clips))


def batch_for(backbone: Classifier, clips: Sequence[Clip], device: str) -> ClipBatch:
    """Return clips as a backbone takes them: uint8, or normalised where the protocol resizes in floats."""
    batch = to_batch(clips, device)
    return replace(batch, pixels=backbone.normalise(batch.pixels)) if batch.pixels.is_floating_point() else batch


def stored_questions(setting: Setting, outputs: int) -> tuple[Question, ...]:
    """Return what `outputs` numbers answered when they were stored, whether the data are still there or not."""
    kind = load_dataset(setting.dataset)
    if not kind.nouns:  # one class per video, which was compared with the data then
        return (Question("class", 0, outputs),)
    return questions_of(setting, open_dataset(setting), outputs)


def questions_of(setting: Setting, dataset: Dataset, outputs: int) -> tuple[Question, ...]:
    """Return what `outputs` numbers answer on a dataset; random weights answer nothing that is compared with labels."""
    try:
        return questions(dataset, outputs)
    except UsageError as error:
        if setting.weights == "random":
            return (Question("class", 0, outputs),)
        raise UsageError(f"weights {setting.weights} on {setting.dataset}: {error}") from error
