"""How long cells take: a block of them in interleaved rounds, then stages, passes, memory; each written as it comes."""

import dataclasses
import hashlib
import itertools
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from vpbench.errors import VpbenchError
from vpbench.measure import busy, clock, energy, machine, memory, rounds, stages
from vpbench.measure.rounds import MODEL, TRAIN, TWIN, Around, Effort, Facts
from vpbench.plan import Setting
from vpbench.processes import call
from vpbench.progress import Task as Progress
from vpbench.progress import say
from vpbench.rows.schema import Result, SampleRow, WorkRow
from vpbench.rows.store import Store
from vpbench.run.lease import host
from vpbench.tasks.task import Attached, Configuration, Task

#: items of one pass from files to answers, at least (fewer where the split has fewer), and passes, by profile
PASS_UNITS = {"survey": 40, "demo": 40, "ci": 40, "standard": 500, "publication": 500}
PASSES = {"survey": 1, "demo": 1, "ci": 1, "standard": 3, "publication": 3}

#: what rows say of the machine that timed them
TIMED_ON = ("device_name", "torch_version", "cuda_version", "driver", "git_commit")


@dataclass(frozen=True)
class Kept:
    """Where the rounds of a block are kept as they come; picklable, since other processes keep theirs too."""

    store: Store
    run_id: str
    block: str
    dense_id: str
    units: int
    process: int
    device_id: str

    def __call__(self, samples: Sequence[clock.Sample]) -> None:
        """Write a part of the samples table."""
        rows = [self._row(sample) for sample in samples]
        first = min(sample.round for sample in samples)
        self.store.write("samples", f"{self.block}-{self.process:03d}-{first:06d}", rows)

    def _row(self, sample: clock.Sample) -> SampleRow:
        name, _, scope = sample.name.partition("/")
        row: SampleRow = {"config_id": f"{self.dense_id}-{TWIN}" if name == TWIN else name, "scope": scope or MODEL}
        row |= {"run_id": self.run_id, "block": self.block, "process": self.process, "clips": self.units}
        row |= {"device_id": self.device_id}
        row |= {"round": sample.round, "order": sample.order, "wall_ns": sample.wall_ns, "gpu_ns": sample.gpu_ns}
        row |= {"sm_mhz": sample.sm_mhz, "temp_c": sample.temp_c}
        return row | {"held_back": sample.held_back, "dropped": sample.dropped}


