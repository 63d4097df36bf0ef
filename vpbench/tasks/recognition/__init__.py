"""Clips with one label per video: what the runner asks, answered by session, quality, timing and rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from vpbench.api import DENSE, manifest_digest
from vpbench.errors import UsageError
from vpbench.measure.rounds import Timed
from vpbench.measure.watch.clips import as_seen, watched
from vpbench.plan import Cell, Setting
from vpbench.progress import Task
from vpbench.rows import fates
from vpbench.rows.fates import Fate
from vpbench.rows.schema import Row
from vpbench.rows.store import Store
from vpbench.tasks import columns
from vpbench.tasks import task as tasks_task
from vpbench.tasks.attach import Attached
from vpbench.tasks.recognition import predict, score, timing
from vpbench.tasks.recognition.session import Session, batch_for, open_dataset
from vpbench.tasks.task import Job


class Recognition(Job):
    """Cells that classify the same clips."""

    unit = "videos"
    unread = "videos"

    def __init__(self, session: Session) -> None:
        self.session, self.seen = session, score.seen(session)

    @classmethod
    def manifest(cls, setting: Setting) -> str:
        """Return the digest of the list of videos."""
        return manifest_digest(open_dataset(setting).videos(setting.split)[: setting.limit])

    @classmethod
    def open(cls, setting: Setting) -> Recognition:
        """Load data and weights."""
        if setting.max_batch and not setting.device.startswith("cuda"):
            raise UsageError("--max-batch is for CUDA devices: a host that runs out of memory kills processes")
        if setting.stages and setting.mode != "eager":
            raise UsageError(f"in mode {setting.mode} stages run into each other; time --stages in mode eager")
        return cls(Session(setting))

    @property
    def total(self) -> int:
        """Videos."""
        return len(self.session.videos)

    @property
    def rounds(self) -> int:
        """Rounds of the profile, of one clip (or batch) each."""
        setting = self.session.setting
        return setting.effort.rounds * setting.processes

    def recall(self, cells: Sequence[Cell], todo: Sequence[Cell], clips: Callable[[str], pd.DataFrame]) -> None:
        """Read the token counts that random controls copy, where an earlier run has already found them."""
        for config_id in {cell.match for cell in todo if cell.match}:
            read = clips(config_id).dropna(subset=["tokens_layer"])
            pairs = zip(read["clip_id"], read["tokens_layer"], strict=True)
            self.session.kept[config_id] = {clip: predict.kept_of(tokens) for clip, tokens in pairs}

    def ready(self, cell: Cell) -> Attached:
        """Attach the method to the backbone."""
        return self.session.ready(cell)

    def measure(
        self, cells: Sequence[Attached], store: Store, run_id: str, repeat: Callable[[str], bool], task: Task
    ) -> Row:
        """Classify all views of all videos."""
        return predict.measure(self.session, cells, store, run_id, repeat, task)

    def largest_batch(self) -> int:
        """Search for it, with clips of the first video that can be read."""
        clips = next((loaded.clips for loaded in self.session.feed.stream(self.session.videos) if loaded.clips), ())
        self.session.feed.close()
        if not clips:
            raise UsageError("none of the videos can be read, so nothing tells how many clips fit")
        found = timing.largest_batch(self.session, DENSE, clips)
        if found is None:
            raise UsageError(f"not even one clip of {self.session.setting.backbone} fits on the device")
        return found

    def samples_to_show(self) -> Sequence[fates.Sample]:
        """Read the first view of the first videos."""
        clips = self.session.clips_to_show()
        every = len(clips[0].pixels) // self.session.backbone.grid.slots if clips else 1
        return [fates.Sample(clip.clip_id, clip.video_id, as_seen(clip)[::every], clip) for clip in clips]

    def fate(self, ready: Attached, sample: fates.Sample) -> Fate:
        """Follow the tokens of one clip."""
        batch = batch_for(self.session.backbone, [sample.given], self.session.setting.device)
        return watched(self.session.backbone, batch, ready.pruner).fate

    def samples_to_time(self, cells: Sequence[Attached]) -> Sequence[Any]:
        """Decode clips spread over the split."""
        return self.session.clips_to_time()

    def time_block(self, dense: Attached, cells: Sequence[Attached], inputs: Sequence[Any], task: Task) -> Timed:
        """Time forwards from pixels to logits."""
        return timing.time_block(self.session, dense, cells, inputs, task)

    def samples(self, run_id: str, timed: Timed, dense_id: str) -> Mapping[str, Sequence[Row]]:
        """Return the raw samples by configuration."""
        return columns.samples(run_id, timed, dense_id)

    def common(self, run: tasks_task.Run, cell: Cell) -> Row:
        """Columns known before anything is measured."""
        return columns.common(run, cell, self.seen)

    def finished(self, base: Row, ready: Attached, dense: Attached, store: Store, timed: Timed) -> Row:
        """Row of a cell that was measured."""
        own, reference = (
            score.Predicted(*(store.read(table, each.cell.config_id) for table in ("clips", "videos")))
            for each in (ready, dense)
        )
        row = score.finished(base, ready, own, reference, timed, dense.cell.config_id, self.session.setup_s)
        return row | score.by_head(self.session.heads, own.videos)

    def memory(self, ready: Attached, inputs: Sequence[Any]) -> Row:
        """Peak of one forward, and its energy where that was asked for."""
        row = timing.peak_memory(self.session, ready, inputs)
        return row | (timing.joules(self.session, ready, inputs) if self.session.setting.energy else {})
