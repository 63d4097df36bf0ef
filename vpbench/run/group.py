"""One group of cells from plan to rows: freeze, predict, follow, time block by block, finish."""

import dataclasses
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pandas as pd

from vpbench.measure.rounds import BLOCK
from vpbench.plan import Cell, Digests
from vpbench.plan.manifest import Manifest, every
from vpbench.progress import Task as Progress
from vpbench.progress import say
from vpbench.progress import task as progress_of
from vpbench.rows.schema import Result, WorkRow
from vpbench.rows.store import Store, latest
from vpbench.run import timing, work
from vpbench.run.finish import finish
from vpbench.run.freeze import freeze
from vpbench.tasks import task_of
from vpbench.tasks.task import Attached, Task

#: what is done of a cell, where not all: predictions alone, or times alone
Only = Literal["predict", "time"]


@dataclass(frozen=True)
class Outcome:
    """What a run did: cells measured now, cells that had been measured before, cells without a result."""

    measured: int
    already: int
    failed: int


def done(store: Store, only: Only | None = None) -> set[str]:
    """Return the ids of configurations that have a row with all that is asked: predictions, times, or both."""
    results = latest(store.read("results"))
    ok = results["status"] == "ok"
    if only != "predict":
        ok &= results["wall_ms_p50"].notna()
    if only != "time":
        ok &= results["agree"].notna() | results["map_definition"].notna() | results["keep_realised"].notna()
    return set(results.loc[ok, "config_id"])


def run_all(
    groups: Sequence[Sequence[Cell]], known: Digests, store: Store, command: str, force: bool, only: Only | None = None
) -> Outcome:
    """Measure the groups of a request one after the other; see `run`."""
    _say_foreign(store, groups)
    if only != "predict":
        _say_elsewhere(store, groups, known)
    # before any is predicted anew: groups share predictions, and each has to be timed again
    changed = [set() if force else changed_of(cells, store) for cells in groups]
    found = [
        run(cells, known, store, command, force, only, other) for cells, other in zip(groups, changed, strict=True)
    ]
    return Outcome(*(sum(counts) for counts in zip(*map(dataclasses.astuple, found), strict=True)))


def run(
    cells: Sequence[Cell],
    known: Digests,
    store: Store,
    command: str,
    force: bool,
    only: Only | None = None,
    changed: Collection[str] = (),
) -> Outcome:
    """Measure all cells that are not done yet (all of them with `force`) and write their rows.

    `cells` is one group: dense first, all with one setting. changed: items whose files are others than those that were
    measured, so that all cells are measured again. Raises UsageError if the setting itself cannot be loaded;
    what goes wrong with single cells ends up in their rows.
    """
    finished = set() if force else done(store, only)
    kind = task_of(cells[0].setting.dataset, cells[0].setting.backbone)
    todo = [cell for cell in cells if cell.config_id not in finished]
    if changed and only == "time":
        say(f"{len(changed)} {kind.unit} have changed since they were predicted; run it again without --only time")
    elif changed:
        todo = list(cells)  # what is compared has to be of the same files
        for cell in todo:  # should it be stopped, these rows are not taken for done
            store.drop("results", cell.config_id)
    if not todo:
        return Outcome(0, len(cells), 0)
    task = kind.open(cells[0].setting)
    manifest, attached = freeze(task, cells, {cell.config_id for cell in todo}, known, store.folder, command)
    group = Group(task, manifest, attached, store, {cell.config_id for cell in todo}, force, force or bool(changed))
    rows = group.refused()
    if only == "time":
        work.recall(task, attached, store)
    else:
        group.predict()
        if changed or force:
            _finish_others(store, cells)
    if only != "predict":
        rows += group.time(cells)
    else:
        rows += group.finish(group.wanted())
    failed = sum(row["status"] != "ok" for row in rows)
    return Outcome(len(rows) - failed, len(cells) - len(todo), failed)


