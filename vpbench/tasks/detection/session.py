"""What the cells of one group share on a dataset of boxes, loaded once: annotations, and the detector."""

import hashlib
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch

from vpbench import registry
from vpbench.backbones import loading
from vpbench.backbones.checkpoints.reading import Asked
from vpbench.backbones.loading import use_device
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.backbones.vitdet.network import ViTDet
from vpbench.data.boxes import DetectionDataset, Frame, Pixels, Segment
from vpbench.data.protocols.whole import resize, scale_of
from vpbench.data.sources import load_detection_dataset
from vpbench.errors import UsageError
from vpbench.plan import Setting
from vpbench.tasks.detection.boxes import Truth
from vpbench.tasks.detection.follow import Look
from vpbench.tasks.detection.precision import check_library


def config_of(setting: Setting) -> ViTDetConfig:
    """Return the detector's sizes; raises UsageError for backbones that detect nothing and options of clips."""
    config = registry.backbone(setting.backbone).sizes
    if not isinstance(config, ViTDetConfig):
        raise UsageError(f"{setting.backbone} classifies clips; it cannot find objects in frames")
    if setting.frames is not None:
        raise UsageError(f"{setting.backbone} looks at videos frame by frame; leave --frames out")
    if setting.decoder != "pyav":
        raise UsageError(f"frames of {setting.dataset} are decoded in one way only; leave --decoder out")
    if setting.positions != "interpolate":
        raise UsageError(f"the positions of {setting.backbone} were learned; they can only be interpolated")
    return config if setting.size is None else config.sized(setting.size)


class DetectionSession:
    """The shared state of one group of cells; raises UsageError where the setting cannot run."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.config = config_of(setting)
        self.dataset, self.videos = annotated(setting)
        if not self.frames:
            raise UsageError(f"{setting.dataset} split {setting.split!r} holds no frames")
        began = time.perf_counter()
        self.backbone = load_detector(setting)
        #: seconds to build the detector and to load its weights
        self.setup_s = time.perf_counter() - began
        _refuse_answers(setting, self.backbone.config, self.dataset)
        every = (segment for each in self.videos.values() for segment in each)
        self.truth = Truth.of(every, len(self.dataset.classes))

    @property
    def frames(self) -> int:
        """Frames of all videos."""
        return sum(len(segment.frames) for each in self.videos.values() for segment in each)

    def look(self, frame: Frame) -> Look:
        """Decode a frame, resize it, and put it on the device; raises DecodeError if it cannot be read."""
        return self.resized(frame.video_id, frame.number, self.dataset.pixels(frame))

    def resized(self, video_id: str, number: int, pixels: Pixels) -> Look:
        """Resize a decoded frame, uint8 `[H, W, 3]`, and put it on the device."""
        fits = self.config.side, self.config.short_of_1024
        scale, small = scale_of(pixels.shape[0], pixels.shape[1], *fits), torch.from_numpy(resize(pixels, *fits))
        return Look(video_id, number, small.to(self.setting.device), scale)


def check(setting: Setting) -> None:
    """Raise UsageError where a session would, for options and weights; takes no memory for the numbers of weights."""
    config_of(setting)
    sizes = loading.fitting(setting.backbone, setting.weights, Asked(setting.weights_key), setting.size)
    assert isinstance(sizes, ViTDetConfig)
    _refuse_answers(setting, sizes, annotated(setting)[0])


def _refuse_answers(setting: Setting, config: ViTDetConfig, dataset: DetectionDataset) -> None:
    """Raise UsageError where what weights find cannot be scored, before hours of work."""
    if setting.weights == "random":
        return
    check_library()
    classes = len(dataset.classes)
    if config.classes != classes:
        raise UsageError(
            f"weights {setting.weights} know {config.classes} classes, {setting.dataset} has {classes}; give weights "
            "that were trained on it"
        )


def load_detector(setting: Setting) -> ViTDet:
    """Build the detector with its weights on the device, and set the thread count."""
    found = loading.build_detector(setting.backbone, setting.weights, setting.seed, setting.size, setting.weights_key)
    assert isinstance(found, ViTDet)
    return use_device(found, setting)


def annotated(setting: Setting) -> tuple[DetectionDataset, Mapping[str, tuple[Segment, ...]]]:
    """Return the dataset and the segments of each video, in order, of the first `limit` videos."""
    return _annotated(setting.dataset, setting.split, setting.root, setting.limit)


@lru_cache(maxsize=1)  # a plan needs their digest, a run needs them again, and large sets take a minute to read
def _annotated(
    name: str, split: str, root: str | None, limit: int | None
) -> tuple[DetectionDataset, Mapping[str, tuple[Segment, ...]]]:
    dataset = load_detection_dataset(name)(None if root is None else Path(root))
    videos = dataset.videos(split)[:limit]
    return dataset, {video: tuple(dataset.segments(split, video)) for video in videos}


def digest(videos: Mapping[str, tuple[Segment, ...]]) -> str:
    """SHA-256 over frames, boxes and labels in order: two runs with the same digest saw, and looked for, the same."""
    found = hashlib.sha256()
    for segment in (segment for each in videos.values() for segment in each):
        for frame in segment.frames:
            found.update(f"{frame.video_id}\t{frame.number}\t{len(frame.boxes.labels)}\n".encode())
            for array in (frame.boxes.xyxy, frame.boxes.labels, frame.boxes.tracks):
                found.update(array.tobytes())
        found.update(b"\n")
    return found.hexdigest()
