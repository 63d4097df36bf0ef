"""What is shown: one clip, or the first frames of a video, and what methods make of the tokens there."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vpbench import registry
from vpbench.api import Backbone, Clip, ClipBatch, Detections, Video
from vpbench.backbones.videomae.gradients import gradient_norms
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.data.video import open_reader
from vpbench.data.video.reader import DecodeError
from vpbench.errors import UsageError, VpbenchError
from vpbench.measure.watch import clips
from vpbench.measure.watch.clips import Watched
from vpbench.plan import Cell, Setting
from vpbench.render.pictures.draw import Pixels
from vpbench.render.pictures.page import Mark
from vpbench.rows.fates import Fate
from vpbench.tasks.attach import attach
from vpbench.tasks.detection import watched
from vpbench.tasks.detection.session import DetectionSession
from vpbench.tasks.recognition.session import Session, batch_for

Floats = NDArray[np.float32]
#: frames of a detector's video that are shown, unless asked otherwise
FRAMES = 16
#: colours of what is annotated and of what is found
TRUTH, FOUND = (0, 200, 83), (255, 145, 0)


@dataclass(frozen=True)
class Seen:
    """What one method made of the clip: its tokens' fate, what it rated them by, and what was found, slot by slot."""

    label: str
    fate: Fate
    values: dict[str, Floats] = field(default_factory=dict)
    marks: Sequence[Sequence[Mark]] = ()


