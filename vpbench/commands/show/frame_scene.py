"""Consecutive frames that a detector looks at."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from vpbench.commands.show.scene import Scene, Seen, chosen
from vpbench.data.boxes import Frame
from vpbench.data.protocols.whole import resize, scale_of
from vpbench.data.video import open_reader
from vpbench.data.video.reader import DecodeError
from vpbench.errors import VpbenchError
from vpbench.plan import Cell, Setting
from vpbench.render.pictures.page import Mark
from vpbench.tasks.attach import attach
from vpbench.tasks.detection.follow import Look
from vpbench.tasks.detection.session import DetectionSession
from vpbench.tasks.detection.watched import as_seen, watched_frames

#: colours of what is annotated and of what is found
TRUTH, FOUND = (0, 200, 83), (255, 145, 0)


class FrameScene(Scene):
    """The first `count` frames of a video of the dataset, or of a video file; boxes found from `least` on are drawn."""

    height = 192  # room for what is written on boxes

    def __init__(self, setting: Setting, name: str, count: int, least: float) -> None:
        self.session, self.least = DetectionSession(setting), least
        found = chosen(name, lambda: list(self.session.videos), f"{setting.dataset} {setting.split}")
        try:
            if isinstance(found, Path):
                self.looks = self._of_file(found, count)
            else:
                frames = self.session.videos[found][0].frames[:count]
                self.looks = [self.session.look(frame) for frame in frames]
                self.truth = [self._annotated(*pair) for pair in zip(frames, self.looks, strict=True)]
        except DecodeError as error:
            raise VpbenchError(str(error)) from error
        self.clip_id, self.frames = self.looks[0].video_id, as_seen(self.session.model, self.looks)
        boxes = f"orange: found, score {least:g} or more" + ("; green: annotated" if self.truth else "")
        self.header = f"{self.clip_id} on {setting.backbone}, {setting.weights} weights; {boxes}"

    def see(self, cell: Cell, *, values: bool) -> Seen:
        """Follow the tokens of all frames, and collect the boxes found in each."""
        ready = attach(cell, self.session.model, (), {})
        found = watched_frames(self.session.model, ready.pruner, self.looks, values=values)
        marks = []
        for number, each in enumerate(found.found):
            good = each.scores >= self.least
            texts = [f"{self._name(label)} {score:.2f}" for label, score in _pairs(each.labels, each.scores, good)]
            own = [Mark(_box(box), FOUND, text) for box, text in zip(each.boxes[good], texts, strict=True)]
            annotated = [Mark(mark.box, mark.colour) for mark in self.truth[number]] if self.truth else []
            marks.append([*annotated, *own])
        return Seen(cell.label, found.fate, found.values, marks)

    def titles(self, slots: int) -> list[str]:
        """Name each frame."""
        return [f"frame {look.number}" for look in self.looks]

    def _of_file(self, path: Path, count: int) -> list[Look]:
        config = self.session.config
        with open_reader(path, "pyav") as reader:
            frames = reader.read(range(min(count, len(reader))))
        fits = config.side, config.short_of_1024
        scale = scale_of(frames.shape[1], frames.shape[2], *fits)
        device = self.session.setting.device
        return [
            Look(path.stem, n, torch.from_numpy(resize(pixels, *fits)).to(device), scale)
            for n, pixels in enumerate(frames)
        ]

    def _annotated(self, frame: Frame, look: Look) -> list[Mark]:
        pairs = zip(frame.boxes.xyxy * look.scale, frame.boxes.labels, strict=True)
        return [Mark(_box(box), TRUTH, self._name(label)) for box, label in pairs]

    def _name(self, label: int) -> str:
        names = self.session.dataset.classes
        return names[int(label)] if int(label) < len(names) else str(int(label))


def _pairs(labels: Tensor, scores: Tensor, good: Tensor) -> Iterable[tuple[int, float]]:
    return zip(labels[good].tolist(), scores[good].tolist(), strict=True)


def _box(box: Iterable[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2
