"""Hold cells to the baseline: what differs, what is new, what is gone, and what has become slower."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vpbench.commands.check import compare, speed
from vpbench.commands.check.baseline import Baseline
from vpbench.commands.check.cells import Cells, backbones, methods, units_of
from vpbench.commands.check.compare import Difference
from vpbench.commands.check.facts import Measured, Stored
from vpbench.commands.check.speed import Speed
from vpbench.errors import NothingMeasured, UsageError, explain

_INPUTS = "nothing of this backbone was compared; if other clips or weights are meant: vpbench check --update"


@dataclass
class Verdict:
    """What the gate says of one cell, named `backbone/method`.

    `state`: `ok`, `FAIL`, or `new` where the baseline has no such cell. `stored_time`: the baseline's ratio to dense.
    """

    key: str
    state: str = "ok"
    measured: Measured | None = None
    differences: list[Difference] = field(default_factory=list)
    note: str = ""
    hint: str = ""
    speed: Speed | None = None
    stored_time: float | None = None

    def fail(self, *differences: Difference) -> None:
        """Add differences; with any, the cell has failed."""
        self.differences += differences
        if self.differences:
            self.state = "FAIL"


@dataclass(frozen=True)
class Request:
    """What is asked for: methods and backbones by name, none for all there are.

    `results`: whether what cells keep, cost and answer is compared; `timing`: whether their times are.
    """

    methods: Sequence[str] = ()
    backbones: Sequence[str] = ()
    results: bool = True
    timing: bool = True

    def covers(self, key: str) -> bool:
        """Say whether a baseline's cell is part of the question."""
        backbone, _, method = key.partition("/")
        return (not self.methods or method in self.methods) and (not self.backbones or backbone in self.backbones)


def check(baseline: Baseline, asked: Request) -> list[Verdict]:
    """Compare all cells that are asked for; raises NothingMeasured where the baseline has none of them."""
    chosen, wanted = methods(asked.methods), backbones(asked.backbones)
    own = {key: cell for key, cell in baseline.cells.items() if asked.covers(key)}
    if not asked.results:
        own = {key: cell for key, cell in own.items() if cell.time is not None}
    if not own:
        known = ", ".join(sorted({key.partition("/")[2] for key in baseline.cells}))
        raise NothingMeasured(
            f"the baseline has none of the cells asked for, so that nothing can be compared; it has {known or 'none'}; "
            "add cells, and times, with --update"
        )
    verdicts: list[Verdict] = []
    for backbone in wanted:
        verdicts += _backbone(Cells(backbone), chosen, baseline.inputs.get(backbone, {}), own, asked)
    seen = {verdict.key for verdict in verdicts}
    return verdicts + [_gone(key, "there is no such cell any more") for key in own if key not in seen]


def _backbone(
    cells: Cells, chosen: Sequence[str], inputs: Mapping[str, str], own: Mapping[str, Stored], asked: Request
) -> list[Verdict]:
    here = [key for key in own if key.startswith(f"{cells.name}/")]
    if here and (changed := _inputs(cells, inputs)):
        return [Verdict(key, "FAIL", differences=[changed], hint=_INPUTS) for key in here]
    found: dict[str, Any] = {}
    judge = _verdict if asked.results else _ready
    verdicts = [v for method in chosen if (v := judge(cells, method, own, found)) is not None]
    if asked.timing:
        _time(cells, verdicts, found)
    dense_failed = any(v.key == cells.key("dense") and v.state == "FAIL" for v in verdicts)
    for verdict in verdicts:
        verdict.hint = compare.hint(verdict.differences, verdict.key, dense_failed)
    return verdicts


def _inputs(cells: Cells, stored: Mapping[str, str]) -> Difference | None:
    """Compare clips and weights: where they differ, all else does, and says nothing about methods."""
    for name, digest in cells.inputs().items():
        if digest != stored.get(name):
            expected = stored.get(name, "none")[:12]
            return Difference("inputs", f"other {name} than in the baseline: expected {expected}, found {digest[:12]}")
    return None


def _verdict(cells: Cells, method: str, own: Mapping[str, Stored], found: dict[str, Any]) -> Verdict | None:
    """Run and compare one cell; None where there is none, neither here nor in the baseline."""
    key = cells.key(method)
    stored = own.get(key)
    try:
        keep = cells.keep_of(method) if stored is None else stored.keep
        units = list(cells.units)[: cells.wanted] if stored is None else units_of(stored.clips)
        found[key], measured = cells.measure(method, keep, units)
    except UsageError as error:
        return None if stored is None else _gone(key, str(error))
    except Exception as error:  # whatever one method does, the others are still compared
        broken = Difference("broken", explain(error))
        return Verdict(key, "FAIL", differences=[broken])
    if stored is None:
        verdict = Verdict(key, "new", measured, note="not in the baseline; add it with --update")
        verdict.fail(*compare.kept_all(measured))
        return verdict
    verdict = Verdict(key, "ok", measured, stored_time=stored.time)
    verdict.fail(*compare.compare(measured, stored))
    return verdict


def _ready(cells: Cells, method: str, own: Mapping[str, Stored], found: dict[str, Any]) -> Verdict | None:
    """Attach a method whose time alone will be compared; None where the baseline has none."""
    key = cells.key(method)
    stored = own.get(key)
    if stored is None:
        return None
    try:
        found[key] = cells.attach(method, stored.keep)
    except UsageError as error:
        return _gone(key, str(error))
    return Verdict(key, stored_time=stored.time)


def _gone(key: str, reason: str) -> Verdict:
    difference = Difference("gone", f"the baseline has this cell, the program has not: {reason}")
    return Verdict(key, "FAIL", differences=[difference], hint=compare.hint([difference], key, False))


def _time(cells: Cells, verdicts: Sequence[Verdict], found: Mapping[str, Any]) -> None:
    """Time the cells that have a stored ratio; one that looks slower is timed once more, and that counts."""
    timed = {v.key: v for v in verdicts if v.stored_time is not None and v.key in found}
    first = speed.measure(cells, {key: found[key] for key in timed}, speed.ROUNDS)
    suspects = {key: found[key] for key, each in first.items() if each.slower(timed[key].stored_time or 0)}
    again = speed.measure(cells, suspects, speed.AGAIN)
    for key, verdict in timed.items():
        verdict.speed = again.get(key, first[key])
        stored = verdict.stored_time or 0
        if verdict.speed.noisy:
            verdict.note = f"noisy, {control(verdict.speed)}"
        if verdict.speed.slower(stored):
            verdict.fail(Difference("time", _slower(verdict.speed, stored)))


def control(found: Speed) -> str:
    """Say how far dense is from itself in the same rounds."""
    return f"A/A {found.control.lo:.2f} to {found.control.hi:.2f}"


def _slower(found: Speed, stored: float) -> str:
    return (
        f"time over dense: expected {stored:.3f}, found {found.ratio.value:.3f} "
        f"[{found.ratio.lo:.3f}, {found.ratio.hi:.3f}], in both of two measurements more than "
        f"{100 * speed.ALLOWED:.0f} % worse; {control(found)}"
    )
