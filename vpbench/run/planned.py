"""Plans that others work by: what `vpbench plan` writes, and what a worker has to find as it would plan it itself."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpbench.errors import UsageError
from vpbench.measure import machine
from vpbench.plan import Cell, Setting
from vpbench.plan import manifest as manifests
from vpbench.plan.manifest import Manifest
from vpbench.rows.store import Store
from vpbench.run.freeze import freeze
from vpbench.run.group import Only, changed_of, done, note_part, with_block
from vpbench.run.resolve import Job
from vpbench.tasks import task_of

#: what tells groups of one prediction apart, besides the machine
_HOW = ("batch", "profile", "processes", "e2e", "stages", "energy", "max_batch")
#: what has to be that of the plan where work is done, since rows say it
_SAME = {"torch_version": "torch", "git_commit": "commit of vpbench"}

_ADVICE = "run `vpbench plan` with the options of this command first"


@dataclass(frozen=True)
class Planned:
    """One group as it was planned, with the setting of this machine: the cells that can run, dense first.

    `elsewhere`: why this machine's times would be of other cells than the planned ones; empty where they would not.
    """

    manifest: Manifest
    cells: Sequence[Cell]
    elsewhere: str

    @property
    def name(self) -> str:
        """Name the work of these cells, dense's id first: who asks for others shares none of it."""
        own = hashlib.sha256(",".join(sorted(cell.config_id for cell in self.cells)).encode()).hexdigest()[:12]
        return f"{self.manifest.dense.config_id}-{own}"

    @property
    def setting(self) -> Setting:
        """What all cells share."""
        return self.cells[0].setting

    def shard(self, number: int) -> str:
        """Name a shard."""
        return f"{self.name}-{number:05d}"

    def block(self, name: str) -> str:
        """Name the work of a block of timing."""
        return f"{self.name}-block-{name}"

    def note(self, number: int) -> str:
        """Name the part of `work` that says that a shard is done."""
        return note_part(self.shard(number))

    @property
    def untimed(self) -> set[str]:
        """The cells that were not done when it was planned: all workers cut the same blocks from them."""
        return {cell.config_id for cell in self.manifest.cells if cell.run_id == self.manifest.run_id}

    @property
    def shards(self) -> Mapping[str, int]:
        """The steps of one cell in each shard, by its name."""
        return {self.shard(number): sum(shard.values()) for number, shard in enumerate(self.manifest.shards)}


def plan_all(job: Job, store: Store, only: Only | None) -> list[Manifest]:
    """Freeze what is not done yet of a request, group by group, write it down for workers, and return all groups.

    Calibration is carried out here, and so is what decides on blocks of timing. Raises as `group.run` does.
    """
    finished, found = done(store, only), []
    for cells in job.groups:
        before = manifests.read(store.folder, cells[0].config_id)
        frozen = set() if before is None else {cell.config_id for cell in before.cells}
        changed = changed_of(cells, store)
        todo = {cell.config_id for cell in cells if changed or cell.config_id not in finished & frozen}
        if before is not None and not todo:
            found.append(before)
            continue
        task = task_of(cells[0].setting.dataset, cells[0].setting.backbone).open(cells[0].setting)
        manifest, attached = freeze(task, cells, todo, job.known, store.folder, job.command)
        for config_id in todo:
            store.drop("work", note_part(config_id))  # what went wrong with it is tried again
            if changed:
                store.drop("results", config_id)
        if only != "predict" and (inputs := task.inputs(attached)):
            manifest = with_block(manifest, task, attached[0], inputs, store)
        task.close()
        found.append(manifest)
    return found


