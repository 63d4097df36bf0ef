"""A protocol: which frames of a video, cut how, make its views, and how what is predicted of them is averaged."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vpbench.data import Clip, Video
from vpbench.data.protocols.shape import Shape
from vpbench.data.protocols.spatial import Spatial
from vpbench.data.protocols.temporal import Temporal
from vpbench.data.video.reader import Reader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vpbench.data.protocols.spatial import Pixels


@dataclass(frozen=True)
class Plan:
    """The frames that the views of one video need.

    `wanted`: frame numbers, rising, each once. `views`: of each temporal view, the places of its frames in `wanted`.
    """

    wanted: tuple[int, ...]
    views: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Protocol:
    """How a video is evaluated.

    `average`: of a video's views, either the probabilities are averaged, or the logits before their softmax.
    """

    name: str
    summary: str
    temporal: Temporal
    spatial: Spatial
    average: Literal["probabilities", "logits"] = "probabilities"

    @property
    def views(self) -> tuple[int, int]:
        """Temporal and spatial views of a video."""
        return self.temporal.views, self.spatial.views

    def plan(self, reader: Reader, video: Video, shape: Shape) -> Plan:
        """Return which frames have to be read; raises DecodeError if the video is too short."""
        views = self.temporal.indices(len(reader), reader.fps, shape, video.video_id)
        wanted = sorted({number for view in views for number in view})
        place = {number: at for at, number in enumerate(wanted)}
        return Plan(tuple(wanted), tuple(tuple(place[number] for number in view) for view in views))

    def crop(self, frames: "NDArray[np.uint8]", plan: Plan, video: Video, shape: Shape) -> list[Clip]:
        """Return all views of a video out of its planned frames, uint8 `[len(plan.wanted), H, W, 3]`.

        All spatial views of the first temporal one come first.
        """
        # frames that several views share are resized once
        resized = self.spatial.resized(frames, shape.height, shape.width)
        crops = self.spatial.crops(resized, shape.height, shape.width)
        pixels = [crop[list(places)] for places in plan.views for crop in crops]
        return [self.clip(video, number, view) for number, view in enumerate(pixels)]

    def clip(self, video: Video, view: int, pixels: "Pixels") -> Clip:
        """Return a view of a video as a clip with its id: the video's own where there is one view only."""
        clip_id = video.video_id if self.views == (1, 1) else f"{video.video_id}/{view}"
        return Clip(clip_id, video.video_id, view, video.label, pixels)

    def single(self) -> "Protocol":
        """Return this protocol cut down to one view in the middle of the video and of its frames."""
        return replace(self, temporal=self.temporal.single(), spatial=self.spatial.single())
