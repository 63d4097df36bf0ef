"""Boxes and shapes of all things in the embedded synthetic clips, 6 classes in every frame; needs no download."""

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np

from vpbench.data import known_split
from vpbench.data.boxes import Boxes, DetectionDataset, Frame, Pixels, Segment, segments_of
from vpbench.data.video import open_reader
from vpbench.datasets.synthmotion import CI_CLIPS, HERE, read_manifest
from vpbench.datasets.synthmotion.objects import SEEN, objects
from vpbench.datasets.synthmotion.scene import FRAMES, SHAPES, SIZE
from vpbench.errors import UsageError


class SynthMotionBoxes(DetectionDataset):
    """The clips of `synthmotion`, every frame, with the shape, box and track of each thing: actors and distractors.

    Boxes are not stored: a clip's scene follows from the seed and label in its manifest, and the boxes from the scene.
    A track is a thing's place in the order of drawing. Things of which less than a third shows are not annotated.
    """

    classes = SHAPES
    splits = ("test", "ci")
    decoder = "pyav"

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root)
        self._folder = root or HERE / "clips"
        self._decoded: tuple[str, Pixels] | None = None

    def videos(self, split: str) -> list[str]:
        """List the 504 clips of `test`, or its first 60 as `ci`; raises UsageError for a missing or broken manifest."""
        known_split("synthmotion_boxes", split, self.splits)
        found = list(_clips(self._folder))
        return found[:CI_CLIPS] if split == "ci" else found

    def segments(self, split: str, video_id: str) -> list[Segment]:
        """Return the one segment of a clip; raises UsageError for one that the split does not have."""
        if video_id not in self.videos(split):
            raise UsageError(f"synthmotion_boxes {split} has no video {video_id!r}")
        _, label, seed = _clips(self._folder)[video_id]
        shown = objects(seed, label)
        frames = []
        for number, (boxes, seen) in enumerate(zip(shown.boxes, shown.seen, strict=True)):
            there = np.flatnonzero(seen >= SEEN)
            own = Boxes(boxes[there], shown.labels[there], there.astype(np.int64))
            frames.append(Frame(video_id, number, own, SIZE, SIZE))
        return segments_of(frames)

    def pixels(self, frame: Frame) -> Pixels:
        """Decode one frame; its clip is kept, since the next frame asked for is most likely the next of the clip."""
        decoded = self._decoded
        if decoded is None or decoded[0] != frame.video_id:
            with open_reader(_clips(self._folder)[frame.video_id][0], "pyav") as reader:
                decoded = frame.video_id, reader.read(range(FRAMES))
            self._decoded = decoded
        return decoded[1][frame.number]


@lru_cache
def _clips(folder: Path) -> dict[str, tuple[Path, int, int]]:
    """Return file, label and seed of each clip of a folder, by id."""
    videos = read_manifest(folder)
    path = folder / "manifest.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        try:
            seeds = [int(row["seed"]) for row in csv.DictReader(stream)]
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: {error}; boxes need a column seed of whole numbers") from error
    return {v.video_id: (v.path, v.label, seed) for v, seed in zip(videos, seeds, strict=True)}
