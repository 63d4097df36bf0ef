"""A worker among several that share a results folder: it takes shards of items, then blocks of timing, by leases.

Workers know nothing of each other but the files in the folder. Each begins with its share and then takes what nobody is
at; one that dies loses what it had not written yet, and its pieces go to the others.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from vpbench.errors import UsageError
from vpbench.measure.rounds import BLOCK
from vpbench.progress import Task as Progress
from vpbench.progress import say
from vpbench.progress import task as progress_of
from vpbench.rows.schema import WorkRow
from vpbench.rows.store import Store
from vpbench.run import timing, weighing, work
from vpbench.run.group import Group, Only, blocks, note_part
from vpbench.run.lease import Lease, Leases, Lost
from vpbench.run.planned import Planned, planned
from vpbench.run.resolve import Job
from vpbench.tasks import task_of
from vpbench.tasks.task import Task

#: seconds between two looks at what others have done
POLL_S = 2.0


@dataclass(frozen=True)
class Shards:
    """The worker that begins with share `own` of `of`."""

    own: int
    of: int

    def __call__(self, job: Job, only: Only | None) -> None:
        """Do what is planned and not done, until all is done or others are at it; rows are `finish`'s business."""
        plans = planned(job.asked.out, job)  # before there is a folder, which nobody wants of a misspelt name
        _Worker(plans, Store(job.asked.out), self.own, self.of).run(only)


