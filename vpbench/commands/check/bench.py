"""Where cells of the gate run: one embedded backbone with its clips, loaded once."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from vpbench.api import Backbone, Clip
from vpbench.backbones import loading
from vpbench.commands.check.facts import Facts
from vpbench.plan import Cell, Setting, options
from vpbench.run import resolve
from vpbench.tasks.attach import attach
from vpbench.tasks.task import Attached

#: size of the change of each weight that emulates another CPU's rounding
SHAKE = 1e-6


class Bench(abc.ABC):
    """One backbone and the clips (or videos, for detectors) that its cells see."""

    def __init__(self, backbone: str, dataset: str, pool: int) -> None:
        self.name = backbone
        # one thread: how work is split between threads changes the order of sums
        asked = {"method": ("dense",), "backbone": backbone, "dataset": dataset, "split": "ci", "limit": pool}
        self.setting: Setting = resolve.resolve(options(asked | {"threads": 1}))[0]

    def candidate(self, method: str, keep: float | None) -> Attached:
        """Attach a method with its defaults, or at a keep ratio; raises UsageError where it cannot run here."""
        return attach(Cell("", "", self.setting, method, keep=keep), self.network, self.calibration, {})

    def inputs(self) -> dict[str, str]:
        """Return digests of the clips and the weights: where one differs, nothing else can be compared."""
        weights = loading.weights_digest(self.name, self.setting.weights)
        return {"clips": self.clips_digest(), "weights": weights}

    @abc.abstractmethod
    def clips_digest(self) -> str:
        """Return the digest of what is seen: which clips in which order, and what is in them."""

    #: clips that parameters are derived from
    calibration: Sequence[Clip] = ()

    @property
    @abc.abstractmethod
    def network(self) -> Backbone:
        """The backbone."""

    @property
    @abc.abstractmethod
    def units(self) -> Sequence[str]:
        """Ids of what a cell can be run on, on its own."""

    @property
    @abc.abstractmethod
    def wanted(self) -> int:
        """Units that a cell's baseline takes, of those there are."""

    @abc.abstractmethod
    def facts(self, candidate: Attached, unit: str) -> dict[str, Facts]:
        """Run a cell on one unit; returns the facts of its clips or frames by id."""

    def unit_of(self, clip: str) -> str:
        """Return the unit that a clip or frame comes from."""
        return clip.rpartition("/")[0] or clip

    @abc.abstractmethod
    def kept_all(self, candidate: Attached, dense: Mapping[str, Facts]) -> float:
        """Return how far a cell that keeps everything is from dense, on the first unit."""

    @abc.abstractmethod
    def agrees(self, found: Facts, dense: Facts) -> bool:
        """Say whether a cell and dense give the same answer."""

    @abc.abstractmethod
    def kl(self, found: Facts, dense: Facts) -> float | None:
        """Return KL(dense || cell) in nats, None where the answer is no distribution."""

    @abc.abstractmethod
    def timed(self, candidate: Attached) -> Callable[[int], object]:
        """Return what the clock runs: the same clip, or frames, every time."""


@contextmanager
def shaken(network: nn.Module, seed: int) -> Iterator[None]:
    """Change every weight by about `SHAKE` of itself, for a while: more than what another order of sums changes."""
    draw = torch.Generator().manual_seed(seed)
    kept = [(p, p.detach().clone()) for p in network.parameters() if p.is_floating_point()]
    with torch.no_grad():
        for parameter, _ in kept:
            parameter.mul_(1 + SHAKE * torch.randn(parameter.shape, generator=draw))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)
