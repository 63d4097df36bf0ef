"""Cells become rows: quality first, then time and memory; a failure is a row with its reason."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vpbench import checkpoints, quality, registry, rows, timing
from vpbench.api import Video, manifest_digest
from vpbench.errors import UsageError, VpbenchError
from vpbench.measure import machine
from vpbench.plan import PROFILES, Cell, Digests, Options, Setting
from vpbench.progress import say, task
from vpbench.session import Ready, Session, explain, open_dataset
from vpbench.store import Store

Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a run did: cells measured now, cells that had been measured before, cells without a result."""

    measured: int
    already: int
    failed: int


def digests(setting: Setting) -> Callable[[Iterable[str]], Digests]:
    """Return what hashes weights, clip list and method sources for the plan."""
    videos = open_dataset(setting).videos(setting.split)[: setting.limit]
    weights = checkpoints.weights_digest(setting.backbone, setting.weights)

    def of(methods: Iterable[str]) -> Digests:
        code = {name: registry.code_digest(name) for name in methods}
        return Digests(weights, manifest_digest(videos), code)

    return of


def threads() -> int:
    """Threads used where none were asked for: all cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(cells: Sequence[Cell], known: Digests, store: Store, command: str, force: bool) -> Outcome:
    """Measure all cells that have no finished row yet (all of them with `force`) and write their rows.

    `cells` is one request: dense first, all with one setting. Raises UsageError if the setting itself cannot be
    loaded; what goes wrong with single cells ends up in their rows.
    """
    done = set() if force else store.done()
    todo = [cell for cell in cells if cell.config_id not in done]
    if not todo:
        return Outcome(0, len(cells), 0)
    session = Session(cells[0].setting)
    run_facts = rows.Run(uuid.uuid4().hex[:12], command, known, machine.snapshot(cells[0].setting.device))
    work = _Work(session, store, run_facts, force)
    work.recall(todo)
    ready = work.prepare(cells[0], todo)
    decode_ms = work.quality(ready)
    work.time(ready, {c.config_id for c in todo}, decode_ms)
    return Outcome(work.measured, len(cells) - len(todo), work.failed)


@dataclass
class _Work:
    session: Session
    store: Store
    facts: rows.Run
    force: bool
    measured: int = 0
    failed: int = 0

    def recall(self, todo: Sequence[Cell]) -> None:
        """Read the token counts that random controls copy, where an earlier run has already found them."""
        for config_id in {cell.match for cell in todo if cell.match}:
            read = self._clips(config_id).dropna(subset=["tokens_layer"])
            pairs = zip(read["clip_id"], read["tokens_layer"], strict=True)
            self.session.kept[config_id] = {clip: quality.kept_of(tokens) for clip, tokens in pairs}

    def prepare(self, dense: Cell, todo: Sequence[Cell]) -> list[Ready]:
        """Attach all methods, dense first; a cell that cannot run is written as `refused` before anything runs."""
        ready, refused = [self.session.ready(dense)], set[str]()
        for cell in todo:
            if cell.config_id == dense.config_id:
                continue
            try:
                if cell.match in refused:
                    raise UsageError("the cell whose token counts it copies cannot run")
                ready.append(self.session.ready(cell))
            except Exception as error:  # a broken plug-in must not end the run of the others
                refused.add(cell.config_id)
                status = "refused" if isinstance(error, UsageError) else "failed"
                self._write_failed(cell, status, explain(error))
        return ready

    def quality(self, ready: Sequence[Ready]) -> list[float]:
        """Predict all clips with all cells; videos that could not be read before are tried again."""
        rows = [self._clips(r.cell.config_id) for r in ready]
        unreadable = {video for found in rows for video in found.loc[found["error"].notna(), "video_id"]}

        def repeat(video: Video) -> bool:
            return self.force or video.video_id in unreadable

        with task("quality", len(self.session.videos), "clips") as progress:
            return quality.measure(self.session, ready, self.store, self.facts.run_id, repeat, progress)

    def time(self, ready: Sequence[Ready], asked: set[str], decode_ms: Sequence[float]) -> None:
        """Time the cells block by block beside dense, and write each block's rows as it ends."""
        dense, others = ready[0], [c for c in ready[1:] if c.error is None]
        for cell in ready[1:]:
            if cell.error is not None:
                self._write_failed(cell.cell, cell.status, cell.error)
        if not others and dense.cell.config_id not in asked:
            return
        clips = timing.timed_clips(self.session, timing.CLIPS * self.session.setting.batch)
        if dense.error is not None or not clips:
            reason = dense.error or f"none of the {len(self.session.videos)} videos could be decoded"
            for cell in (c for c in ready if c.error is None or c is dense):
                if cell.cell.config_id in asked:
                    self._write_failed(cell.cell, "failed", reason)
            return
        rounds = PROFILES[self.session.setting.profile].rounds
        # cells of equal keep ratio, the random control among them, share a block
        blocks = _blocks(sorted(others, key=lambda ready: ready.cell.keep or 0))
        with task("timing", rounds * max(1, len(blocks)), "rounds") as progress:
            for number, block in enumerate(blocks or [()]):
                timed = timing.time_block(self.session, dense, block, clips, progress)
                # dense is measured in every block; its row comes from the first one
                wanted = [*([dense] if number == 0 and dense.cell.config_id in asked else []), *block]
                self._write_block(dense, wanted, timed, clips, decode_ms)

    def _write_block(
        self,
        dense: Ready,
        cells: Sequence[Ready],
        timed: timing.Timed,
        clips: Sequence[Any],
        decode_ms: Sequence[float],
    ) -> None:
        dense_id = dense.cell.config_id
        for config_id, found in rows.samples(self.facts.run_id, timed, dense_id).items():
            self.store.write("samples", f"{config_id}-{self.facts.run_id}-{cells_key(cells)}", list(found))
        reference = self._clips(dense_id)
        disturbed = bool(machine.warnings(dataclasses.replace(self.facts.before, load=timed.busy_before)))
        for cell in cells:
            base = rows.common(self.facts, self.session, cell.cell)
            own = reference if cell is dense else self._clips(cell.cell.config_id)
            try:
                row = rows.finished(self.session, base, cell, own, reference, timed, dense_id)
                row |= timing.peak_memory(self.session, cell, clips)
            except VpbenchError as error:
                self._write_failed(cell.cell, "failed", str(error))
                continue
            row |= {"decode_ms": float(pd.Series(decode_ms).median()) if decode_ms else None}
            row |= {"load_before": timed.busy_before, "load_after": timed.busy_after}
            row["noisy"] |= disturbed or not timed.settled[cell.cell.config_id]
            self._write(row)

    def _clips(self, config_id: str) -> pd.DataFrame:
        return self.store.read("clips", config_id)

    def _write_failed(self, cell: Cell, status: str, error: str) -> None:
        say(f"{cell.label}: {status}: {error}")
        self._write(rows.failed(rows.common(self.facts, self.session, cell), status, error))

    def _write(self, row: Row) -> None:
        self.store.write("results", f"{row['config_id']}-{self.facts.run_id}", [row])
        if row["status"] == "ok":
            self.measured += 1
        else:
            self.failed += 1


def cells_key(cells: Sequence[Ready]) -> str:
    """Short name of a block of cells, to tell its samples from those of other blocks of the same run."""
    return hashlib.sha256(",".join(c.cell.config_id for c in cells).encode()).hexdigest()[:6]


def _blocks(cells: Sequence[Ready]) -> list[tuple[Ready, ...]]:
    return [tuple(cells[i : i + timing.BLOCK]) for i in range(0, len(cells), timing.BLOCK)]


def resolve(asked: Options) -> tuple[Setting, Callable[[Iterable[str]], Digests]]:
    """Return the shared setting of a request and its digests, for the plan."""
    from vpbench import plan

    shared = plan.setting(asked, threads())
    return shared, digests(shared)
