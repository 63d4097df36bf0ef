"""Which cells the gate has, and how one is run: its clips, and once with everything kept."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import nn

from vpbench import registry
from vpbench.backbones import loading
from vpbench.commands.check.facts import TOLERANCE, Facts, Measured, deviation, same
from vpbench.commands.check.units import SIZES, TIMED, Unit, clips_digest, decoded, facts_of, task_on
from vpbench.errors import UsageError, VpbenchError, near_matches
from vpbench.measure.rounds import Walk
from vpbench.plan import Cell
from vpbench.tasks.task import Attached

#: times that weights are shaken before a clip is called steady, and the size of the change of each
SHAKES, SHAKE = 2, 1e-6
#: keep ratio of methods whose defaults keep everything
KEEP = 0.5


def backbones(asked: Sequence[str]) -> list[str]:
    """Return the backbones with embedded weights, or those of them that are asked for; raises UsageError for others."""
    known = [name for name, entry in registry.backbones().items() if entry.weights is not None]
    for name in asked:
        if name not in known:
            raise UsageError(f"no embedded backbone {name!r}{near_matches(name, known)}")
    return [name for name in known if not asked or name in asked]


def methods(asked: Sequence[str]) -> list[str]:
    """Return all methods, or those that are asked for; raises UsageError for unknown ones."""
    for name in asked:
        registry.check("methods", name)
    return [name for name in registry.names("methods") if not asked or name in asked]


def units_of(clips: Iterable[str]) -> list[str]:
    """Return the units that stored clips, or frames of videos, come from."""
    return list(dict.fromkeys(clip.rpartition("/")[0] or clip for clip in clips))


class Cells:
    """The cells of one embedded backbone on its clips or videos, loaded once; raises UsageError for unknown names."""

    def __init__(self, backbone: str) -> None:
        self.name = backbone
        self.task = task_on(backbone)
        self.dense = self.attach("dense", None)
        self._dense_facts: dict[str, Mapping[str, Facts]] = {}

    @cached_property
    def units(self) -> dict[str, Unit]:
        """What a cell can be run on, on its own, by id."""
        return decoded(self.task)

    @property
    def wanted(self) -> int:
        """Units that a cell's baseline takes, of those there are."""
        return SIZES[self.task.name].wanted

    def key(self, method: str) -> str:
        """Name of a cell in baselines and reports."""
        return f"{self.name}/{method}"

    def inputs(self) -> dict[str, str]:
        """Return digests of the clips and the weights: where one differs, nothing else can be compared."""
        weights = loading.weights_digest(self.name, self.task.setting.weights)
        return {"clips": clips_digest(self.task), "weights": weights}

    def attach(self, method: str, keep: float | None) -> Attached:
        """Attach a method with its defaults, or at a keep ratio; raises UsageError where it cannot run here."""
        return self.task.attach(Cell("", "", self.task.setting, method, keep=keep))

    def facts(self, cell: Attached, unit: str) -> dict[str, Facts]:
        """Run a cell on one unit; returns the facts of its clips or frames by id."""
        return facts_of(self.task, cell, self.units[unit])

    def measure(self, method: str, keep: float | None, chosen: Sequence[str]) -> tuple[Attached, Measured]:
        """Run one cell on some units; raises UsageError where it cannot run on this backbone."""
        cell = self.attach(method, keep)
        clips = {name: facts for unit in chosen for name, facts in self.facts(cell, unit).items()}
        dense = {name: facts for unit in chosen for name, facts in self._dense(unit).items()}
        agree = sum(facts.answer == dense[name].answer for name, facts in clips.items()) / len(clips)
        kl = None  # boxes are no distribution
        if self.task.name == "recognition":
            kl = sum(_kl(dense[name], facts) for name, facts in clips.items()) / len(clips)
        params = dataclasses.asdict(cell.method)
        return cell, Measured(params, keep, agree, kl, self._kept_all(method), clips)

    def keep_of(self, method: str) -> float | None:
        """Return the keep ratio to check a method at: none, its defaults, unless these keep every token."""
        unit = next(iter(self.units))
        own, dense = self.facts(self.attach(method, None), unit), self._dense(unit)
        idle = method != "dense" and all(facts.tokens == dense[name].tokens for name, facts in own.items())
        return KEEP if idle else None

    def steady(self, method: str, keep: float | None) -> list[str]:
        """Return units on which nothing changes while weights are shaken: the first ones, as many as are wanted.

        Raises VpbenchError where there are too few.
        """
        cell, wanted = self.attach(method, keep), self.wanted
        left = {unit: self.facts(cell, unit) for unit in self.units}
        for seed in range(SHAKES):
            with shaken(self.task.session.backbone, seed):
                moved = {unit: self.facts(cell, unit) for unit in left}
            left = {unit: facts for unit, facts in left.items() if _alike(moved[unit], facts)}
        if len(left) < wanted:
            raise VpbenchError(
                f"{self.key(method)}: only {len(left)} of {len(self.units)} clips are steady under rounding, {wanted} "
                "are needed; break ties in the method by position, as a stable sort does"
            )
        return list(left)[:wanted]

    def walk(self, cell: Attached) -> Walk:
        """Return what the clock runs: the first clip, or the first frames of the first video, every time."""
        return self.task.walk(cell, self._timed, {})

    @cached_property
    def _timed(self) -> Unit:
        first = next(iter(self.units.values()))
        return first if self.task.name == "recognition" else [first[:TIMED]]

    def _dense(self, unit: str) -> Mapping[str, Facts]:
        if unit not in self._dense_facts:
            self._dense_facts[unit] = self.facts(self.dense, unit)
        return self._dense_facts[unit]

    def _kept_all(self, method: str) -> float | None:
        """Return how far the method that keeps everything is from dense on the first unit, None where it cannot."""
        try:
            whole = self.attach(method, 1.0)
        except UsageError:
            return None
        unit = next(iter(self.units))
        dense = self._dense(unit)
        return max(deviation(each.values, dense[name].values) for name, each in self.facts(whole, unit).items())


def _kl(dense: Facts, found: Facts) -> float:
    """Return KL(dense || cell) over the classes, in nats."""
    p, q = (torch.tensor(each.values, dtype=torch.float64).log_softmax(0) for each in (dense, found))
    return max(0.0, float((p.exp() * (p - q)).sum()))


def _alike(moved: Mapping[str, Facts], facts: Mapping[str, Facts]) -> bool:
    """Say whether a shaken unit did the same; half of the tolerance is left to what else may differ."""
    return all(same(moved[name], each, TOLERANCE / 2) for name, each in facts.items())


@contextmanager
def shaken(network: nn.Module, seed: int, amount: float = SHAKE) -> Iterator[None]:
    """Change every weight by about `amount` of itself, for a while; `SHAKE` is more than another order of sums does."""
    draw = torch.Generator().manual_seed(seed)
    kept = [(p, p.detach().clone()) for p in network.parameters() if p.is_floating_point()]
    with torch.no_grad():
        for parameter, _ in kept:
            parameter.mul_(1 + amount * torch.randn(parameter.shape, generator=draw))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)