class _Worker:
    def __init__(self, plans: Sequence[Planned], store: Store, own: int, of: int) -> None:
        self.plans, self.store, self.own, self.of = plans, store, own, of
        self.leases = Leases(store.folder)
        #: in the names of its parts
        self.name = uuid.uuid4().hex[:12]
        self.began = time.perf_counter()
        self._open: tuple[Planned, Group] | None = None

    def run(self, only: Only | None) -> None:
        for plan in self.plans if only != "time" else ():
            self._predict(plan)
        if only == "time":
            self._refuse_uncounted()
        for plan in self.plans if only != "predict" else ():
            self._time(plan)

    def _refuse_uncounted(self) -> None:
        """Raise UsageError where random controls would copy token counts that are not all there."""
        for plan in self.plans:
            copied = {cell.copies for cell in plan.cells if cell.copies is not None}
            table = task_of(plan.setting.dataset, plan.setting.backbone).unread
            rows = self.store.read(table, columns=("prediction_id", "video_id"), only=copied).drop_duplicates()
            if len(rows) < len(copied) * sum(map(len, plan.manifest.shards)):
                raise UsageError(
                    "random controls copy token counts, which are not all there; let workers predict first (without "
                    "--only time)"
                )

    def _predict(self, plan: Planned) -> None:
        kind, ids = task_of(plan.setting.dataset, plan.setting.backbone), [cell.prediction_id for cell in plan.cells]
        before, noted = self.store.parts(kind.unread), self.store.parts("work")
        items = {item for shard in plan.manifest.shards for item in shard}
        todo = work.missing(kind, plan.setting, ids, items, self.store)
        left = {
            plan.shard(number): number
            for number, shard in enumerate(plan.manifest.shards)
            if any(not todo[name].isdisjoint(shard) for name in ids)
        }
        if left:
            self._predict_shards(plan, kind, left, todo, before, noted)
        self._follow(plan)

    def _predict_shards(
        self,
        plan: Planned,
        kind: type[Task],
        left: Mapping[str, int],
        todo: Mapping[str, Collection[str]],
        before: Collection[str],
        noted: Collection[str],
    ) -> None:
        """Predict the shards `left`, by name, beside other workers; returns when all are predicted.

        before, noted: parts of predictions and of notes that were there when `todo` was found out.
        """
        ids = [cell.prediction_id for cell in plan.cells]
        for note in {plan.note(number) for number in left.values()}.intersection(noted):
            self.store.drop("work", note)  # whoever wrote it had other videos, or a cell that failed
        steps = {name: len(ids) * plan.shards[name] for name in left}
        with progress_of("quality, all workers", sum(steps.values()), f"{kind.unit} x cells") as progress:
            notes = {plan.note(number): name for name, number in left.items()}

            def finished() -> set[str]:
                return {notes[part] for part in self.store.parts("work") & notes.keys()}

            told = _Told(steps, progress)
            names = [name for name in self._from_own([*plan.shards]) if name in left]
            with closing(self._each(names, finished, told.others)) as taken:
                for name, lease in taken:
                    told.begin(name, lease)
                    with _said_if_lost(f"shard {left[name]}"):
                        self._shard(plan, left[name], todo, before, told.advance)

    def _shard(
        self,
        plan: Planned,
        number: int,
        todo: Mapping[str, Collection[str]],
        before: Collection[str],
        advance: Callable[[int], None],
    ) -> None:
        """Predict what is not there yet of a shard, and write down that it is done."""
        group, name, began = self._group(plan), plan.shard(number), time.monotonic()
        task, cells, run_id = group.task, group.attached, plan.manifest.run_id
        # of a worker that died since this one began: what it had written is not done again
        own = {part for part in self.store.parts(task.unread) if part.endswith(f"-{name}")} - set(before)
        there = work.seen(type(task), [cell.cell.prediction_id for cell in cells], self.store, own) if own else {}
        shard = plan.manifest.shards[number]
        left = {each: {*items} & shard.keys() - there.get(each, set()) for each, items in todo.items()}
        if any(cell.copies and left[cell.prediction_id] - left[cell.copies] for cell in plan.cells):
            work.recall(task, cells, self.store)
        done_before = sum(shard.values()) * len(cells) - sum(shard[item] for items in left.values() for item in items)
        advance(done_before)
        parts = work.Parts(self.store, run_id, task.tables, f"{self.name}-{name}", self.began)
        work.predict_items(task, cells, left, parts, advance)
        rows: list[WorkRow] = []
        found = {"seconds": time.monotonic() - began, "steps": sum(shard.values()) * len(cells) - done_before}
        for cell in cells:
            row: WorkRow = {"run_id": run_id, "config_id": cell.cell.config_id, "kind": "predicted", "process": 0}
            row |= {"timestamp_utc": datetime.now(UTC), "status": cell.status, "error": cell.error}
            rows.append(row | {"found": json.dumps(found)})
        self.store.write("work", plan.note(number), rows)

    def _follow(self, plan: Planned) -> None:
        """Follow the tokens of a few clips in each cell, once all is predicted: controls copy token counts."""
        there = set(self.store.read("fates", columns=("prediction_id",))["prediction_id"])
        lease = None if there >= {cell.prediction_id for cell in plan.cells} else self.leases.take(f"{plan.name}-fates")
        if lease is None:
            return
        with lease:
            group = self._group(plan)
            work.recall(group.task, group.attached, self.store)
            work.follow(group.task, group.attached, self.store, plan.manifest.run_id, False)

    def _time(self, plan: Planned) -> None:
        if plan.elsewhere:
            say(f"no times are taken here: {plan.elsewhere}")
            return
        dense, unwell = plan.cells[0].config_id, failed_in_shards(self.store, plan)
        well = plan.untimed - unwell
        apart = blocks(plan.cells, well, plan.manifest.block or BLOCK) or ([[]] if dense in well else [])
        named = {plan.block(timing.block_name([dense, *block])): block for block in apart}

        def finished() -> set[str]:
            there, gone = self.store.parts("work"), failed_while_timed(self.store, plan)
            left = {name: [each for each in block if each not in gone] for name, block in named.items()}
            return {name for name, block in left.items() if block_parts(plan, [dense, *block]) <= there}

        left = [name for name in self._from_own(list(named)) if name not in finished()]
        if dense in unwell or not left or (device := self._device(plan)) is None:
            return
        with device:
            group = self._group(plan)
            work.recall(group.task, group.attached, self.store)
            inputs = group.inputs()
            if not inputs:
                return
            known, cells = group.counted(inputs), {cell.cell.config_id: cell for cell in group.attached}
            with (
                group.timing(len(left)) as progress,
                closing(self._each(left, finished, lambda names: None, wait=False)) as taken,
            ):
                for name, lease in taken:
                    gone = failed_while_timed(self.store, plan)
                    block = [cells[config_id] for config_id in named[name] if config_id not in gone]
                    with _said_if_lost("a block of timing"):
                        group.time_block(block, inputs, known, _Held(progress, lease))
                        group.take_memory([cells[dense], *block], inputs)

    def _from_own(self, names: Sequence[str]) -> list[str]:
        """Return pieces in the order in which this worker comes by: its share first."""
        at = len(names) * self.own // self.of
        return [*names[at:], *names[:at]]

    def _device(self, plan: Planned) -> Lease | None:
        """Return the lease of this worker's device, which has to be idle; None where another one times on it."""
        name = f"device-{timing.device_id(plan.setting.device)}"
        while (lease := self.leases.take(name)) is None:
            held = self.leases.look([name]).get(name)
            if held is not None and self.leases.alive(held):
                say("another worker takes times on this device; this one leaves them to it")
                return None
            time.sleep(POLL_S)
        return lease

    def _each(
        self,
        names: Sequence[str],
        finished: Callable[[], set[str]],
        others: Callable[[Collection[str]], None],
        wait: bool = True,
    ) -> Generator[tuple[str, Lease], None, None]:
        """Yield pieces that are not finished, in order as far as may be, each leased until the next is asked for.

        `others` is told what is finished, whoever did it. At the end it waits until pieces that others are at are
        finished or theirs no more; without `wait`, until it has seen signs of life of all of these.
        """
        left, said = list(names), False
        while True:
            there = finished()
            others(there)
            left = [name for name in left if name not in there]
            if not left:
                return
            for name in left:
                lease = self.leases.take(name)
                if lease is None:
                    continue
                with lease:
                    if name not in finished():
                        yield name, lease
                break
            else:
                held = self.leases.look(left).values()
                if not wait and held and all(self.leases.alive(each) for each in held):
                    return
                if not said:
                    say(f"waiting for other workers: {len(left)} left that they are at")
                said = True
                time.sleep(POLL_S)

    def _group(self, plan: Planned) -> Group:
        """Load the network of a plan, and attach its cells with the parameters that were frozen."""
        if self._open is None or self._open[0] is not plan:
            self._open = None
            task = task_of(plan.setting.dataset, plan.setting.backbone).open(plan.setting)
            frozen = {cell.config_id: cell.parameters for cell in plan.manifest.cells}
            attached = [task.attach(cell, frozen[cell.config_id]) for cell in plan.cells]
            ids = {cell.config_id for cell in plan.cells}
            self._open = plan, Group(task, plan.manifest, attached, self.store, ids, False, False)
        return self._open[1]


