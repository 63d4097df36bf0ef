"""What of a plan is done, running, dead or missing, and how long the rest will take; loads no network, writes nothing.

It is seen from the files of the results folder alone, and no clock of another machine is asked: how long work takes is
what workers measured, and who is alive is whose lease goes on while it is watched.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpbench.plan.manifest import Frozen, Manifest, every
from vpbench.rows.store import Store
from vpbench.run import lease
from vpbench.run.lease import Held, Leases
from vpbench.tasks import task_named


@dataclass(frozen=True)
class Status:
    """One group of cells, as it lies on disk.

    `shards` and `timed` count shards and cells; `steps`: videos or frames times cells, those in leases too; `running`
    and `dead`: leases with and without signs of life. `step_s`: seconds of one worker per step; None before any shard.
    """

    manifest: Manifest
    unit: str
    cells: Sequence[Frozen]
    shards: int
    shards_done: int
    steps: int
    steps_done: int
    timed: int
    running: Sequence[Held]
    dead: Sequence[Held]
    step_s: float | None

    @property
    def left_s(self) -> float | None:
        """Seconds until all is predicted, with the workers that are at it, or with one; None where nothing tells."""
        workers = max(1, sum(not _times(held) for held in self.running))
        return None if self.step_s is None else (self.steps - self.steps_done) * self.step_s / workers

    def lines(self) -> Iterator[str]:
        """Say it, in a few lines."""
        setting = self.manifest.setting
        how = ", ".join((setting["dataset"] + " " + setting["split"], setting["mode"], f"batch {setting['batch']}"))
        unable = len(self.manifest.cells) - len(self.cells)
        yield f"{setting['backbone']} on {how}: {len(self.cells)} cells" + f", {unable} refused or failed" * bool(
            unable
        )
        (running, timing), (dead, stuck) = (_apart(leases) for leases in (self.running, self.dead))
        missing = self.shards - self.shards_done - running - dead
        yield f"  predicted  {self.steps_done} of {self.steps} {self.unit} x cells"
        shards = f"{self.shards_done} of {self.shards} done, {running} running, {dead} dead, {missing} missing"
        yield f"  shards     {shards}"
        if self.manifest.block is not None:
            yield f"  timed      {self.timed} of {len(self.cells)} cells; blocks: {timing} running, {stuck} dead"
        if self.steps_done < self.steps:
            left = "nothing tells how long the rest takes" if self.left_s is None else f"about {_said(self.left_s)}"
            yield f"  left       {left}, with {running or 'no'} worker{'s' * (running != 1)} at it"


class Watch:
    """The groups of a results folder, watched."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder, writable=False)
        self._leases = Leases(folder)
        self._manifests = every(folder)

    def statuses(self, watch_s: float | None = None) -> list[Status]:
        """Return what there is of each group, after watching leases until all have given a sign of life, or so long.

        By default it watches for two and a half heartbeats.
        """
        until = time.monotonic() + (2.5 * lease.BEAT_S if watch_s is None else watch_s)
        while True:
            found = self._leases.look().values()
            silent = [held for held in found if not self._leases.alive(held)]
            if not [held for held in silent if not self._leases.dead(held)] or time.monotonic() > until:
                break
            time.sleep(0.2)
        gone = {held.piece for held in silent}
        return [self._status(manifest, found, gone) for manifest in self._manifests]

    def _status(self, manifest: Manifest, leases: Iterable[Held], gone: set[str]) -> Status:
        task = task_named(manifest.seen["task"])
        work = self._store.read("work", columns=("config_id", "kind", "status", "found"))
        predicted = work[work["kind"] == "predicted"]
        unwell = set(predicted.loc[predicted["status"] != "ok", "config_id"])
        cells = [cell for cell in manifest.cells if cell.status == "ok" and cell.config_id not in unwell]
        ids, configs = {cell.prediction_id for cell in cells}, {cell.config_id for cell in cells}
        rows = self._store.read(task.unread, columns=("prediction_id", "video_id"), only=ids)
        there = Counter(zip(rows["prediction_id"], rows["video_id"], strict=True))
        whole = [
            all(there[name, item] >= steps for name in ids for item, steps in shard.items())
            for shard in manifest.shards
        ]
        own = [held for held in leases if _is_piece(held, manifest)]
        told = [
            json.loads(found)
            for found in predicted.loc[predicted["config_id"] == manifest.dense.config_id, "found"].dropna()
        ]
        steps = sum(each["steps"] for each in told)
        return Status(
            manifest,
            task.unit,
            cells,
            len(whole),
            sum(whole),
            sum(sum(shard.values()) for shard in manifest.shards) * len(ids),
            sum(there.values()),
            len(configs & set(work.loc[work["kind"] == "rounds", "config_id"])),
            [held for held in own if held.piece not in gone],
            [held for held in own if held.piece in gone],
            sum(each["seconds"] for each in told) / steps if steps else None,
        )

    def shards(self) -> tuple[int, int, int]:
        """Return steps that workers have done, those of all shards, and how many workers have given a sign of life.

        Quick enough to be asked every few seconds: it reads names, and leases.
        """
        done, total, alive = 0, 0, 0
        notes, leases = self._store.parts("work"), self._leases.look()
        for manifest in self._manifests:
            cells = len({cell.prediction_id for cell in manifest.cells if cell.status == "ok"})
            own = manifest.dense.config_id
            ended = {int(name.split("-")[2]) for name in notes if name.startswith(f"{own}-") and name.count("-") > 2}
            held = {_shard(each): each for each in leases.values() if _is_piece(each, manifest) and not _times(each)}
            for number, shard in enumerate(manifest.shards):
                whole = sum(shard.values()) * cells
                total += whole
                done += whole if number in ended else min(whole, held[number].steps) if number in held else 0
        alive = sum(self._leases.alive(each) for each in leases.values())
        return done, total, alive


def _apart(leases: Sequence[Held]) -> tuple[int, int]:
    """Count leases of shards, and of blocks of timing."""
    blocks = sum(_times(held) for held in leases)
    return len(leases) - blocks, blocks


def _times(held: Held) -> bool:
    return "-block-" in held.piece


def _is_piece(held: Held, manifest: Manifest) -> bool:
    """Tell whether a lease is of a shard or a block of a group, not of its pictures or of a device."""
    return held.piece.startswith(manifest.dense.config_id) and not held.piece.endswith("-fates")


def _shard(held: Held) -> int:
    return int(held.piece.rpartition("-")[2])


def _said(seconds: float) -> str:
    """Say how long something takes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
