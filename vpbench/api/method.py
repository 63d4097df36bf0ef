"""What a method is: parameters that attach to a backbone."""

import abc
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import ClassVar, Self

import torch

from vpbench import registry
from vpbench.api.backbone import Backbone
from vpbench.api.pruner import Pruner
from vpbench.data import Clip
from vpbench.errors import UsageError, VpbenchError
from vpbench.registry import Flow


@dataclass(frozen=True)
class Method(abc.ABC):
    """Parameters of a pruning method. A subclass is a frozen dataclass in a file named like the method."""

    #: paper, year and licence of the published code; "control" where there is no paper
    reference: ClassVar[str]
    #: flows of tokens that it can prune; asked before anything is decoded or calibrated
    flows: ClassVar[frozenset[Flow]] = frozenset({"stream", "steps"})
    #: whether the token count follows the content of the clip, so that it has to be asked for
    adaptive: ClassVar[bool] = False
    #: whether it runs on a backbone as it was trained, without parts trained for the method
    training_free: ClassVar[bool] = True
    #: methods that select as much with the same parameters, but without looking; named `<method>_random`, `_uniform`.
    #: They come along wherever `random` cannot: on grids of tokens and on detectors
    controls: ClassVar[tuple[str, ...]] = ()
    #: parameters that `at_keep` sets, so that a request for a keep ratio and for one of them is refused when planned
    set_by_keep: ClassVar[tuple[str, ...]] = ()
    #: why no backbone is trained with it at work; empty where it can be
    untrainable: ClassVar[str] = ""

    def supports(self, backbone: Backbone) -> str | None:
        """Return why these parameters cannot run on this backbone, or None if they can."""
        return None

    @abc.abstractmethod
    def attach(self, backbone: Backbone) -> Pruner:
        """Return a pruner for this backbone."""

    def attach_like(self, backbone: Backbone, counts: Mapping[str, int]) -> Pruner:
        """Return a pruner that keeps `counts[clip_id]` tokens of each clip; only `random`, the control, can."""
        raise UsageError(f"{type(self).__name__} cannot copy another method's token counts")

    @abc.abstractmethod
    def at_keep(self, keep: float, backbone: Backbone, calibration: Sequence[Clip]) -> Self:
        """Return this method with its native parameters set so that about `keep` of the tokens are left.

        In the flow `frames` that is the share of each pruned frame; dense frames come on top, and how many there are is
        up to the lengths of segments. Raises UsageError where the method cannot go that low, or that high.
        """


def load_method(name: str) -> type[Method]:
    """Import one method's class; raises UsageError for unknown names, VpbenchError for one that is broken."""
    found: type[Method] = registry.load("methods", name, (Method,))
    if not is_dataclass(found) or "reference" not in vars(found):
        where = registry.source("methods", name)
        raise VpbenchError(f"method {name!r} ({where}) must be a frozen dataclass with a `reference`")
    return found


def clip_generator(seed: int, clip_id: str) -> torch.Generator:
    """Return a random generator that depends on nothing but (seed, clip id)."""
    return _generator(seed, clip_id)


def draw_uncompiled() -> None:
    """Tell torch to leave the drawing of generators alone, before anything is compiled: hashing is for the host."""
    global _generator
    _generator = torch.compiler.disable(_hashed)  # loads the compiler, which takes seconds


def _hashed(seed: int, clip_id: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}\0{clip_id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


_generator = _hashed


def stage_blocks(depth: int) -> tuple[int, int, int]:
    """Return the blocks (from 0) a quarter, a half and three quarters down: 3, 6, 9 of 12, as in EViT and Top-K."""
    return depth // 4, depth // 2, 3 * depth // 4
