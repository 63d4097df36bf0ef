"""No pruning: the reference that every other method is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from vpbench.api import Backbone, Clip, FrameMethod, FramePruner, Method, Pruner, UsageError
from vpbench.backbones.vitdet_config import ViTDetConfig


@dataclass(frozen=True)
class Dense(Method, FrameMethod):
    """Every token, every layer."""

    reference = "control"
    keeps_grid = True

    def attach(self, backbone: Backbone) -> Pruner:
        """Return a pruner that leaves everything as it is."""
        return Pruner()

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Dense keeps everything; any other ratio is refused."""
        return self._only_all(keep)

    def _only_all(self, keep: float) -> Self:
        if keep != 1.0:
            raise UsageError(f"dense keeps every token; keep {keep:g} is not possible")
        return self

    def supports_frames(self, config: ViTDetConfig) -> str | None:
        """Refuse nothing."""
        return None

    def attach_frames(self, config: ViTDetConfig) -> FramePruner:
        """Return a pruner that leaves every frame as it is."""
        return FramePruner()

    def at_keep_frames(self, keep: float) -> Self:
        """Do as `at_keep`."""
        return self._only_all(keep)
