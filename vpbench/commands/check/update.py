"""Write the baseline anew, and say what changes: entries that still hold are left as they are."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from vpbench.commands.check import compare, speed
from vpbench.commands.check.baseline import Baseline
from vpbench.commands.check.cells import Cells, backbones, methods
from vpbench.commands.check.facts import Measured, Stored, stored
from vpbench.commands.check.gate import Request
from vpbench.commands.check.speed import Speed
from vpbench.errors import UsageError

#: digits of a ratio of times
_DIGITS = 3


def update(old: Baseline, asked: Request) -> tuple[Baseline, list[str]]:
    """Return the baseline with all cells that are asked for measured anew, and what changed, a line each.

    Cells that cannot run any more are dropped. Raises VpbenchError for a method that fails, and where single methods
    are asked for although the clips are others.
    """
    here, inputs = speed.versions(), dict(old.inputs)
    if speed.of_another_machine(old.written, here):  # its times would pass for this machine's
        untimed = {key: dataclasses.replace(cell, time=None) for key, cell in old.cells.items()}
        old = dataclasses.replace(old, cells=untimed)
    fresh: dict[str, Stored] = {}
    for backbone in backbones(asked.backbones):
        cells = Cells(backbone)
        inputs[backbone] = _inputs(cells, old, asked)
        fresh |= _backbone(cells, methods(asked.methods), old, asked.timing)
    rest = {key: cell for key, cell in old.cells.items() if not asked.covers(key)}
    inputs = {name: each for name, each in inputs.items() if any(k.startswith(f"{name}/") for k in rest | fresh)}
    changes = list(_changes(old, fresh, asked, inputs))
    return Baseline(here if changes else old.written, inputs, rest | fresh), changes


def _inputs(cells: Cells, old: Baseline, asked: Request) -> dict[str, str]:
    """Return the digests of clips and weights; where they changed, entries that would stay are about other ones."""
    found, name = cells.inputs(), cells.name
    if asked.methods and old.inputs.get(name, found) != found:
        raise UsageError(f"clips or weights of {name} changed, for all methods alike; leave --method out")
    return found


def _backbone(cells: Cells, chosen: list[str], old: Baseline, timing: bool) -> dict[str, Stored]:
    found: dict[str, Any] = {}
    measured: dict[str, Measured] = {}
    for method in chosen:
        try:
            keep = cells.keep_of(method)
        except UsageError:
            continue  # no cell: the method cannot run on this backbone
        key = cells.key(method)
        found[key], measured[key] = cells.measure(method, keep, cells.steady(method, keep))
    timed = {key: cell for key, cell in found.items() if key != cells.key("dense")} if timing else {}
    speeds = speed.measure(cells, timed, speed.BASELINE_ROUNDS)
    return {key: _entry(each, old.cells.get(key), speeds.get(key)) for key, each in measured.items()}


def _entry(found: Measured, old: Stored | None, timed: Speed | None) -> Stored:
    """Return a cell's entry: the old one where all of it still holds, so that files differ only where cells do."""
    before = None if old is None else old.time
    time = before if timed is None else round(timed.ratio.value, _DIGITS)
    if timed is not None and before is not None and timed.ratio.lo <= before <= timed.ratio.hi:
        time = before
    entry = stored(found, time)
    if old is not None and old.time == time and not _differs(found, entry, old):
        return old
    return entry


def _differs(found: Measured, entry: Stored, old: Stored) -> bool:
    if list(found.clips) != list(old.clips) or (entry.keep, entry.keeps_all) != (old.keep, old.keeps_all):
        return True
    return bool(compare.compare(found, old))


def _changes(
    old: Baseline, fresh: Mapping[str, Stored], asked: Request, inputs: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    for backbone, digests in inputs.items():
        before = old.inputs.get(backbone, {})
        for name in (name for name, digest in digests.items() if before.get(name) not in (None, digest)):
            yield f"changed  {backbone}: other {name}"
    for key in sorted({*fresh, *(key for key in old.cells if asked.covers(key))}):
        if key not in fresh:
            yield f"removed  {key}"
        elif key not in old.cells:
            whole = (
                "" if fresh[key].keeps_all else "; not compared with dense at keep 1, which it cannot or does not equal"
            )
            yield f"added    {key}{whole}"
        elif fresh[key] != old.cells[key]:
            yield f"changed  {key}: {'; '.join(_changed(fresh[key], old.cells[key]))}"


def _changed(new: Stored, old: Stored) -> Iterator[str]:
    """Name the parts of an entry that are not as they were, each with an example."""
    if new.keep != old.keep:
        yield f"keep {old.keep} -> {new.keep}"
    if list(new.clips) == list(old.clips):
        kinds = {d.kind: d.text for d in compare.compare_clips(new, old)}
        yield from kinds.values()
    else:
        yield f"clips {len(old.clips)} -> {len(new.clips)}, of which {len(new.clips.keys() & old.clips)} as before"
    for name in ("agree_at_least", "kl_at_most", "keeps_all", "time"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield f"{name} {before} -> {now}"
