"""Cells become rows: quality first, then time and memory; a failure is a row with its reason."""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vpbench.errors import UsageError, VpbenchError, explain
from vpbench.measure import machine
from vpbench.measure.rounds import BLOCK, Timed
from vpbench.plan import Cell, Digests
from vpbench.progress import say, task
from vpbench.rows.fates import row_of
from vpbench.rows.schema import Row
from vpbench.rows.store import Store
from vpbench.tasks import columns, job_of
from vpbench.tasks import task as tasks_task
from vpbench.tasks.attach import Attached
from vpbench.tasks.task import Job


@dataclass(frozen=True)
class Outcome:
    """What a run did: cells measured now, cells that had been measured before, cells without a result."""

    measured: int
    already: int
    failed: int


def run_all(groups: Sequence[Sequence[Cell]], known: Digests, store: Store, command: str, force: bool) -> Outcome:
    """Measure the groups of a request one after the other; see `run`.

    A clip's result does not depend on its batch neighbours: what one batch size has predicted is not predicted again
    for the others of the same mode.
    """
    first: dict[str, Sequence[Cell]] = {}
    found = []
    for cells in groups:
        others = first.setdefault(cells[0].setting.mode, cells)
        found.append(run(cells, known, store, command, force, predicted=() if others is cells else others))
    return Outcome(*(sum(counts) for counts in zip(*map(dataclasses.astuple, found), strict=True)))


def run(
    cells: Sequence[Cell], known: Digests, store: Store, command: str, force: bool, predicted: Sequence[Cell] = ()
) -> Outcome:
    """Measure all cells that have no finished row yet (all of them with `force`) and write their rows.

    `cells` is one group: dense first, all with one setting; `predicted` are the same ones at another batch size, whose
    predictions are taken where they are complete. Raises UsageError if the setting itself cannot be loaded; what goes
    wrong with single cells ends up in their rows.
    """
    finished = store.done()
    todo = [cell for cell in cells if force or cell.config_id not in finished]
    if not todo:
        return Outcome(0, len(cells), 0)
    taken = {}
    for own, other in zip(cells, predicted, strict=False):
        if own in todo and other.config_id in finished:
            store.adopt(("clips", "videos"), other.config_id, own.config_id)
            taken[own.config_id] = other.setting.batch
    setting = cells[0].setting
    job = job_of(setting.dataset, setting.backbone).open(setting)
    run_facts = tasks_task.Run(uuid.uuid4().hex[:12], command, known, machine.snapshot(setting.device))
    work = _Work(job, store, run_facts, force and not taken, taken)
    job.recall(cells, todo, lambda config_id: store.read("clips", config_id))
    ready = work.prepare(cells[0], todo)
    reading = work.quality(ready)
    keep(job, ready, store, run_facts.run_id, force=force)
    work.time(ready, {c.config_id for c in todo}, reading)
    return Outcome(work.measured, len(cells) - len(todo), work.failed)


