"""Energy from counters, and from nothing else: NVIDIA's total counter or RAPL (docs/measurement.md, section 4)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vpbench.measure.gpu import Unavailable, gpu_of
from vpbench.rows.schema import Result

RAPL = Path("/sys/class/powercap")
#: GPU counters move every 100 ms and sample a part of the time: shorter work is not resolved
LEAST_S = 10.0


class Counter(Protocol):
    """Something that counts joules since some moment."""

    #: what is written into `energy_source`
    source: str

    def joules(self) -> float:
        """Return the count now; it only ever grows."""


@dataclass(frozen=True)
class Energy:
    """Joules per clip while working, and the same less what the machine draws while idle."""

    per_clip: float
    per_clip_net: float
    source: str


def measure(
    counter: Counter, work: Callable[[], int], idle_watts: float, *, least_s: float = LEAST_S,
    clock: Callable[[], float] = time.monotonic,
) -> Energy:  # fmt: skip
    """Repeat `work`, which returns the clips it did, for at least `least_s` seconds, and count its energy."""
    clips, began, before = 0, clock(), counter.joules()
    while (seconds := clock() - began) < least_s:
        clips += work()
    used = counter.joules() - before
    return Energy(used / clips, (used - idle_watts * seconds) / clips, counter.source)


def idle_watts(
    counter: Counter, *, seconds: float = LEAST_S, clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:  # fmt: skip
    """Return what is drawn while this process waits."""
    began, before = clock(), counter.joules()
    sleep(seconds)
    return (counter.joules() - before) / (clock() - began)


def columns(counter: Counter | None, reason: str, work: Callable[[], int], idle: float) -> Result:
    """Return the columns of the results table: joules, or no more than the reason why there are none."""
    if counter is None:
        return {"energy_source": f"none: {reason}"}
    found = measure(counter, work, idle)
    return {"j_per_clip": found.per_clip, "j_per_clip_net": found.per_clip_net, "energy_source": found.source}


def counter_of(device: str) -> tuple[Counter | None, str]:
    """Return the counter of a device ('cpu', 'cuda', 'cuda:1'), or None with the reason why there is none."""
    if not device.startswith("cuda"):
        return rapl()
    gpu, reason = gpu_of(device)
    if gpu is None:
        return None, reason
    try:
        gpu.joules()
    except Unavailable as error:
        return None, str(error)
    return gpu, ""


class Rapl:
    """The sum of all processor packages; each wraps around at a size of its own."""

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages
        self._limits = [int((package / "max_energy_range_uj").read_text()) for package in packages]
        self._last = self._read()
        self._total = 0
        self.source = f"RAPL, {len(packages)} package{'s' * (len(packages) > 1)}"

    def joules(self) -> float:
        """Return joules since this object was made; to be asked more often than a counter wraps (some minutes)."""
        now = self._read()
        steps = zip(now, self._last, self._limits, strict=True)
        self._total += sum(new - old if new >= old else new - old + limit for new, old, limit in steps)
        self._last = now
        return self._total / 1e6

    def _read(self) -> list[int]:
        return [int((package / "energy_uj").read_text()) for package in self._packages]


def rapl(root: Path = RAPL) -> tuple[Counter | None, str]:
    """Return the processor's counter, or None with the reason why it cannot be read."""
    packages = sorted(p for p in root.glob("intel-rapl:*") if p.name.count(":") == 1 and (p / "energy_uj").exists())
    if not packages:
        return None, f"no RAPL counter under {root} (virtual machines seldom have one)"
    try:
        return Rapl(packages), ""
    except OSError as error:
        return None, f"RAPL counter not readable ({error.strerror}); ask for read access to {packages[0]}/energy_uj"
