"""From a request to what is measured: settings, digests, threads."""

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vpbench import plan
from vpbench.backbones import loading
from vpbench.errors import UsageError
from vpbench.measure import machine
from vpbench.plan import Cell, Digests, Options, Setting, identity
from vpbench.progress import say
from vpbench.run import timing
from vpbench.tasks import protocol_of, split_of, task_of

#: workers that read videos for an accelerator, unless asked otherwise; on a CPU they would take the model's cores
MOST_WORKERS = 8


@dataclass(frozen=True)
class Job:
    """A request as it stands on this machine: what was asked, as options and as typed, its groups of cells, digests."""

    asked: Options
    command: str
    shared: Setting
    groups: Sequence[Sequence[Cell]]
    known: Digests

    @property
    def cells(self) -> list[Cell]:
        """The cells of all groups."""
        return [cell for cells in self.groups for cell in cells]


def job(asked: Options, command: str) -> Job:
    """Settle what a request leaves open, and give its cells their ids; raises UsageError for a budget of too much."""
    shared, of = resolve(asked)
    groups = [plan.cells(asked, each, of, dense_tokens) for each in plan.groups(shared, asked, largest_batch)]
    if asked.budget_tokens and all(cell.method == "dense" for cells in groups for cell in cells):
        raise UsageError(
            f"no clip has more than {min(asked.budget_tokens)} tokens; give less, or longer clips (--frames)"
        )
    return Job(asked, command, shared, groups, of({cell.method for cells in groups for cell in cells}))


def digests(setting: Setting) -> Callable[[Iterable[str]], Digests]:
    """Return what hashes weights, clip list and method sources for the plan."""
    weights = loading.weights_digest(setting.backbone, setting.weights, setting.weights_key)
    task = task_of(setting.dataset, setting.backbone)
    seen, calibration, model = task.digest(setting), task.calibration_digest(setting), machine.model(setting.device)

    def of(methods: Iterable[str]) -> Digests:
        code = {name: identity.code_digest(name) for name in methods}
        return Digests(weights, seen, code, calibration, model)

    return of


def look(setting: Setting, groups: Sequence[Setting]) -> None:
    """Say in one line what contradicts itself in the data; raises UsageError where data or weights cannot be used.

    setting: what all share; groups: the settings of the groups.
    """
    task = task_of(setting.dataset, setting.backbone)
    task.check(groups)
    count, odd = task.look(setting)
    if not odd:
        return
    asked = {"root": setting.root, "list": setting.list, "classes": setting.classes, "split": setting.split}
    if loading.is_own(setting.weights):  # they may name the classes
        asked |= {"weights": setting.weights, "weights-key": setting.weights_key}
    given = "".join(f" --{name} {shlex.quote(value)}" for name, value in asked.items() if value is not None)
    counted = ", ".join(f"{number} {kind}" for kind, number in odd.items())
    command = f"vpbench data check {setting.dataset}{given}"
    say(f"{setting.dataset} {setting.split}, {count} videos: {counted}; `{command}` names them")


def threads() -> int:
    """Threads used where none were asked for: all cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def largest_batch(setting: Setting) -> int:
    """Return the most clips that dense takes at once on a GPU; raises UsageError on a CPU, or where none fits."""
    if not setting.device.startswith("cuda"):
        raise UsageError("--batch max is for CUDA devices: a host that runs out of memory kills processes")
    task = task_of(setting.dataset, setting.backbone).open(setting)
    dense = task.attach(Cell("", "", setting, "dense"))
    inputs = task.inputs([dense])
    if not inputs:
        raise UsageError(f"none of the {task.unit} can be read, so nothing tells how many fit")
    found = timing.largest_batch(task, dense, inputs)
    if found is None:
        raise UsageError(f"not even one clip of {setting.backbone} fits on the device")
    return found


def dense_tokens(setting: Setting) -> int:
    """Return the tokens of a dense clip; raises UsageError for detectors, and where weights or clips do not fit."""
    if task_of(setting.dataset, setting.backbone).name != "recognition":
        raise UsageError(f"{setting.backbone} looks at videos frame by frame; give --keep, not --budget-tokens")
    return loading.sized(setting).grid.tokens


def resolve(asked: Options) -> tuple[Setting, Callable[[Iterable[str]], Digests]]:
    """Return the shared setting of a request and its digests, for the plan."""
    task_of(asked.dataset, asked.backbone)  # a mismatch is named before anything is looked for
    workers = 0 if asked.device == "cpu" else min(MOST_WORKERS, threads())
    shared = plan.setting(asked, threads(), split_of(asked), protocol_of(asked), workers)
    _, others = loading.weights_key(shared.backbone, shared.weights, shared.weights_key)
    if others:
        say(others)
    return shared, digests(shared)