@dataclass
class Group:
    """Cells that are attached to one network: predicted on the same items, timed in blocks."""

    task: Task
    manifest: Manifest
    attached: Sequence[Attached]
    store: Store
    #: ids of the configurations that are to be measured
    todo: Collection[str]
    #: predict and time again what is there; or time alone, and follow tokens, because it was measured on other files
    force: bool
    retime: bool

    @property
    def dense(self) -> Attached:
        """The cell that all are compared with; it takes part whether it is to be measured or not."""
        return self.attached[0]

    def wanted(self) -> list[Attached]:
        """Return the cells that are to have a row."""
        return [cell for cell in self.attached if cell.cell.config_id in self.todo]

    def refused(self) -> list[Result]:
        """Write the rows of cells that cannot run."""
        refused = [c.config_id for c in self.manifest.cells if c.status != "ok" and c.config_id in self.todo]
        return finish(self.store, self.manifest, refused)

    def predict(self) -> None:
        """Predict everything, and follow the tokens of a few clips."""
        run_id = self.manifest.run_id
        work.predict(self.task, self.attached, self.store, run_id, self.force)
        work.follow(self.task, self.attached, self.store, run_id, self.retime)
        for cell in self.attached:
            self._note(cell)

    def time(self, cells: Sequence[Cell]) -> list[Result]:
        """Time the cells block by block beside dense, and write each block's rows as it ends."""
        inputs = self.inputs()
        rows = self.finish([cell for cell in self.wanted() if cell.error is not None])
        well = {cell.cell.config_id: cell for cell in self.wanted() if cell.error is None}
        if not inputs or self.dense.error is not None:
            return rows + self.finish(list(well.values()))
        self.manifest = with_block(self.manifest, self.task, self.dense, inputs, self.store)
        named = [[well[name] for name in block] for block in blocks(cells, well, self.manifest.block or BLOCK)]
        # dense is timed in every block; its row is written with the first
        named = named or ([[]] if self.dense in self.wanted() else [])
        known = self.counted(inputs)
        with self.timing(len(named)) as progress:
            for number, block in enumerate(named):
                self.time_block(block, inputs, known, progress)
                first = [self.dense] if number == 0 and self.dense in self.wanted() else []
                self.take_memory(first + block, inputs)
                rows += self.finish(first + block)
        if len(named) > 1 or self.dense not in self.wanted():
            self.finish([self.dense])  # its times are those of the block that it was in last
        return rows

    def take_memory(self, cells: Sequence[Attached], inputs: Sequence[Any]) -> None:
        """Take the memory of cells that are well."""
        for cell in (cell for cell in cells if cell.error is None):
            timing.peak_memory(self.task, cell, inputs, self.store, self.manifest.run_id, self.retime)

    def inputs(self) -> Sequence[Any]:
        """Return what the clock walks through, empty where it cannot; end what reads, and write down who cannot run."""
        inputs = [] if self.dense.error is not None else self.task.inputs(self.attached)
        self.task.close()  # from here on time is measured, and idle workers are processes beside it
        self._refuse_uncounted(inputs)
        for cell in (cell for cell in self.attached if cell.error is not None):
            self._note(cell)
        return inputs

    def counted(self, inputs: Sequence[Any]) -> Any:
        """Return the multiply-accumulates of the inputs, as they were stored with the predictions."""
        return work.counted(self.task, [cell for cell in self.attached if cell.error is None], inputs, self.store)

    def timing(self, count: int) -> AbstractContextManager[Progress]:
        """Show the progress of the rounds of so many blocks."""
        rounds = self.task.setting.effort.rounds * self.task.setting.processes
        return progress_of("timing", rounds * count, "rounds")

    def time_block(self, block: Sequence[Attached], inputs: Sequence[Any], known: Any, progress: Progress) -> None:
        """Time cells beside dense; one that fails, though it predicted, is marked, and the others go on without it."""
        while True:
            well = [self.dense, *(cell for cell in block if cell.error is None)]
            own = timing.Block(self.task, well, inputs, known, self.store, self.manifest.run_id)
            try:
                own.run(progress, self.retime)
                return
            except Exception:
                reasons = [(cell, own.failure(cell)) for cell in well[1:]]
                if all(reason is None for _, reason in reasons):
                    raise
                for cell, reason in reasons:
                    if reason is not None:
                        cell.fail(reason)
                        self._note(cell)

    def finish(self, cells: Sequence[Attached]) -> list[Result]:
        """Derive the rows of cells."""
        return finish(self.store, self.manifest, {cell.cell.config_id for cell in cells})

    def _note(self, cell: Attached) -> None:
        """Write down that a cell has predicted, or what went wrong."""
        name = note_part(cell.cell.config_id)
        if cell.error is None and self.store.has("work", name) and cell.cell.config_id not in self.todo:
            return
        row: WorkRow = {"run_id": self.manifest.run_id, "config_id": cell.cell.config_id, "kind": "predicted"}
        row |= {"process": 0, "timestamp_utc": datetime.now(UTC), "status": cell.status, "error": cell.error}
        self.store.write("work", name, [row])

    def _refuse_uncounted(self, inputs: Sequence[Any]) -> None:
        """Mark random controls that would copy token counts which nobody has found yet."""
        clips = set(self.task.timed(inputs))
        for cell in (cell for cell in self.attached if cell.error is None and cell.cell.copies is not None):
            if not clips <= self.task.kept.get(cell.cell.copies or "", {}).keys():
                cell.status = "refused"
                cell.error = "the token counts it copies are not there; predict first (without --only time)"


