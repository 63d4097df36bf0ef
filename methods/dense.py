"""No pruning: the reference that every other method is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from vpbench.api import SITES, Backbone, Clip, Flow, Method, Pruner, UsageError


@dataclass(frozen=True)
class Dense(Method):
    """Every token, every layer."""

    reference = "control"
    flows: ClassVar[frozenset[Flow]] = frozenset(SITES)

    def attach(self, backbone: Backbone) -> Pruner:
        """Return a pruner that leaves everything as it is."""
        return Pruner()

    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Dense keeps everything; any other ratio is refused."""
        if keep != 1.0:
            raise UsageError(f"dense keeps every token; keep {keep:g} is not possible")
        return self
