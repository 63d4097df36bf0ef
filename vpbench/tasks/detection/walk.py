"""What the clock runs of detectors: windows of frames, from pixels on the device to boxes.

A call takes a configuration through the same frames of a segment, from a dense frame on, and through a whole number of
its periods where that can be: then dense frames have the share of the time that they have in long segments.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from vpbench.api import Pruner
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.backbones.vitdet.windows import Queries, SquareWindows
from vpbench.data.boxes import Frame
from vpbench.data.video import DecodeError
from vpbench.measure.rounds import MODEL, Call
from vpbench.tasks.detection.follow import Follower, Found, Look
from vpbench.tasks.detection.predict import frame_row
from vpbench.tasks.detection.session import DetectionSession

#: windows that rounds walk through
WINDOWS = 4
#: frames of a window: so many where segments begin anew after fewer, and at most the second number
SHORTEST, LONGEST = 8, 32
#: the scope of calls that leave out pyramid and head
TRANSFORMER = "transformer"
#: classes, besides modules and pruners, whose functions are stages of a frame
PARTS = (Segments, SquareWindows, Queries)

Window = Sequence[Look]


def window_length(periods: Sequence[int]) -> int:
    """Return frames that hold whole periods of all configurations, if that is not too many.

    Where one is dense only once in a segment (period 0), as many as can be: segments are longer still.
    """
    if 0 in periods:
        return LONGEST
    common = math.lcm(*periods)
    return min(LONGEST, common * max(1, -(-SHORTEST // common)))


def windows(session: DetectionSession, length: int) -> list[list[Window]]:
    """Decode batches of windows of one size, spread over the split; shorter windows where no segment is so long."""
    length = min(length, max(len(s.frames) for each in session.videos.values() for s in each))
    segments = [s for each in session.videos.values() for s in each if len(s.frames) >= length]
    places = [s.frames[i : i + length] for s in segments for i in range(0, len(s.frames) - length + 1, length)]
    batch = session.setting.batch
    by_size: dict[torch.Size, list[Window]] = {}
    for number in dict.fromkeys(np.linspace(0, len(places) - 1, WINDOWS * batch).round().astype(int).tolist()):
        if window := _decoded(session, places[number]):
            by_size.setdefault(window[0].pixels.shape, []).append(window)
    found = [each[i : i + batch] for each in by_size.values() for i in range(0, len(each), batch)]
    # a smaller batch would be another configuration; only where nothing else is there, it has to do
    return [each for each in found if len(each) == batch] or found[:1]


def _decoded(session: DetectionSession, frames: Sequence[Frame]) -> Window | None:
    try:
        window = [session.look(frame) for frame in frames]
    except DecodeError:
        return None  # the first pass has already recorded it as a failure
    return window if len({look.pixels.shape for look in window}) == 1 else None


class FrameWalk:
    """One configuration that goes through windows in turn; see `measure.rounds.Walk`."""

    def __init__(self, model: ViTDet, pruner: Pruner, batches: Sequence[Sequence[Window]]) -> None:
        self.follower, self.batches = Follower(model, pruner), batches
        self.units, self.calls = len(batches[0]) * len(batches[0][0]), len(batches)
        self.parts = (*model.modules(), *PARTS, pruner)
        self.scopes: Mapping[str, Call] = {MODEL: self, TRANSFORMER: self.transformer}
        self._seen: dict[int, list[list[Found]]] = {}

    def __call__(self, number: int) -> None:
        """Go through a window, from pixels on the device to boxes."""
        place = number % len(self.batches)
        self._seen[place] = list(self.follower.walk(self.batches[place]))

    def transformer(self, number: int) -> None:
        """Go through a window without pyramid and head: boxes that guide the next frame are those found before."""
        place = number % len(self.batches)
        batch = self.batches[place]
        self.follower.start([window[0] for window in batch])
        for looks, found in zip(zip(*batch, strict=True), self._seen[place], strict=True):
            pixels = torch.stack([look.pixels for look in looks])
            self.follower.transform(pixels, [each.detections for each in found])

    def macs(self) -> Sequence[int]:
        """Walk through all windows, and return the multiply-accumulates of each.

        What was stored of the same frames is no help: a window begins with a dense frame, wherever in its segment.
        """
        for number in range(len(self.batches)):
            self(number)
        config, pruner = self.follower.model.config, self.follower.pruner
        return [
            sum(frame_row(config, pruner, found)["macs"] for step in self._seen[place] for found in step)
            for place in range(len(self.batches))
        ]

    def unlike(self) -> Sequence[int]:
        """Return nothing: `macs` has come by all windows."""
        return ()