@dataclass
class Block:
    """Cells that are timed side by side, dense first, and what is there of them."""

    task: Task
    cells: Sequence[Attached]
    inputs: Sequence[Any]
    known: Mapping[str, Mapping[str, int]]
    store: Store
    run_id: str

    def __post_init__(self) -> None:
        self.setting = self.task.setting
        self.dense_id = self.cells[0].cell.config_id
        self.name = block_name([cell.cell.config_id for cell in self.cells])
        # the order of rounds is seeded by the block's content, so that a repeated run repeats it
        self.seed = zlib.crc32(self.name.encode())
        self.device_id = device_id(self.setting.device)

    def run(self, progress: Progress, force: bool) -> None:
        """Do what is not there yet of the block: rounds, stages, passes."""
        self._drop_elsewhere()
        work = self.store.read("work", f"{self.name}-")
        done = set() if force else set(zip(work["kind"], work["process"], strict=True))
        if all(("rounds", process) in done for process in range(self.setting.processes)):
            progress.advance(self.setting.effort.rounds * self.setting.processes)
        else:
            self._rounds(done, progress, force)
        if self.setting.stages and ("stages", 0) not in done:
            self._stages(self._walks())
        if self.setting.e2e and ("e2e", 0) not in done:
            self._passes()

    def _asked(self) -> set[str]:
        return block_parts(self.setting, [cell.cell.config_id for cell in self.cells])

    def _drop_elsewhere(self) -> None:
        """Drop rounds that another device has begun and not ended: a block is timed on one."""
        begun = self.store.read("samples", f"{self.name}-", columns=("device_id",))["device_id"].dropna()
        if (begun != self.device_id).any() and not self._asked() <= self.store.parts("work"):
            say("another device has begun to time these cells; they are timed anew on this one")
            for table in ("samples", "work"):
                self.store.drop(table, f"{self.name}-")

    def failure(self, cell: Attached) -> Exception | None:
        """Walk through all inputs once; returns what a cell raises there, None where it is well."""
        walk = self.task.walk(cell, self.inputs, self.known.get(cell.cell.prediction_id, {}))
        try:
            with torch.inference_mode():
                for scope, number in itertools.product(walk.scopes.values(), range(walk.calls)):
                    scope(number)
        except Exception as error:
            return error
        return None

    def _walks(self) -> dict[str, rounds.Walk]:
        return {
            cell.cell.config_id: self.task.walk(cell, self.inputs, self.known.get(cell.cell.prediction_id, {}))
            for cell in self.cells
        }

    def _rounds(self, done: set[tuple[str, int]], progress: Progress, force: bool) -> None:
        """Time rounds in this process, or in as many fresh ones as were asked for, one after the other."""
        effort = effort_of(self.setting)
        if self.setting.processes > 1:
            for process in range(self.setting.processes):
                if ("rounds", process) not in done:
                    self._afresh(process, effort)
                progress.advance(effort.rounds)
            return
        if force:
            self.store.drop("samples", f"{self.name}-")
        process, first = self._continued()
        if first:
            say(f"{first} of {effort.rounds} rounds are there already")
        left = dataclasses.replace(effort, rounds=max(1, effort.rounds - first))
        walks = self._walks()
        kept = self._kept(next(iter(walks.values())).units, process)
        told, began = min(first, effort.rounds), time.monotonic()
        progress.advance(told)

        def on_round(number: int) -> None:
            """Tell a round only when its share of the seconds has passed, too: rounds go on until both are there."""
            nonlocal told, began
            if number == first:
                # what came before was warm-up
                began = time.monotonic()
            passed = (time.monotonic() - began) / effort.seconds if effort.seconds else 1.0
            due = min(number + 1, first + int(passed * left.rounds), effort.rounds)
            progress.advance(max(0, due - told))
            told = max(told, due)

        facts, around = rounds.measure(walks, left, self.seed + process, kept, on_round, first)
        progress.advance(effort.rounds - told)
        self._write_rounds(facts, around, 0)

    def _continued(self) -> tuple[int, int]:
        """Return the number that this process has among those that timed the block, and the first round it adds."""
        there = self.store.read("samples", f"{self.name}-", columns=("process", "round"))
        if there.empty:
            return 0, 0
        first = int(there["round"].max()) + 1
        say(f"{first} rounds of these {len(self.cells)} cells are there already")
        return int(there["process"].max()) + 1, first

    def _afresh(self, process: int, effort: Effort) -> None:
        configurations = {cell.cell.config_id: self._configuration(cell) for cell in self.cells}
        # far beyond what it may take: warm-up of each, then the rounds, on a machine that is ten times slower
        deadline_s = 3600 + 10 * (effort.seconds + len(configurations) * effort.warm_up_max_s)
        name = f"timing in process {process + 1} of {self.setting.processes}"
        kept = self._kept(0, process)
        # what a process that was stopped has left is no part of another one's rounds
        self.store.drop("samples", f"{self.name}-{process:03d}-")
        arguments = (type(self.task), self.setting, configurations, self.inputs, effort, self.seed + process, kept)
        facts, around = call(_measure_afresh, *arguments, name=name, deadline_s=deadline_s)
        self._write_rounds(facts, around, process)

    def _configuration(self, cell: Attached) -> Configuration:
        copies = cell.cell.copies
        return Configuration(cell.method, None if copies is None else self.task.kept.get(copies, {}))

    def _kept(self, units: int, process: int) -> Kept:
        return Kept(self.store, self.run_id, self.name, self.dense_id, units, process, self.device_id)

    def _write_rounds(self, facts: Mapping[str, Facts], around: Around, process: int) -> None:
        shared: WorkRow = {"busy_before": around.busy_before, "busy_after": around.busy_after}
        shared |= {"pinned": ",".join(map(str, around.pinned)) or None, "h2d_ms": self.task.h2d_ms}
        own = machine.snapshot(self.setting.device)
        # whoever froze the cells may have been another machine
        shared |= {
            "found": json.dumps({"device_id": self.device_id, **{name: getattr(own, name) for name in TIMED_ON}})
        }
        rows = []
        for name, each in facts.items():
            row = self._work(name, "rounds", process) | shared
            row |= {"units": each.units, "settled": each.settled, "macs": list(each.macs)}
            rows.append(row | {"compile_s": each.compile_s, "recompiles": each.recompiles})
        self.store.write("work", f"{self.name}-rounds-{process:03d}", rows)

    def _stages(self, walks: Mapping[str, rounds.Walk]) -> None:
        """Say where the time of forwards goes, in rounds of their own."""
        count = self.task.stage_rounds
        found = rounds.split(walks, effort_of(self.setting), count, self.seed)
        units = next(iter(walks.values())).units
        dense = found[self.dense_id]
        rows = [
            self._work(name, "stages") | {"found": json.dumps(stages.columns(own, dense, units))}
            for name, own in found.items()
        ]
        self.store.write("work", f"{self.name}-stages", rows)

    def _passes(self) -> None:
        """Walk from files to answers, configurations in random order within each pass; one item goes first, untimed.

        What cannot be read takes its time and gives nothing.
        """
        profile, views, draw = self.setting.profile, self.task.seen.views, np.random.default_rng(self.seed)
        every = self.task.items
        count = min(len(every), -(-PASS_UNITS[profile] // views))
        items = [every[number] for number in np.linspace(0, len(every) - 1, count).round().astype(int).tolist()]
        synchronize, rows = clock.synchronizer(self.setting.device), list[SampleRow]()
        self.task.through(self.cells[0].pruner, items[: self.setting.workers or 1])
        for number in range(PASSES[profile]):
            for order, which in enumerate(draw.permutation(len(self.cells)).tolist()):
                cell, began = self.cells[which], time.perf_counter_ns()
                found = self.task.through(cell.pruner, items)
                synchronize()
                wall = time.perf_counter_ns() - began
                row: SampleRow = {"config_id": cell.cell.config_id, "round": number, "order": order, "scope": "e2e"}
                row |= {"wall_ns": wall, "clips": found.units, "waited_ns": round(1e9 * found.waited_s)}
                row |= {"device_id": self.device_id}
                rows.append(row | {"run_id": self.run_id, "block": self.name, "process": 0, "dropped": False})
        self.store.write("samples", f"{self.name}-e2e", rows)
        self.store.write("work", f"{self.name}-e2e", [self._work(c.cell.config_id, "e2e") for c in self.cells])

    def _work(self, config_id: str, kind: str, process: int = 0) -> WorkRow:
        row: WorkRow = {"run_id": self.run_id, "config_id": config_id, "block": self.name, "kind": kind}
        return row | {"process": process, "timestamp_utc": datetime.now(UTC), "status": "ok"}


def device_id(device: str) -> str:
    """Tell a device from others of its model, without naming its host: a GPU, or a host's processors till it restarts.

    Two processes that time on devices of one id disturb each other.
    """
    if not device.startswith("cuda"):
        return host()
    return hashlib.sha256(str(torch.cuda.get_device_properties(device).uuid).encode()).hexdigest()[:12]


def memory_part(config_id: str) -> str:
    """Name the part that holds the memory of one cell."""
    return f"{config_id}-memory"


def block_name(config_ids: Sequence[str]) -> str:
    """Name a block of configurations by what it holds."""
    return hashlib.sha256(",".join(config_ids).encode()).hexdigest()[:12]


def block_parts(setting: Setting, config_ids: Sequence[str]) -> set[str]:
    """Name the parts of `work` that say that a block of configurations is timed, as far as was asked."""
    name = block_name(config_ids)
    found = {f"{name}-rounds-{process:03d}" for process in range(setting.processes)}
    return found | ({f"{name}-stages"} if setting.stages else set()) | ({f"{name}-e2e"} if setting.e2e else set())


def block_size(task: Task, dense: Attached, inputs: Sequence[Any]) -> int:
    """Return how many cells are timed side by side: `BLOCK`, or fewer where warming up so many would take too long."""
    effort, walk = task.setting.effort, task.walk(dense, inputs, {})
    with torch.inference_mode():
        walk.scopes[MODEL](0)
        began = time.perf_counter()
        walk.scopes[MODEL](0)
    # at least ten calls, see `clock.warm_up`
    warm_up_s = min(effort.warm_up_max_s, max(effort.warm_up_s, 10 * (time.perf_counter() - began)))
    within = int(effort.block_s / warm_up_s) - 1 if warm_up_s else rounds.BLOCK
    return max(1, min(rounds.BLOCK, within))


def effort_of(setting: Setting) -> Effort:
    """Return how much is measured at a setting."""
    effort = setting.effort
    where = (setting.threads, setting.device, setting.mode != "eager")
    return Effort(effort.rounds, effort.seconds, effort.warm_up_s, effort.warm_up_max_s, *where)


def _measure_afresh(
    kind: type[Task],
    setting: Setting,
    configurations: Mapping[str, Configuration],
    inputs: Sequence[Any],
    effort: Effort,
    seed: int,
    kept: Kept,
) -> tuple[dict[str, Facts], Around]:
    """Time a block with everything built from nothing: for a process of its own."""
    walks = kind.alone(setting, configurations, inputs)
    kept = dataclasses.replace(kept, units=next(iter(walks.values())).units)
    return rounds.measure(walks, effort, seed, kept, lambda number: None)


def peak_memory(task: Task, cell: Attached, inputs: Sequence[Any], store: Store, run_id: str, force: bool) -> None:
    """Write the memory of one cell, and its energy where that was asked for; nothing where they are there.

    A process of its own on the CPU, allocator counters on CUDA, where the time of kernels comes with it.
    """
    name = memory_part(cell.cell.config_id)
    if store.has("work", name) and not force:
        return
    setting, part = task.setting, task.least(inputs)
    row: WorkRow = {"run_id": run_id, "config_id": cell.cell.config_id, "kind": "memory", "process": 0}
    row |= {"timestamp_utc": datetime.now(UTC), "status": "ok"}
    try:
        found = _on_cuda(task, cell, inputs) if setting.device.startswith("cuda") else on_host(task, cell, part)
        found |= _joules(task, cell, inputs) if setting.energy else {}
        row["found"] = json.dumps(found)
    except VpbenchError as error:
        row |= {"status": "failed", "error": str(error)}
    store.write("work", name, [row])


def on_host(task: Task, cell: Attached, part: Sequence[Any]) -> Result:
    """Return the memory of one cell, from a process of its own. part: what `Task.least` returns."""
    copies = cell.cell.copies
    own = Configuration(cell.method, None if copies is None else task.kept.get(copies, {}))
    given = (type(task), task.setting, own, part)
    host = memory.measure_peak(_alone, *given, MODEL, name=cell.cell.label)
    found: Result = {"mem_weights_mb": host.weights_mb, "mem_peak_rss_mb": host.peak_mb}
    if task.setting.train_step:
        training = memory.measure_peak(_alone, *given, TRAIN, name=f"training steps of {cell.cell.label}")
        found["mem_train_mb"] = training.peak_mb
    return found


def _alone(
    kind: type[Task], setting: Setting, configuration: Configuration, inputs: Sequence[Any], scope: str
) -> Callable[[], object]:
    """Build one configuration from nothing; returns its first call without arguments."""
    [walk] = kind.alone(setting, {"own": configuration}, inputs).values()
    return lambda: walk.scopes[scope](0)


def _on_cuda(task: Task, cell: Attached, inputs: Sequence[Any]) -> Result:
    walk = task.walk(cell, task.least(inputs), {})
    with torch.inference_mode():
        peak = memory.cuda_peak(lambda: walk.scopes[MODEL](0), task.setting.device)
        training = walk.scopes.get(TRAIN)
        step = None if training is None else memory.cuda_peak(lambda: training(0), task.setting.device)
    return {
        "mem_train_mb": None if step is None else step.peak_alloc_mb,
        "mem_weights_mb": peak.weights_mb,
        "mem_peak_alloc_mb": peak.peak_alloc_mb,
        "mem_peak_reserved_mb": peak.peak_reserved_mb,
        "mem_device_mb": peak.device_mb,
        "gpu_busy_ms": _busy_ms(task, cell, inputs),
        "max_batch": largest_batch(task, cell, inputs) if task.setting.max_batch else None,
    }


def _busy_ms(task: Task, cell: Attached, inputs: Sequence[Any]) -> float | None:
    """Return milliseconds per clip in which kernels of a cell run, on some of the inputs that were timed."""
    walk = task.walk(cell, inputs, {})
    with torch.inference_mode():
        found = busy.busy_ms(walk.scopes[MODEL], walk.calls, clock.synchronizer(task.setting.device))
    if found is None:
        say(f"{cell.cell.label}: torch's profiler sees no kernels, so nothing tells whether the GPU waits for the host")
        return None
    return found / walk.units


def largest_batch(task: Task, cell: Attached, inputs: Sequence[Any]) -> int | None:
    """Search the largest batch that fits on a GPU, of the inputs repeated; None where one does not fit."""

    def fits(size: int) -> bool:
        walk = task.walk(cell, task.enlarged(inputs, size), {}, size)
        return memory.fits_cuda(lambda: walk.scopes[MODEL](0), task.setting.device)

    with torch.inference_mode():
        return memory.max_batch(fits)


def _joules(task: Task, cell: Attached, inputs: Sequence[Any]) -> Result:
    """Return the columns of energy of one cell: its calls, for ten seconds, after ten idle ones."""
    counter, reason = energy.counter_of(task.setting.device)
    idle = 0.0 if counter is None else energy.idle_watts(counter)
    walk, numbers = task.walk(cell, inputs, {}), itertools.count()
    synchronize = clock.synchronizer(task.setting.device)

    def work() -> int:
        with torch.inference_mode():
            walk.scopes[MODEL](next(numbers))
        synchronize()
        return walk.units

    return energy.columns(counter, reason, work, idle)
