"""What a look through a dataset found: as lines to read, as JSON, as an exit code."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vpbench.commands.data.probe import Probe
from vpbench.commands.output import write_file

#: so many of each kind of fault are printed; a file gets all of them
SHOWN = 20


@dataclass
class Report:
    """Counts of `unit`, faults (missing, unreadable, contradictions) and what is merely remarkable (remarks).

    `readable` is None where nothing was opened, `expected` where the list is too wrong to be counted. `stopped`: the
    user ended the look early, so that the counts are of what was seen until then.
    """

    dataset: str
    split: str
    root: str
    unit: str
    expected: int | None = None
    found: int = 0
    readable: int | None = None
    from_index: int = 0
    list_digest: str | None = None
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    summary: dict[str, str] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)
    stopped: bool = False

    @property
    def faults(self) -> dict[str, list[str]]:
        """What makes the copy differ from its list, by kind."""
        return {"missing": self.missing, "unreadable": self.unreadable, "contradictory": self.contradictions}

    @property
    def exit_code(self) -> int:
        """0 all there, 1 something is wrong, 3 nothing of it is there, 130 stopped by the user."""
        if self.stopped:
            return 130
        if not self.found and not self.contradictions:
            return 3
        return int(any(self.faults.values()))

    def lines(self) -> Iterator[str]:
        """Yield the report as text."""
        yield f"{self.dataset} {self.split} in {self.root}" + (" (stopped early)" if self.stopped else "")
        for name, count in self._counts().items():
            yield f"  {name:<13} {count}"
        for name, text in self.summary.items():
            yield f"  {name:<13} {text}"
        for name, found in {**self.faults, "note": self.remarks}.items():
            for line in found[:SHOWN]:
                yield f"{name}: {line}"
            if len(found) > SHOWN:
                yield f"{name}: and {len(found) - SHOWN} more (--json FILE lists all)"
        yield from self.advice

    def _counts(self) -> dict[str, str]:
        expected = "unknown, the list is wrong" if self.expected is None else f"{self.expected} {self.unit}"
        known = f" ({self.from_index} of them by the index)" if self.from_index else ""
        readable = "not opened (--quick)" if self.readable is None else f"{self.readable}{known}"
        kinds = {name: str(len(found)) for name, found in self.faults.items()}
        digest = {} if self.list_digest is None else {"list digest": self.list_digest}
        return {"expected": expected, "found": str(self.found), "readable": readable, **kinds, **digest}

    def write(self, path: Path) -> None:
        """Write everything as JSON; raises VpbenchError where that cannot be."""
        content = {**asdict(self), "exit_code": self.exit_code}
        write_file(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n", "--json")


#: so many different values are named; the rest is counted
NAMED = 5


def summary(probes: Sequence[Probe]) -> dict[str, str]:
    """Describe the videos that could be read."""
    sound = [probe for probe in probes if probe.error is None]
    if not sound:
        return {}
    return {
        "frame rate": _most_common("unknown" if each.fps is None else f"{each.fps:.4g}/s" for each in sound),
        "size": _most_common(f"{each.width}x{each.height}" for each in sound),
        "frames": spread([float(each.frames) for each in sound if each.frames is not None], ""),
        "duration": spread([each.seconds for each in sound if each.seconds is not None], " s"),
        "codec": _most_common(each.codec or "unknown" for each in sound),
    }


def spread(values: Sequence[float], unit: str) -> str:
    """Return the smallest, the middle and the largest of some values."""
    if not values:
        return "unknown"
    ordered = sorted(values)
    low, middle, high = (f"{value:.4g}" for value in (ordered[0], ordered[len(ordered) // 2], ordered[-1]))
    return f"{low} to {high}{unit}, median {middle}{unit}"


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    named = [f"{value} ({count})" for value, count in counts.most_common(NAMED)]
    rest = sum(counts.values()) - sum(count for _, count in counts.most_common(NAMED))
    return ", ".join(named) + (f" and {len(counts) - NAMED} others ({rest})" if rest else "")
