"""Which cells the gate has, and how one is run: its clips, and once with everything kept."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vpbench import registry
from vpbench.commands.check.bench import Bench, shaken
from vpbench.commands.check.clip_bench import ClipBench
from vpbench.commands.check.facts import TOLERANCE, Facts, Measured, same
from vpbench.commands.check.frame_bench import FrameBench
from vpbench.errors import UsageError, VpbenchError, near_matches
from vpbench.tasks.task import Attached

#: times that weights are shaken before a clip is called steady
SHAKES = 2
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


def bench_of(backbone: str) -> Bench:
    """Load a backbone with the clips it is checked on."""
    return FrameBench(backbone) if registry.backbone(backbone).task == "detection" else ClipBench(backbone)


@dataclass
class Cells:
    """The cells of one backbone; `dense_facts`: what dense does on the clips that were needed so far."""

    bench: Bench
    dense_facts: dict[str, Facts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dense = self.bench.candidate("dense", None)

    def key(self, method: str) -> str:
        """Name of a cell in baselines and reports."""
        return f"{self.bench.name}/{method}"

    def measure(self, method: str, keep: float | None, units: Sequence[str]) -> tuple[Attached, Measured]:
        """Run one cell on some units; raises UsageError where it cannot run on this backbone."""
        cell = self.bench.candidate(method, keep)
        clips = {name: facts for unit in units for name, facts in self.bench.facts(cell, unit).items()}
        dense = {name: facts for unit in units for name, facts in self._dense(unit).items()}
        agree = sum(self.bench.agrees(facts, dense[name]) for name, facts in clips.items()) / len(clips)
        kls = [kl for name, facts in clips.items() if (kl := self.bench.kl(facts, dense[name])) is not None]
        kl = sum(kls) / len(kls) if kls else None
        params = dataclasses.asdict(cell.method)
        return cell, Measured(params, keep, agree, kl, self._kept_all(method), clips)

    def keep_of(self, method: str) -> float | None:
        """Return the keep ratio to check a method at: none, its defaults, unless these keep every token."""
        unit = self.bench.units[0]
        own, dense = self.bench.facts(self.bench.candidate(method, None), unit), self._dense(unit)
        idle = method != "dense" and all(facts.tokens == dense[name].tokens for name, facts in own.items())
        return KEEP if idle else None

    def steady(self, method: str, keep: float | None) -> list[str]:
        """Return units on which nothing changes while weights are shaken: the first ones, as many as are wanted.

        Raises VpbenchError where there are too few.
        """
        cell, units, wanted = self.bench.candidate(method, keep), self.bench.units, self.bench.wanted
        left = {unit: self.bench.facts(cell, unit) for unit in units}
        for seed in range(SHAKES):
            with shaken(self.bench.network, seed):
                moved = {unit: self.bench.facts(cell, unit) for unit in left}
            left = {unit: facts for unit, facts in left.items() if _alike(moved[unit], facts)}
        if len(left) < wanted:
            raise VpbenchError(
                f"{self.key(method)}: only {len(left)} of {len(units)} clips are steady under rounding, {wanted} are "
                "needed; break ties in the method by position, as a stable sort does"
            )
        return list(left)[:wanted]

    def units_of(self, clips: Mapping[str, Facts]) -> list[str]:
        """Return the units that stored clips come from."""
        return list(dict.fromkeys(map(self.bench.unit_of, clips)))

    def _dense(self, unit: str) -> Mapping[str, Facts]:
        own = {name: facts for name, facts in self.dense_facts.items() if self.bench.unit_of(name) == unit}
        if not own:
            own = self.bench.facts(self.dense, unit)
            self.dense_facts |= own
        return own

    def _kept_all(self, method: str) -> float | None:
        try:
            whole = self.bench.candidate(method, 1.0)
        except UsageError:
            return None
        return self.bench.kept_all(whole, self._dense(self.bench.units[0]))


def _alike(moved: Mapping[str, Facts], facts: Mapping[str, Facts]) -> bool:
    """Say whether a shaken unit did the same; half of the tolerance is left to what else may differ."""
    return all(same(moved[name], each, TOLERANCE / 2) for name, each in facts.items())
