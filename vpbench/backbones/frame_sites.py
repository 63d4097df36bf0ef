"""Where a method can act on a detector that looks at videos frame by frame, and what such a method offers."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from vpbench.backbones.detection.head import Detections
from vpbench.backbones.vitdet_config import ViTDetConfig


class FramePruner:
    """A method attached to one detector and to B segments in lockstep. The base class keeps every token."""

    #: functions that are a stage of a forward, each with its stage; see `measure.stages`
    timed_as: ClassVar[Mapping[str, str]] = dict.fromkeys(("restart", "narrow", "frame", "output"), "scoring")
    #: set to a dict to have the method's intermediate values of each frame written into it
    record: dict[str, Tensor] | None = None
    #: every so many frames of a segment one is dense and owes nothing to earlier ones (0: only the first)
    period: int = 1
    #: what a reader has to know before comparing this pruner's rows with others, in a few words
    caveat: str = ""

    def restart(self, starts: Sequence[tuple[str, int]] = ()) -> None:
        """Forget everything: the next frame is the first of new segments, of these videos and with these numbers."""

    def narrow(self, batch: int) -> None:
        """Go on with the first `batch` segments; the others have ended."""

    @property
    def wants_maps(self) -> bool:
        """Say whether the attention of global blocks is needed in the frame that `frame` was asked about last."""
        return False

    def frame(self, embedded: Tensor) -> Tensor | None:
        """Choose tokens of the next frame, `[B, K]` of `[B, N, D]`; None keeps all and owes nothing to older frames."""
        return None

    def output(self, maps: tuple[Tensor, ...], found: Sequence[Detections]) -> None:
        """Learn from what came of the frame: `maps` as `Frame` has them, and what was found in each segment's frame."""

    def macs(self, kept: int | None, traced: bool) -> int:
        """Multiply-accumulates of the method's own work on one frame of one segment of which it kept so many tokens.

        traced: whether the frame's maps were asked for, and with them what is made of them for the next frame.
        """
        return 0

    def published_macs(self, kept: int | None) -> int:
        """Do as `macs`, but count what the published code executes where ours takes a shorter way."""
        return self.macs(kept, traced=True)

    def note(self, name: str, value: Tensor) -> None:
        """Write an intermediate value into `record`, where somebody asked for it."""
        if self.record is not None:
            self.record[name] = value


@dataclass(frozen=True)
class FrameMethod(abc.ABC):
    """What a method offers, besides being a `Method`, if it can prune detectors."""

    @abc.abstractmethod
    def supports_frames(self, config: ViTDetConfig) -> str | None:
        """Return why these parameters cannot run on a detector of these sizes, or None if they can."""

    @abc.abstractmethod
    def attach_frames(self, config: ViTDetConfig) -> FramePruner:
        """Return a pruner for such a detector."""

    def kept(self, config: ViTDetConfig) -> int | None:
        """Tokens that go on in each pruned frame; None where no frame is pruned, or the content decides."""
        return None

    @abc.abstractmethod
    def at_keep_frames(self, keep: float) -> Self:
        """Return this method with its native parameters set so that each pruned frame keeps the share `keep`.

        Dense frames come on top: how many there are is up to the lengths of segments. Raises UsageError where the
        method cannot keep so much, or so little.
        """


#: the pruner that prunes nothing
WHOLE_FRAMES = FramePruner()