@dataclass
class _Work:
    job: Job
    store: Store
    facts: tasks_task.Run
    force: bool
    #: config_id -> batch size at which its predictions were made, where that is another one
    predicted: Mapping[str, int]
    measured: int = 0
    failed: int = 0

    def prepare(self, dense: Cell, todo: Sequence[Cell]) -> list[Attached]:
        """Attach all methods, dense first; a cell that cannot run is written as `refused` before anything runs."""
        ready, refused = [self.job.ready(dense)], set[str]()
        for cell in todo:
            if cell.config_id == dense.config_id:
                continue
            try:
                if cell.match in refused:
                    raise UsageError("the cell whose token counts it copies cannot run")
                ready.append(self.job.ready(cell))
            except Exception as error:  # a broken plug-in must not end the run of the others
                refused.add(cell.config_id)
                status = "refused" if isinstance(error, UsageError) else "failed"
                self._write_failed(cell, status, explain(error))
        return ready

    def quality(self, ready: Sequence[Attached]) -> Row:
        """Predict everything with all cells; videos that could not be read before are tried again."""
        rows = [self.store.read(self.job.unread, r.cell.config_id) for r in ready]
        unreadable = {video for found in rows for video in found.loc[found["error"].notna(), "video_id"]}

        def repeat(video: str) -> bool:
            return self.force or video in unreadable

        with task("quality", self.job.total, self.job.unit) as progress:
            return self.job.measure(ready, self.store, self.facts.run_id, repeat, progress)

    def time(self, ready: Sequence[Attached], asked: set[str], reading: Row) -> None:
        """Time the cells block by block beside dense, and write each block's rows as it ends."""
        dense, others = ready[0], [c for c in ready[1:] if c.error is None]
        for cell in ready[1:]:
            if cell.error is not None:
                self._write_failed(cell.cell, cell.status, cell.error)
        if not others and dense.cell.config_id not in asked:
            return
        inputs = [] if dense.error is not None else self.job.samples_to_time(ready)
        if dense.error is not None or not inputs:
            reason = dense.error or f"none of the {self.job.total} {self.job.unit} could be decoded"
            for cell in (c for c in ready if c.error is None or c is dense):
                if cell.cell.config_id in asked:
                    self._write_failed(cell.cell, "failed", reason)
            return
        # cells of equal keep ratio, the random control among them, share a block
        blocks = _blocks(sorted(others, key=lambda ready: ready.cell.keep or 0))
        with task("timing", self.job.rounds * max(1, len(blocks)), "rounds") as progress:
            for number, block in enumerate(blocks or [()]):
                timed = self.job.time_block(dense, block, inputs, progress)
                # dense is measured in every block; its row comes from the first one
                wanted = [*([dense] if number == 0 and dense.cell.config_id in asked else []), *block]
                self._write_block(dense, wanted, timed, inputs, reading)

    def _write_block(
        self,
        dense: Attached,
        cells: Sequence[Attached],
        timed: Timed,
        inputs: Sequence[Any],
        reading: Row,
    ) -> None:
        dense_id = dense.cell.config_id
        for config_id, found in self.job.samples(self.facts.run_id, timed, dense_id).items():
            self.store.write("samples", f"{config_id}-{self.facts.run_id}-{cells_key(cells)}", list(found))
        disturbed = bool(machine.warnings(dataclasses.replace(self.facts.before, load=timed.busy_before)))
        for cell in cells:
            base = self.job.common(self.facts, cell.cell)
            try:
                row = self.job.finished(base, cell, dense, self.store, timed)
                row |= self.job.memory(cell, inputs)
            except VpbenchError as error:
                self._write_failed(cell.cell, "failed", str(error))
                continue
            row |= reading | {"load_before": timed.busy_before, "load_after": timed.busy_after}
            row["predicted_batch"] = self.predicted.get(cell.cell.config_id)
            row["noisy"] |= disturbed or not timed.settled[cell.cell.config_id]
            self._write(row)

    def _write_failed(self, cell: Cell, status: str, error: str) -> None:
        say(f"{cell.label}: {status}: {error}")
        self._write(columns.failed(self.job.common(self.facts, cell), status, error))

    def _write(self, row: Row) -> None:
        self.store.write("results", f"{row['config_id']}-{self.facts.run_id}", [row])
        if row["status"] == "ok":
            self.measured += 1
        else:
            self.failed += 1


def cells_key(cells: Sequence[Attached]) -> str:
    """Short name of a block of cells, to tell its samples from those of other blocks of the same run."""
    return hashlib.sha256(",".join(c.cell.config_id for c in cells).encode()).hexdigest()[:6]


def _blocks(cells: Sequence[Attached]) -> list[tuple[Attached, ...]]:
    return [tuple(cells[i : i + BLOCK]) for i in range(0, len(cells), BLOCK)]


def keep(job: Job, cells: Sequence[Attached], store: Store, run_id: str, *, force: bool) -> None:
    """Write the fates of the first clips in each cell, dense first; frames come with dense alone.

    Cells that have theirs are left alone, unless `force`. Tokens that cannot be followed are named, and left out.
    """
    todo = [c for c in cells if c.error is None and (force or not store.has("fates", c.cell.config_id))]
    if not todo:
        return
    samples, dense_id = job.samples_to_show(), cells[0].cell.config_id
    for ready in todo:
        own = {"run_id": run_id, "config_id": ready.cell.config_id, "dense_id": dense_id}
        try:
            rows = [own | row_of(job.fate(ready, sample), sample, frames=ready is cells[0]) for sample in samples]
        except Exception as error:  # a picture less must not end a run
            say(f"{ready.cell.label}: no picture of its tokens: {error}")
            continue
        store.write("fates", ready.cell.config_id, rows)
