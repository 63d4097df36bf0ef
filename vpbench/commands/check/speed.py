"""Time of methods over dense's, in interleaved rounds in one process; never milliseconds."""

import hashlib
import platform
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vpbench.commands.check.cells import Cells
from vpbench.measure import clock, machine
from vpbench.measure.rounds import BLOCK, MODEL, TWIN
from vpbench.rows.statistics.intervals import Interval, median_interval
from vpbench.tasks.task import Attached

#: rounds of a comparison; of its repetition, where it looks slower; of a baseline, whose error all comparisons share
ROUNDS, AGAIN, BASELINE_ROUNDS = 20, 40, 60
#: share by which a method may become slower
ALLOWED = 0.15
#: half the width that the interval of dense against itself may have before timings are called noisy
QUIET = 0.02
_DENSE = "dense"


@dataclass(frozen=True)
class Speed:
    """A method's time over dense's, with its 95 % interval, and dense's over its own, timed in the same rounds.

    `fastest`: its fastest round over dense's fastest.
    """

    ratio: Interval
    control: Interval
    fastest: float

    @property
    def noisy(self) -> bool:
        """Whether the clock cannot tell dense from itself within `QUIET`."""
        wide = (self.control.hi - self.control.lo) / 2 > QUIET
        return wide or not self.control.lo <= 1 <= self.control.hi

    def slower(self, stored: float) -> bool:
        """Say whether even the favourable end of the interval is worse than the stored ratio by more than allowed.

        Where timings are noisy the fastest rounds must be so as well: other work on the machine slows some methods more
        than dense (many short steps, say), all the time, but it seldom takes part in every round.
        """
        most = (1 + ALLOWED) * stored
        return self.ratio.lo > most and (not self.noisy or self.fastest > most)


def measure(cells: Cells, found: Mapping[str, Attached], rounds: int) -> dict[str, Speed]:
    """Time attached cells beside dense, block by block, each block with a control of its own."""
    names, speeds = list(found), dict[str, Speed]()
    for start in range(0, len(names), BLOCK):
        speeds |= _block(cells, {name: found[name] for name in names[start : start + BLOCK]}, rounds)
    return speeds


def _block(cells: Cells, found: Mapping[str, Attached], rounds: int) -> dict[str, Speed]:
    beside = {_DENSE: cells.dense, TWIN: cells.dense, **found}
    variants = {name: cells.walk(cell).scopes[MODEL] for name, cell in beside.items()}
    # the order of rounds is seeded by the block's content, so that a repeated run repeats it
    draw = np.random.default_rng(zlib.crc32(",".join(variants).encode()))
    synchronize = clock.synchronizer("cpu")
    with torch.inference_mode():
        clock.time_rounds(variants, 2, draw, synchronize)  # warm caches and allocator; not read
        samples = clock.time_rounds(variants, rounds, draw, synchronize)
    return {name: speed(samples, name) for name in found}


def speed(samples: Sequence[clock.Sample], name: str) -> Speed:
    """Compare one configuration, and the second dense, with dense in the same rounds."""
    took = {key: np.array([s.wall_ns for s in samples if s.name == key]) for key in (_DENSE, TWIN, name)}
    process = np.zeros(len(took[_DENSE]))
    ratio, control = (median_interval(took[key] / took[_DENSE], process) for key in (name, TWIN))
    return Speed(ratio, control, float(took[name].min() / took[_DENSE].min()))


def versions() -> dict[str, str]:
    """Say what a baseline is made with: to find the cause of a difference, and whose times are in it."""
    found = machine.snapshot()
    host = hashlib.sha256(f"{platform.node()} {uuid.getnode()}".encode()).hexdigest()[:12]
    return {
        "cpu": found.cpu_name, "isa": found.isa_level, "torch": torch.__version__, "python": found.python_version,
        "machine": host,
    }  # fmt: skip


def of_another_machine(written: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """Return in what the machine that wrote times differs from this one, None where it is the same."""
    return next((name for name in ("machine", "cpu", "isa", "torch") if written.get(name) != here[name]), None)