@contextmanager
def _said_if_lost(what: str) -> Iterator[None]:
    """Go on where a piece has gone to another worker."""
    try:
        yield
    except Lost:
        say(f"{what} has gone to another worker: this one gave no sign of life for too long")


@dataclass
class _Held:
    """A progress bar that raises Lost where the piece that it is about has gone to another worker."""

    progress: Progress
    lease: Lease

    def advance(self, steps: int = 1, said: str = "") -> None:
        """Take steps that are done."""
        self.progress.advance(steps, said)
        self.lease.advance(steps)


@dataclass
class _Told:
    """Tells a progress bar, and the lease of the piece at hand, of steps that are done by any worker."""

    steps: Mapping[str, int]
    progress: Progress
    _name: str = ""
    _lease: Lease | None = None

    def __post_init__(self) -> None:
        self._known: dict[str, int] = {}

    def begin(self, name: str, lease: Lease) -> None:
        """Say which piece is at hand."""
        self._name, self._lease = name, lease

    def advance(self, steps: int) -> None:
        """Take steps of the piece at hand; raises Lost where it has gone to another worker."""
        self._count(self._name, self._known.get(self._name, 0) + steps)
        assert self._lease is not None
        self._lease.advance(steps)

    def others(self, names: Collection[str]) -> None:
        """Take pieces that are done, whoever did them."""
        for name in names:
            self._count(name, self.steps[name])

    def _count(self, name: str, steps: int) -> None:
        more = min(steps, self.steps[name]) - self._known.get(name, 0)
        self._known[name] = self._known.get(name, 0) + more
        self.progress.advance(more)


def failed_in_shards(store: Store, plan: Planned) -> set[str]:
    """Return the cells (by `config_id`) that failed in a shard."""
    return _unwell(store, {plan.note(number) for number in range(len(plan.manifest.shards))})


def failed_while_timed(store: Store, plan: Planned) -> set[str]:
    """Return the cells (by `config_id`) that failed later than that."""
    return _unwell(store, {note_part(cell.config_id) for cell in plan.cells})


def _unwell(store: Store, notes: Collection[str]) -> set[str]:
    rows = store.read("work", columns=("config_id", "status"), parts=notes)
    return set(rows.loc[rows["status"] != "ok", "config_id"])


def block_parts(plan: Planned, config_ids: Sequence[str]) -> set[str]:
    """Name the parts of `work` that say that a block is done, the memory of its cells too."""
    found = timing.block_parts(plan.setting, config_ids)
    return found | {weighing.memory_part(config_id) for config_id in config_ids}
