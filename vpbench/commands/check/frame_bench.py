"""Cells of the gate that find objects, frame after frame."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch

from vpbench.api import Backbone
from vpbench.commands.check.bench import Bench
from vpbench.commands.check.facts import DIGITS, Facts, deviation
from vpbench.commands.check.recorder import recording
from vpbench.tasks.detection.follow import Follower, Found, Look
from vpbench.tasks.detection.predict import frame_row
from vpbench.tasks.detection.session import DetectionSession, digest
from vpbench.tasks.task import Attached

#: videos that there are, and videos that a cell's baseline takes
POOL, VIDEOS = 6, 4
#: frames of each: past the next dense frame of methods that have one every 8, and as many for the clock
FRAMES, TIMED = 10, 8
DATASET = "synthmotion_boxes"


class FrameBench(Bench):
    """An embedded detector and the first frames of embedded videos."""

    def __init__(self, backbone: str) -> None:
        super().__init__(backbone, DATASET, POOL)
        self.session = DetectionSession(self.setting)

    @property
    def network(self) -> Backbone:
        """The detector."""
        return self.session.model

    @property
    def units(self) -> Sequence[str]:
        """Ids of the videos."""
        return list(self.session.videos)

    @property
    def wanted(self) -> int:
        """Videos that a cell takes."""
        return VIDEOS

    @cached_property
    def looks(self) -> dict[str, list[Look]]:
        """Decode the first frames of each video, by its id."""
        firsts = {video: segments[0].frames[:FRAMES] for video, segments in self.session.videos.items()}
        return {video: [self.session.look(frame) for frame in frames] for video, frames in firsts.items()}

    def clips_digest(self) -> str:
        """Return the digest of frames and boxes."""
        return digest(self.session.videos)

    def facts(self, candidate: Attached, unit: str) -> dict[str, Facts]:
        """Run a cell through the frames of one video."""
        follower, found = Follower(self.session.model, candidate.pruner), {}
        follower.start(self.looks[unit][:1])
        for look in self.looks[unit]:
            with recording(candidate.pruner) as sets, torch.inference_mode():
                [each] = follower.step([look])
            found[f"{unit}/{look.number}"] = self._facts(candidate, each, sets)
        return found

    def _facts(self, candidate: Attached, each: Found, sets: dict[str, str]) -> Facts:
        row, detections = frame_row(self.session.config, candidate.pruner, each), each.detections
        boxes = detections.boxes / self.session.config.side
        values = [value for part in (detections.scores, boxes.flatten()) for value in part.tolist()]
        labels = {"labels": " ".join(map(str, detections.labels.tolist()))}
        tokens = tuple((n, n) for n in row["tokens_layer"])
        return Facts(tokens, row["macs"], sets | labels, tuple(float(f"{value:.{DIGITS}g}") for value in values))

    def kept_all(self, candidate: Attached, dense: Mapping[str, Facts]) -> float:
        """Return the largest deviation from dense's scores and boxes in the first video."""
        found = self.facts(candidate, self.units[0])
        return max(deviation(facts.values, dense[name].values) for name, facts in found.items())

    def agrees(self, found: Facts, dense: Facts) -> bool:
        """Compare the labels of the best boxes."""
        return found.sets["labels"].partition(" ")[0] == dense.sets["labels"].partition(" ")[0]

    def kl(self, found: Facts, dense: Facts) -> float | None:
        """Return None: boxes are no distribution."""
        return None

    def timed(self, candidate: Attached) -> Callable[[int], object]:
        """Return a walk through the first frames of the first video."""
        group = self.looks[self.units[0]][:TIMED]
        follower = Follower(self.session.model, candidate.pruner)
        return lambda _: list(follower.walk([group]))
