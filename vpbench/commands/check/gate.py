"""Hold cells to the baseline: what differs, what is new, what is gone, and what has become slower."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vpbench.commands.check import compare, speed
from vpbench.commands.check.against import Turns
from vpbench.commands.check.baseline import Baseline
from vpbench.commands.check.cells import Cells, backbones, methods, units_of
from vpbench.commands.check.compare import Difference
from vpbench.commands.check.facts import Measured, Stored
from vpbench.commands.check.speed import Speed
from vpbench.errors import NothingMeasured, UsageError, explain
from vpbench.progress import say

_INPUTS = "nothing of this backbone was compared; if other clips or weights are meant: vpbench check --update"


@dataclass
class Verdict:
    """What the gate says of one cell, named `backbone/method`.

    `state`: `ok`, `FAIL`, or `new` where the baseline has no such cell. `expected_time`: what its time is held to, the
    baseline's ratio to dense, or 1 where it is over that of another commit; `beside`: that commit.
    """

    key: str
    state: str = "ok"
    measured: Measured | None = None
    differences: list[Difference] = field(default_factory=list)
    note: str = ""
    hint: str = ""
    speed: Speed | None = None
    expected_time: float | None = None
    beside: str = ""

    def fail(self, *differences: Difference) -> None:
        """Add differences; with any, the cell has failed."""
        self.differences += differences
        if self.differences:
            self.state = "FAIL"


@dataclass(frozen=True)
class Request:
    """What is asked for: methods and backbones by name, none for all there are.

    `results`: whether what cells keep, cost and answer is compared; `timing`: whether their times are, with those of
    the baseline or, with `turns`, of another commit. `strict`: cells that the baseline lacks have failed.
    """

    methods: Sequence[str] = ()
    backbones: Sequence[str] = ()
    results: bool = True
    timing: bool = True
    turns: Turns | None = None
    strict: bool = False

    def covers(self, key: str) -> bool:
        """Say whether a baseline's cell is part of the question."""
        backbone, _, method = key.partition("/")
        return (not self.methods or method in self.methods) and (not self.backbones or backbone in self.backbones)


def check(baseline: Baseline, asked: Request) -> list[Verdict]:
    """Compare all cells that are asked for; raises NothingMeasured where the baseline has none of them."""
    chosen, wanted = methods(asked.methods), backbones(asked.backbones)
    own = {key: cell for key, cell in baseline.cells.items() if asked.covers(key)}
    if asked.turns is None and asked.timing and not _same_machine(baseline, own):
        own = {key: dataclasses.replace(cell, time=None) for key, cell in own.items()}
    if not asked.results and asked.turns is None:
        timed = {key: cell for key, cell in own.items() if cell.time is not None}
        if own and not timed:
            raise NothingMeasured(
                "the baseline holds no times of this machine for these cells: add times, with --update"
            )
        own = timed
    if not own and not asked.strict:
        known = ", ".join(sorted({key.partition("/")[2] for key in baseline.cells}))
        raise NothingMeasured(
            f"the baseline has none of the cells asked for, so that nothing can be compared; it has {known or 'none'}; "
            "add cells, and times, with --update"
        )
    verdicts: list[Verdict] = []
    for backbone in wanted:
        verdicts += _backbone(Cells(backbone), chosen, baseline.inputs.get(backbone, {}), own, asked)
    if not own and not verdicts:  # strict, and none that could be missed
        raise NothingMeasured("none of the methods asked for runs on these backbones")
    seen = {verdict.key for verdict in verdicts}
    return verdicts + [_gone(key, "there is no such cell any more") for key in own if key not in seen]


def _same_machine(baseline: Baseline, own: Mapping[str, Stored]) -> bool:
    """Whether a baseline's times are this machine's; says so where there are some, and they are not."""
    differs = speed.of_another_machine(baseline.written, speed.versions())
    if differs and any(cell.time is not None for cell in own.values()):
        say(f"the baseline's times are of another {differs}, and are not compared; --against REF times both here")
    return differs is None


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
        _time(cells, verdicts, found, asked.turns)
    for verdict in (each for each in verdicts if asked.strict and each.state == "new"):
        verdict.fail(Difference("missing", "the baseline has no such cell"))
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
    verdict = Verdict(key, "ok", measured, expected_time=stored.time)
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
    return Verdict(key, expected_time=stored.time)


def _gone(key: str, reason: str) -> Verdict:
    difference = Difference("gone", f"the baseline has this cell, the program has not: {reason}")
    return Verdict(key, "FAIL", differences=[difference], hint=compare.hint([difference], key, False))


def _time(cells: Cells, verdicts: Sequence[Verdict], found: Mapping[str, Any], turns: Turns | None) -> None:
    """Time the cells that have an expected ratio; one that looks slower is timed once more, and that counts."""
    measure = speed.measure if turns is None else turns.measure
    if turns is not None:
        for verdict in verdicts:
            verdict.expected_time, verdict.beside = 1.0, turns.ref
    timed = {v.key: v for v in verdicts if v.expected_time is not None and v.key in found}
    first = measure(cells, {key: found[key] for key in timed}, speed.ROUNDS)
    suspects = {key: found[key] for key, each in first.items() if each.slower(timed[key].expected_time or 0)}
    again = measure(cells, suspects, speed.AGAIN)
    for key, verdict in timed.items():
        if key not in first:
            verdict.expected_time, verdict.note = (
                None,
                f"{verdict.beside} has no such cell, so its time is not compared",
            )
            continue
        verdict.speed = again.get(key, first[key])
        stored = verdict.expected_time or 0
        if verdict.speed.noisy:
            verdict.note = f"noisy, {control(verdict.speed)}"
        if verdict.speed.slower(stored):
            verdict.fail(Difference("time", _slower(verdict.speed, stored, verdict.beside)))


def control(found: Speed) -> str:
    """Say how far dense is from itself in the same rounds."""
    return f"A/A {found.control.lo:.2f} to {found.control.hi:.2f}"


def _slower(found: Speed, stored: float, beside: str) -> str:
    what = f"time over that at {beside}" if beside else "time over dense"
    return (
        f"{what}: expected {stored:.3f}, found {found.ratio.value:.3f} "
        f"[{found.ratio.lo:.3f}, {found.ratio.hi:.3f}], in both of two measurements more than "
        f"{100 * speed.ALLOWED:.0f} % worse; {control(found)}"
    )