def note_part(config_id: str) -> str:
    """Name the part of `work` that says that a cell has predicted, or what went wrong with it."""
    return f"{config_id}-predicted"


def blocks(cells: Sequence[Cell], wanted: Collection[str], size: int) -> list[list[str]]:
    """Return the cells (by `config_id`) that are timed side by side, of those `wanted`, dense aside.

    Those of equal keep ratio, the random control too, are near. Blocks are cut from all cells of a request, so that a
    run that goes on finds the rounds of the one before.
    """
    others = [cell.config_id for cell in sorted(cells[1:], key=lambda cell: cell.keep or 0)]
    found = [[name for name in others[at : at + size] if name in wanted] for at in range(0, len(others), size)]
    return [block for block in found if block]


def with_block(manifest: Manifest, task: Task, dense: Attached, inputs: Sequence[Any], store: Store) -> Manifest:
    """Return the manifest with the number of cells that are timed side by side; measured and written but once."""
    if manifest.block is not None:
        return manifest
    found = dataclasses.replace(manifest, block=timing.block_size(task, dense, inputs))
    found.write(store.folder)
    return found


def changed_of(cells: Sequence[Cell], store: Store) -> set[str]:
    """Return the items whose files are others than those that cells of a group were measured on."""
    setting = cells[0].setting
    kind = task_of(setting.dataset, setting.backbone)
    return work.changed(kind, setting, {cell.prediction_id for cell in cells}, store)


def _finish_others(store: Store, cells: Sequence[Cell]) -> None:
    """Derive again the rows of cells that were not asked for, but are compared with these, which are predicted anew."""
    asked, dense = {cell.config_id for cell in cells}, cells[0].prediction_id
    for manifest in every(store.folder):
        if manifest.dense.prediction_id == dense:
            finish(store, manifest, {cell.config_id for cell in manifest.cells} - asked)


def _say_foreign(store: Store, groups: Sequence[Sequence[Cell]]) -> None:
    """Say why rows that are there stand for none of what was asked, where an older vpbench wrote them."""
    results: pd.DataFrame = store.read("results", columns=("config_id", "schema_version"))
    old = results[results["schema_version"] < 7]
    if len(old) and not {cell.config_id for cells in groups for cell in cells} & set(results["config_id"]):
        count = sum(len(cells) for cells in groups)
        say(
            f"{store.folder} holds {len(old)} rows of an older vpbench, whose ids knew no machine and no calibration: "
            f"they are shown on, and the {count} cells asked for are measured again"
        )


def _say_elsewhere(store: Store, groups: Sequence[Sequence[Cell]], known: Digests) -> None:
    """Say that times which are there are not those of this machine."""
    names = ("config_id", "prediction_id", "device_name", "wall_ms_p50")
    results: pd.DataFrame = store.read("results", columns=names)
    there = set(results["config_id"])
    wanted = {cell.prediction_id for cells in groups for cell in cells if cell.config_id not in there}
    timed = results[results["wall_ms_p50"].notna() & results["prediction_id"].isin(wanted)]
    if others := sorted({name for name in timed["device_name"] if not known.machine.endswith(name)}):
        say(
            f"{store.folder} has these cells timed on {' and on '.join(others)}: times are of their machine, and are "
            "taken anew on this one; predictions are kept where the videos are the same"
        )