def planned(folder: Path, job: Job) -> list[Planned]:
    """Return the groups of a request as they were planned; raises UsageError, with what differs, if they were not."""
    known = manifests.every(folder)
    found = [_planned(folder, cells, known, job) for cells in job.groups]
    own = machine.snapshot(job.shared.device)
    for each in found:
        of_plan = each.manifest.runs[each.manifest.run_id].machine
        for fact, said in _SAME.items():
            here, there = getattr(own, fact), of_plan[fact]
            if None not in (here, there) and here != there:
                raise UsageError(
                    f"{folder} was planned with {said} {there}, and here it is {here}: one table has to be of one "
                    "version; use that one here, or run `vpbench plan` again with this one"
                )
    return found


def _planned(folder: Path, cells: Sequence[Cell], known: Sequence[Manifest], job: Job) -> Planned:
    own = dataclasses.asdict(cells[0].setting)
    same = [
        each
        for each in known
        if each.dense.prediction_id == cells[0].prediction_id and all(each.setting[name] == own[name] for name in _HOW)
    ]
    # the one of this model of machine, where several were planned for
    same.sort(key=lambda each: each.dense.config_id != cells[0].config_id)
    if not same:
        raise UsageError(_unplanned(folder, cells, known, job))
    manifest = same[0]
    frozen = {cell.prediction_id: cell for cell in manifest.cells}
    if lacking := [cell for cell in cells if cell.prediction_id not in frozen]:
        raise UsageError(
            f"{lacking[0].label} is not planned in {folder}{_other_code(lacking[0], manifest, job)}; {_ADVICE}"
        )
    there = {cell.prediction_id: frozen[cell.prediction_id] for cell in cells}
    able = [
        dataclasses.replace(cell, config_id=there[cell.prediction_id].config_id, match=there[cell.prediction_id].match)
        for cell in cells
        if there[cell.prediction_id].status == "ok"
    ]
    alike = all(there[cell.prediction_id].config_id == cell.config_id for cell in cells)
    return Planned(manifest, able, "" if alike else _unlike(manifest, own, job))


def _unlike(manifest: Manifest, own: Mapping[str, object], job: Job) -> str:
    for name in ("threads", "workers"):
        if manifest.setting[name] != own[name]:
            return f"it was planned for --{name} {manifest.setting[name]}, and here there are {own[name]}"
    there = manifest.runs[manifest.run_id].machine["device_name"]
    return f"it was planned for {there}, and this is {job.known.machine}"


def _unplanned(folder: Path, cells: Sequence[Cell], known: Sequence[Manifest], job: Job) -> str:
    """Say why a group is not planned: what differs from the plan that is nearest to it."""
    setting = dataclasses.asdict(cells[0].setting)
    names = ("dataset", "split", "backbone")
    near = [each for each in known if all(each.setting[name] == setting[name] for name in names)]
    if not near:
        return f"{folder} holds no plan for {setting['backbone']} on {setting['dataset']} {setting['split']}; {_ADVICE}"
    plan = near[-1]
    weights = None if setting["weights"] == "random" else job.known.weights
    if plan.weights != weights:
        differs = f"other weights: SHA-256 {_short(plan.weights)} there, {_short(weights)} here"
    elif other := _other_code(cells[0], plan, job):
        differs = other.removeprefix(", but ")
    elif odd := [name for name in ("limit", *_HOW, "dtype", "mode", "protocol", "decoder", "seed", "frames", "size")
                 if plan.setting[name] != setting[name]]:  # fmt: skip
        differs = ", ".join(f"{name} {plan.setting[name]} there, {setting[name]} here" for name in odd)
    else:
        differs = "another list of videos, or another version of vpbench, whose numbers may differ"
    return f"{folder} was planned with {differs}; use the same here, or {_ADVICE}"


def _other_code(cell: Cell, manifest: Manifest, job: Job) -> str:
    """Say that a method was planned with other code, if it was."""
    here = job.known.code[cell.method][:12]
    there = {each.version for each in manifest.cells if each.method == cell.method}
    return (
        ""
        if not there or here in there
        else f", but with other code of {cell.method} (version {min(there)}, here {here})"
    )


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
