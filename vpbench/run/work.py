"""The work itself: what cells predict, and how long they take. Neither looks at the other; `run.finish` does."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from vpbench.errors import explain
from vpbench.plan import Setting
from vpbench.progress import say
from vpbench.progress import task as progress_of
from vpbench.rows import fates
from vpbench.rows.schema import SCHEMAS, FateRow
from vpbench.rows.store import Store, to_arrow
from vpbench.tasks.task import Attached, Predicted, Read, Task, kept_of

#: seconds of predictions that a kill costs at most, or one item of one cell where that takes longer; before that it is
#: this share of what was done since the start, so that a run that is killed again and again still goes on
SETTLE_S, SETTLE_SHARE = 20.0, 0.1
#: seconds that all cells together may take for items that were read at once, and items of them at most
CHUNK_S, CHUNK = 10.0, 50


@dataclass
class Parts:
    """Rows on their way into part files: all that was predicted since the last one was written.

    `tag` ends the names of the parts; no other process has it. `began`: when the first of these parts, or of parts of
    this process before them, was begun, by `time.perf_counter`.
    """

    store: Store
    run_id: str
    tables: Sequence[str]
    tag: str
    began: float = field(default_factory=time.perf_counter)
    _rows: dict[str, list[Any]] = field(default_factory=dict)
    _arrow: dict[str, list[pa.Table]] = field(default_factory=dict)
    _number: int = 0
    _newest: int | None = None
    _since: float = field(default_factory=time.perf_counter)

    def add(self, found: Predicted) -> None:
        """Take what a cell predicted of an item; written down at once where much has come, or some time ago."""
        own = {"run_id": self.run_id, "prediction_id": found.cell.cell.prediction_id}
        for table, rows in found.rows.items():
            if isinstance(rows, pa.Table):
                self._arrow.setdefault(table, []).append(rows)
            else:
                self._rows.setdefault(table, []).extend(own | row for row in rows)
        now = time.perf_counter()
        if now - self._since > min(SETTLE_S, SETTLE_SHARE * (now - self.began)):
            self.settle()

    def settle(self) -> None:
        """Write a part of each table, the last of which makes the others whole."""
        if self._rows or self._arrow:
            name = f"{self._stamp():020d}-{self._number:05d}-{self.tag}"
            self.store.write_together(name, {table: self._content(table) for table in self.tables})
            self._number += 1
        self._rows, self._arrow, self._since = {}, {}, time.perf_counter()

    def _stamp(self) -> int:
        """Return the time, or more where a clock that goes before this one has named a part: the later comes later."""
        if self._newest is None:
            stamps = (name.partition("-")[0] for name in self.store.parts(self.tables[-1]))
            self._newest = max((int(stamp) for stamp in stamps if stamp.isdigit()), default=0)
        self._newest = max(time.time_ns(), self._newest + 1)
        return self._newest

    def _content(self, table: str) -> pa.Table:
        own = self._arrow.get(table, [])
        return pa.concat_tables([SCHEMAS[table].empty_table(), *own, to_arrow(table, self._rows.get(table, []))])


def predict(task: Task, cells: Sequence[Attached], store: Store, run_id: str, force: bool) -> None:
    """Predict all items with all cells, dense first, and write it down as it comes.

    What is there is left alone, unless `force`, where it could not be read, or where its file has changed since.
    """
    ids, every = [_id(cell) for cell in cells], set(task.items)
    todo: Mapping[str, Collection[str]] = dict.fromkeys(ids, every)
    if not force:
        todo = missing(type(task), task.setting, ids, every, store)
    recall(task, cells, store)
    total = sum(task.steps(item) for items in todo.values() for item in items)
    with progress_of("quality", total, f"{task.unit} x cells") as progress:
        predict_items(task, cells, todo, Parts(store, run_id, task.tables, run_id), progress.advance)


def predict_items(
    task: Task,
    cells: Sequence[Attached],
    todo: Mapping[str, Collection[str]],
    parts: Parts,
    advance: Callable[[int], None],
) -> None:
    """Predict the items that each cell, by prediction id, has still to see; `advance` is told of steps that are done.

    What was predicted is kept whatever ends it.
    """
    wanted = set().union(*todo.values())
    try:
        for found in _predicted(task, cells, todo, task.read(wanted)):
            parts.add(found)
            advance(task.steps(found.item))
    finally:
        parts.settle()


def _predicted(
    task: Task, cells: Sequence[Attached], todo: Mapping[str, Collection[str]], stream: Iterator[Read]
) -> Iterator[Predicted]:
    """Yield what each cell has still to predict; as many items go together as all cells are soon through with."""
    size = 1
    while chunk := list(islice(stream, size)):
        began = time.perf_counter()
        for read in (read for read in chunk if read.error is not None):
            say(f"unreadable, counted as failed: {read.error}")
        own = [c for c in cells if c.error is None and any(read.item in todo[_id(c)] for read in chunk)]
        yield from (found for found in task.predict(cells[0], own, chunk) if found.item in todo[_id(found.cell)])
        took = max(1e-3, time.perf_counter() - began)
        size = max(1, min(CHUNK, round(len(chunk) * CHUNK_S / took), 2 * len(chunk)))


def _id(cell: Attached) -> str:
    return cell.cell.prediction_id


def missing(
    kind: type[Task], setting: Setting, ids: Collection[str], items: Collection[str], store: Store
) -> dict[str, set[str]]:
    """Return the items that each of these predictions, by id, has still to see: not read yet, or of other files."""
    other = changed(kind, setting, ids, store)
    if other:
        say(f"{len(other)} {kind.unit} have changed since they were measured, and are measured again")
    kept = {name: there & set(items) - other for name, there in seen(kind, ids, store).items()}
    if taken := sum(map(len, kept.values())):
        say(f"{taken} of {len(ids) * len(items)} predictions are there already")
    return {name: set(items) - there for name, there in kept.items()}


def seen(
    kind: type[Task], ids: Collection[str], store: Store, parts: Collection[str] | None = None
) -> dict[str, set[str]]:
    """Return the items that are there of each of these predictions, but for those that some could not read.

    With `parts`, those in parts of these names.
    """
    rows = store.read(kind.unread, columns=("prediction_id", "video_id", "error"), only=set(ids), parts=parts)
    unread = set(rows.loc[rows["error"].notna(), "video_id"])
    there: dict[str, set[str]] = {name: set() for name in ids}
    for prediction_id, video_id in zip(rows["prediction_id"], rows["video_id"], strict=True):
        there[prediction_id].add(video_id)
    return {name: items - unread for name, items in there.items()}


def changed(kind: type[Task], setting: Setting, ids: Collection[str], store: Store) -> set[str]:
    """Return the items whose files are others than those that some of these predictions (by id) were made of."""
    names = ("file_bytes", "file_mtime_ns", "file_digest")
    if not set(names) <= set(SCHEMAS[kind.unread].names):
        return set()
    return kind.changed(setting, store.read(kind.unread, columns=("video_id", *names), only=ids))


def recall(task: Task, cells: Sequence[Attached], store: Store) -> None:
    """Read the token counts that random controls copy, where an earlier run has already found them."""
    copied = {cell.cell.copies for cell in cells if cell.cell.copies}
    if not copied:
        return
    read = store.read("clips", columns=("prediction_id", "clip_id", "tokens_layer"), only=copied).dropna()
    for name, clip, tokens in zip(read["prediction_id"], read["clip_id"], read["tokens_layer"], strict=True):
        task.kept.setdefault(name, {})[clip] = kept_of(tokens)


def follow(task: Task, cells: Sequence[Attached], store: Store, run_id: str, force: bool) -> None:
    """Write what becomes of the tokens of the first clips in each cell, dense first; frames come with dense alone.

    Cells that have theirs are left alone, unless `force`. Tokens that cannot be followed are named, and left out.
    """
    there = set() if force else set(store.read("fates", columns=("prediction_id",))["prediction_id"])
    todo = [cell for cell in cells if cell.error is None and _id(cell) not in there]
    if not todo:
        return
    samples, dense_id = task.samples_to_show(), _id(cells[0])
    for cell in todo:
        own: FateRow = {"run_id": run_id, "prediction_id": _id(cell), "dense_id": dense_id}
        try:
            rows = [own | fates.row_of(task.fate(cell, sample), sample, frames=cell is cells[0]) for sample in samples]
        except Exception as error:  # a picture less must not end a run
            say(f"{cell.cell.label}: no picture of its tokens: {explain(error)}")
            continue
        store.write("fates", f"{_id(cell)}-{run_id}", rows)


def counted(
    task: Task, cells: Sequence[Attached], inputs: Sequence[Any], store: Store
) -> Mapping[str, Mapping[str, int]]:
    """Return the multiply-accumulates of timed clips as they were stored, by prediction id and clip."""
    clips = set(task.timed(inputs))
    if not clips:
        return {}
    ids = {_id(cell) for cell in cells}
    read = store.read("clips", columns=("prediction_id", "clip_id", "macs"), only=ids).dropna()
    found: dict[str, dict[str, int]] = {}
    for name, clip, macs in zip(read["prediction_id"], read["clip_id"], read["macs"], strict=True):
        if clip in clips:
            found.setdefault(name, {})[clip] = int(macs)
    return found