@dataclass(frozen=True)
class Scene:
    """One clip, whole, on the backbone that it is shown on."""

    setting: Setting
    clip_id: str
    #: uint8 `[T, H, W, 3]`
    frames: Pixels
    #: names of the frames, slot by slot
    titles: Sequence[str]
    backbone: Backbone
    #: names of the dataset's classes
    classes: Sequence[str]
    #: runs a pruner, and whether it is asked for `values`, on the clip
    watch: Callable[..., Watched[Any]]
    calibration: Sequence[Clip] = ()
    #: what a classifier runs; none on detectors, whose boxes are drawn
    batch: ClipBatch | None = None
    #: what is annotated, slot by slot
    truth: Sequence[Sequence[Mark]] = ()
    #: score of boxes from which on they are drawn
    least: float = 0.0

    @property
    def header(self) -> str:
        """What is written above all pictures."""
        text = f"{self.clip_id} on {self.setting.backbone}, {self.setting.weights} weights"
        if self.batch is not None:
            return text
        return f"{text}; orange: found, score {self.least:g} or more" + ("; green: annotated" if self.truth else "")

    @property
    def height(self) -> int:
        """Height of pictures in pixels, about, that small frames are enlarged to; boxes need room for what they say."""
        return 192 if self.batch is None else 128

    def see(self, cell: Cell, *, values: bool) -> Seen:
        """Run a method on the clip; raises UsageError, with the reason, where it cannot run or be drawn."""
        pruner = attach(cell, self.backbone, self.calibration, {}).pruner
        try:
            found = self.watch(pruner, values=values)
        except UsageError as error:
            raise UsageError(f"{cell.label} cannot be shown: {error}") from error
        # first of all, since long labels are cut
        method = f"{cell.method} ({pruner.caveat})" if pruner.caveat else cell.method
        marks = [self._marks(slot, each) for slot, each in enumerate(found.output)] if self.batch is None else ()
        return Seen(method + cell.label.removeprefix(cell.method), found.fate, found.values, marks)

    def _marks(self, slot: int, found: Detections) -> list[Mark]:
        good = found.scores >= self.least
        labels, scores = found.labels[good].tolist(), found.scores[good].tolist()
        texts = [f"{named(label, self.classes)} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
        annotated = [replace(mark, text="") for mark in self.truth[slot]] if self.truth else []
        return annotated + _boxes(found.boxes[good].tolist(), FOUND, texts)

    def gradient(self, *, by_label: bool) -> tuple[Floats, str]:
        """Return the norms of the gradient of the predicted class, or of the label, for each token, and its name.

        Raises UsageError where there are none.
        """
        model, batch = self.backbone, self.batch
        if not isinstance(model, VideoMAE) or batch is None:
            raise UsageError("gradient norms are defined for a plain stream of tokens (VideoMAE); leave --gradnorm out")
        trained = self.setting.weights != "random"
        if by_label and (batch.labels is None or not trained):
            raise UsageError("--gradnorm label needs a labelled video and trained weights; use --gradnorm predicted")
        target = torch.tensor(batch.labels, device=batch.pixels.device) if by_label else None
        with model.casting():
            norms, predicted = gradient_norms(model, batch, target)
        shape = (model.grid.slots, model.grid.rows, model.grid.cols)
        name = named(int(predicted[0]), self.classes if trained else (), "class ")
        return norms[0].float().cpu().numpy().reshape(shape), name


def scene_of(setting: Setting, name: str, *, view: int = 0, count: int | None = None, least: float = 0.5) -> Scene:
    """Load the clip and the backbone it is shown on; raises UsageError for clips and views that are not there.

    On detectors `count` frames are shown, and boxes found with scores from `least` on.
    """
    if registry.backbone(setting.backbone).task != "detection":
        return _clip(setting, name, view)
    if view:
        raise UsageError(f"{setting.backbone} looks at whole frames, there are no views; leave --view out")
    try:
        return _frames(setting, name, count or FRAMES, least)
    except DecodeError as error:
        raise VpbenchError(str(error)) from error


def _clip(setting: Setting, name: str, view: int) -> Scene:
    """Load one view of a video of the dataset, or of a video file; a file has no label."""
    session = Session(setting)
    found = chosen(name, lambda: [v.video_id for v in session.listed], f"{setting.dataset} {setting.split}")
    if isinstance(found, Path):
        video = Video(found.stem, found, -1)
    else:
        video = next(video for video in session.videos if video.video_id == found)
    loaded = session.feed.loader.load(video)
    if loaded.error is not None:
        raise VpbenchError(loaded.error)
    if not 0 <= view < len(loaded.clips):
        raise UsageError(f"--view {view}: protocol {setting.protocol} has views 0 to {len(loaded.clips) - 1}")
    clip, backbone = loaded.clips[view], session.backbone
    batch = batch_for(backbone, [clip], setting.device)
    batch = replace(batch, labels=None) if isinstance(found, Path) else batch
    frames = clips.as_seen(clip)
    length = len(frames) // backbone.grid.slots
    firsts = range(0, backbone.grid.slots * length, length)
    titles = [f"frames {n}-{n + length - 1}" if length > 1 else f"frame {n}" for n in firsts]
    watch = partial(clips.watched, backbone, batch)
    classes = session.dataset.classes
    return Scene(setting, clip.clip_id, frames, titles, backbone, classes, watch, session.calibration, batch)


def _frames(setting: Setting, name: str, count: int, least: float) -> Scene:
    """Load the first frames of a video of the dataset, or of a video file, in which nothing is annotated."""
    session, truth = DetectionSession(setting), list[list[Mark]]()
    found = chosen(name, lambda: list(session.videos), f"{setting.dataset} {setting.split}")
    model, classes = session.backbone, session.dataset.classes
    if isinstance(found, Path):
        with open_reader(found, "pyav") as reader:
            pictures = reader.read(range(min(count, len(reader))))
        looks = [session.resized(found.stem, number, pixels) for number, pixels in enumerate(pictures)]
    else:
        frames = session.videos[found][0].frames[:count]
        looks = [session.look(frame) for frame in frames]
        for boxes, look in zip((frame.boxes for frame in frames), looks, strict=True):
            names = [named(label, classes) for label in boxes.labels.tolist()]
            truth.append(_boxes((boxes.xyxy * look.scale).tolist(), TRUTH, names))
    titles, watch = [f"frame {look.number}" for look in looks], partial(watched.watched_frames, model, looks)
    shown = watched.as_seen(model, looks)
    return Scene(setting, looks[0].video_id, shown, titles, model, classes, watch, truth=truth, least=least)


def named(label: int, classes: Sequence[str], otherwise: str = "") -> str:
    """Return the name of a class, or its number where nobody knows its name."""
    return classes[label] if label < len(classes) else f"{otherwise}{label}"


def _boxes(boxes: Sequence[Sequence[float]], colour: tuple[int, int, int], texts: Sequence[str]) -> list[Mark]:
    return [Mark((x1, y1, x2, y2), colour, text) for (x1, y1, x2, y2), text in zip(boxes, texts, strict=True)]


def chosen(name: str, listed: Callable[[], Sequence[str]], what: str) -> str | Path:
    """Return the path of a file or folder that is there, or the id that is meant, by itself or by its number.

    listed: gives the ids, of which a file needs none; what: is in that list, for the message. Raises UsageError, with
    near matches, where nothing is meant.
    """
    if Path(name).exists():
        return Path(name)
    known = listed()
    if name in known:
        return name
    if name.isdecimal():
        if int(name) < len(known):
            return known[int(name)]
        raise UsageError(f"there is no video number {name}: {what} has {len(known)}, numbered from 0")
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else f", such as {known[0]!r}" if known else ""
    if Path(name).suffix or "/" in name:
        raise UsageError(f"{name}: no such file, and no video of {what}{hint}")
    raise UsageError(f"no video {name!r} in {what}{hint}; give an id, a number below {len(known)}, or a file")
