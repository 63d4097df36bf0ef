"""Where a method can act on a detector that looks at videos frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vpbench.backbones.detection.head import Detections


class FramePruner:
    """A method attached to one detector and to B segments in lockstep. The base class keeps every token."""

    #: set to a dict to have the method's intermediate values of each frame written into it
    record: dict[str, Tensor] | None = None

    def restart(self) -> None:
        """Forget everything: the next frame is the first of new segments."""

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

    def macs(self, kept: int | None) -> int:
        """Multiply-accumulates of the method's own work on one frame of one segment of which it kept so many tokens."""
        return 0

    def published_macs(self, kept: int | None) -> int:
        """Do as `macs`, but count what the published code executes where ours takes a shorter way."""
        return self.macs(kept)

    def note(self, name: str, value: Tensor) -> None:
        """Write an intermediate value into `record`, where somebody asked for it."""
        if self.record is not None:
            self.record[name] = value


#: the pruner that prunes nothing
WHOLE_FRAMES = FramePruner()
