"""What is known of a checkpoint once its family is recognised: one shape for all families."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from vpbench import registry
from vpbench.backbones.checkpoints.names import SCORERS, Tensors, numbered
from vpbench.registry import Sizes


@dataclass(frozen=True)
class Recognised(abc.ABC):
    """A checkpoint under our names.

    `layout`: the one it came in. `tensors`: the backbone's, float32. `scorers`: of trained token selections, float32
    under their published names. `extras`: names of what was left aside because the backbone does not need it. `stated`:
    sizes that no tensor shows and that are written down beside them, by the names of their fields.
    """

    layout: str
    tensors: Tensors
    scorers: Tensors
    extras: tuple[str, ...]
    stated: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    #: the classifier's weight `[classes, width]`, under our name
    head: ClassVar[str]
    #: what to do where sizes cannot be told from tensors alone, behind "no backbone here has these sizes"
    unsaid: ClassVar[str] = ""
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

    def config(self, base: Sizes, frames: int | None = None, size: int | None = None) -> Sizes:
        """Return the sizes of a backbone that this file fits, with what the file decides: classes, and maybe more.

        frames, size: of the clips that are asked for, where they tell which of several sizes the file is of. Raises
        UsageError where nothing tells.
        """
        return replace(base, classes=self.classes)

    def backbones(self) -> list[str]:
        """Names of the backbones of these sizes, or that of the sizes themselves where all of them are stated.

        Whether every tensor fits, the model has to say.
        """
        known = [name for name, entry in registry.backbones().items() if self.fits(entry.sizes)]
        return known or [registry.sized_name(each) for each in (self.own_sizes(),) if each is not None]

    def own_sizes(self) -> Sizes | None:
        """Return the sizes that tensors show and that are stated, None where they are not all there."""
        return None

    def details(self) -> dict[str, str]:
        """Lines about what only this family has."""
        counts = {axis.partition("_")[0]: len(numbered(self.scorers, axis)) for axis in SCORERS}
        there = ", ".join(f"{axis} {count}" for axis, count in counts.items() if count)
        return {"scorers": f"STTS: {there}" if there else "none"}
