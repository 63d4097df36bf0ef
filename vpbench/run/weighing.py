"""What cells take besides time: peak memory, the largest batch, joules; of one cell at a time."""

import itertools
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from vpbench.errors import VpbenchError
from vpbench.measure import busy, clock, energy, memory
from vpbench.measure.rounds import MODEL, TRAIN
from vpbench.plan import Setting
from vpbench.progress import say
from vpbench.rows.schema import Result, WorkRow
from vpbench.rows.store import Store
from vpbench.tasks.task import Attached, Configuration, Task


def memory_part(config_id: str) -> str:
    """Name the part that holds the memory of one cell."""
    return f"{config_id}-memory"


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
