"""What is known of a checkpoint once its family is recognised: one shape for all families."""

import abc
from dataclasses import dataclass, replace
from typing import ClassVar

from vpbench import registry
from vpbench.backbones.checkpoints.names import SCORERS, Tensors, numbered
from vpbench.registry import Sizes


@dataclass(frozen=True)
class Recognised(abc.ABC):
    """A checkpoint under our names.

    `layout`: the one it came in. `tensors`: the backbone's, float32. `scorers`: of trained token selections, float32
    under their published names. `extras`: names of what was left aside because the backbone does not need it.
    """

    layout: str
    tensors: Tensors
    scorers: Tensors
    extras: tuple[str, ...]

    #: the classifier's weight `[classes, width]`, under our name
    head: ClassVar[str]
    #: what is known about the licence of weights of this family
    licence: ClassVar[str] = "not in the file; ask those who published the weights"

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.tensors[self.head].shape[0])

    @property
    def parameters(self) -> Tensors:
        """Everything that is kept: the backbone's tensors and the scorers."""
        return self.tensors | self.scorers

    @property
    @abc.abstractmethod
    def sizes(self) -> str:
        """The family and the sizes that tell its members apart, in words."""

    @abc.abstractmethod
    def fits(self, config: Sizes) -> bool:
        """Whether a backbone's sizes are those of this file, as far as they tell backbones apart."""

    def config(self, base: Sizes) -> Sizes:
        """Return the sizes of a backbone that this file fits, with what the file decides: classes, and maybe more."""
        return replace(base, classes=self.classes)

    def backbones(self) -> list[str]:
        """Names of the backbones of these sizes; whether every tensor fits, the model has to say."""
        return [name for name, entry in registry.backbones().items() if self.fits(entry.sizes)]

    def details(self) -> dict[str, str]:
        """Lines about what only this family has."""
        counts = {axis.partition("_")[0]: len(numbered(self.scorers, axis)) for axis in SCORERS}
        there = ", ".join(f"{axis} {count}" for axis, count in counts.items() if count)
        return {"scorers": f"STTS: {there}" if there else "none"}
