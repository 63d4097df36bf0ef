"""Can the clock be trusted? Dense against itself, and against itself with a planted slowdown, again and again.

    python benchmarks/aa_control.py                     20 repetitions alone, 20 beside a busy loop: half an hour
    python benchmarks/aa_control.py --quiet 1 --loaded 1 --profile ci

The machine must be idle otherwise. Each repetition times one block as a run does: the embedded backbone, clips decoded
from the embedded videos, warm-up and interleaved rounds of the profile; dense, its twin, and dense that then idles in a
loop for a twentieth of what it took. Rows come from the code that writes the results table. Alone, the twin's interval
must hold 1, and the slowed one's exclude it, in at least 18 of 20 (or as large a share). Beside a busy loop no row may
be wrong without being marked noisy: wrong is a twin's interval that excludes 1, or a speed-up's that excludes 1 / 1.05.
Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vpbench import plan, progress
from vpbench.api import Clip, ClipBatch, Pruner, Tokens
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.measure import clock, machine, rounds
from vpbench.rows import schema
from vpbench.rows.store import Store
from vpbench.run import columns, timing
from vpbench.tasks.recognition.session import Session
from vpbench.tasks.recognition.walk import ClipWalk, batches_of

SLOWDOWN = 1.05
SHARE = 18 / 20


class Slowed(Pruner):
    """Prunes nothing and waits, after the last block, until the forward has taken 1.05 times what it took.

    On an accelerator that is what the device took: the host has long gone on.
    """

    def __init__(self, blocks: int, synchronize: Callable[[], None]) -> None:
        self.last = blocks - 1
        self.began = 0
        self.synchronize = synchronize

    def resample(self, batch: ClipBatch) -> ClipBatch:
        self.began = time.perf_counter_ns()
        return batch

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        if layer == self.last:
            self.synchronize()
            until = self.began + SLOWDOWN * (time.perf_counter_ns() - self.began)
            while time.perf_counter_ns() < until:
                pass
        return tokens


@dataclass(frozen=True)
class Repetition:
    """The row of the slowed configuration, which holds the twin's columns too, and whether a run would mark it."""

    row: schema.Row
    noisy: bool

    @property
    def twin_holds_1(self) -> bool:
        return self.row["aa_ci_lo"] <= 1 <= self.row["aa_ci_hi"]

    @property
    def detected(self) -> bool:
        return self.row["speedup_ci_hi"] < 1

    @property
    def right(self) -> bool:
        return self.twin_holds_1 and self.row["speedup_ci_lo"] <= 1 / SLOWDOWN <= self.row["speedup_ci_hi"]


def repeat(session: Session, before: machine.Machine, clips: Sequence[Clip], number: int) -> Repetition:
    """Time one block; the number enters the order of its rounds."""
    setting, model = session.setting, session.backbone
    assert isinstance(model, VideoMAE)
    slowed = Slowed(len(model.blocks), clock.synchronizer(setting.device))
    walks = {
        name: ClipWalk(model, session.forward, pruner, batches_of(model, clips, setting.batch, setting.device)[0], {})
        for name, pruner in (("dense", Pruner()), (f"slowed-{number}", slowed))
    }
    samples: list[clock.Sample] = []
    with progress.task(f"repetition {number}", setting.effort.rounds, "rounds") as task:
        facts, around = rounds.measure(
            walks, timing.effort_of(setting), number, samples.extend, lambda _: task.advance()
        )
    row = columns.time(stored(samples, facts, around), f"slowed-{number}")
    # this the last step of a run adds to what the rounds say themselves
    busy = bool(machine.warnings(dataclasses.replace(before, load=around.busy_before)))
    return Repetition(row, bool(row["noisy"] or busy))


def stored(samples: Sequence[clock.Sample], facts: Mapping[str, rounds.Facts], around: rounds.Around) -> columns.Rounds:
    """Return rounds as they are read from a results folder."""
    unwritten = Store(Path(tempfile.mkdtemp()))
    timing.Kept(unwritten, "run", "block", "dense", 1, 0)(samples)
    work = [
        {"config_id": name, "kind": "rounds", "block": "block", "busy_before": around.busy_before}
        | {"busy_after": around.busy_after, "pinned": None, "h2d_ms": None, "units": each.units}
        | {"settled": each.settled, "macs": list(each.macs), "compile_s": None, "recompiles": None}
        for name, each in facts.items()
    ]
    return columns.Rounds(unwritten.read("samples"), pd.DataFrame(work), "dense")


def series(title: str, count: int, session: Session, facts: machine.Machine) -> list[Repetition]:
    """Repeat, and print a line for each."""
    clips = session.clips_to_time()
    print(f"{title:<18}{'dense / twin':>24}{'dense / slowed':>26}{'rounds':>8}")
    found = []
    for number in range(count):
        each = repeat(session, facts, clips, number)
        row, words = each.row, "noisy " * each.noisy + "wrong" * (not each.right)
        twin, slow = (
            f"{row[value]:.4f} [{row[f'{name}_ci_lo']:.4f}, {row[f'{name}_ci_hi']:.4f}]"
            for value, name in (("aa_ratio", "aa"), ("speedup", "speedup"))
        )
        print(f"{number:<16}{twin:>26}{slow:>26}{row['n_rounds']:>8}  {words}".rstrip(), flush=True)
        found.append(each)
    return found


@contextmanager
def busy_loop() -> Iterator[None]:
    """Keep one core busy with another process meanwhile."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def missed(quiet: Sequence[Repetition], loaded: Sequence[Repetition]) -> list[str]:
    """Print how often each target was met; returns those that were not met often enough."""
    found = []
    for name, met in (
        ("alone: the interval of dense against itself holds 1", [each.twin_holds_1 for each in quiet]),
        ("alone: the slowdown is detected", [each.detected for each in quiet]),
    ):
        print(f"{name}: {sum(met)} of {len(met)}")
        if sum(met) < SHARE * len(met):
            found.append(name)
    unmarked = sum(not each.right and not each.noisy for each in loaded)
    noisy = [sum(each.noisy for each in part) for part in (quiet, loaded)]
    print(f"marked noisy: {noisy[0]} of {len(quiet)} alone, {noisy[1]} of {len(loaded)} beside a busy loop")
    print(f"beside a busy loop: {sum(not e.right for e in loaded)} of {len(loaded)} wrong, {unmarked} of them unmarked")
    return [*found, *["beside a busy loop: wrong without being marked"] * bool(unmarked)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiet", type=int, default=20, help="repetitions with nothing beside")
    parser.add_argument("--loaded", type=int, default=20, help="repetitions beside a busy loop")
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    asked = plan.options(
        {"method": ("dense",), "profile": given.profile, "threads": given.threads, "device": given.device}
    )
    session = Session(plan.setting(asked, given.threads))
    facts = machine.snapshot(given.device)
    print(json.dumps({"machine": facts.device_name, "threads": given.threads, "profile": given.profile,
                      "load": facts.load, "commit": facts.git_commit, "planted": SLOWDOWN}))  # fmt: skip
    quiet = series("alone", given.quiet, session, facts)
    with busy_loop():
        loaded = series("beside a busy loop", given.loaded, session, facts)
    found = missed(quiet, loaded)
    print("missed: " + "; ".join(found) if found else "all targets met")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
