"""Videos with boxes: what the runner asks, answered by session, pass, timing and rows of detection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vpbench.data.video.reader import DecodeError
from vpbench.errors import UsageError
from vpbench.measure.rounds import Timed
from vpbench.plan import Cell, Setting
from vpbench.progress import Task
from vpbench.rows import fates
from vpbench.rows.fates import Fate
from vpbench.rows.schema import Row
from vpbench.rows.store import Store
from vpbench.tasks import columns
from vpbench.tasks import task as tasks_task
from vpbench.tasks.attach import Attached
from vpbench.tasks.detection import predict, score, walk
from vpbench.tasks.detection.session import DetectionSession, annotated, config_of, digest
from vpbench.tasks.detection.watched import as_seen, watched_frames
from vpbench.tasks.task import Job


class Detection(Job):
    """Cells that find objects in the same frames."""

    unit = "frames"
    unread = "clips"

    def __init__(self, session: DetectionSession) -> None:
        self.session, self.seen = session, score.seen(session)
        self.planned: Sequence[Cell] = ()

    @classmethod
    def manifest(cls, setting: Setting) -> str:
        """Return the digest of frames and boxes."""
        config_of(setting)  # its mistakes are named before large sets are read
        return digest(annotated(setting)[1])

    @classmethod
    def open(cls, setting: Setting) -> Detection:
        """Load annotations and weights."""
        if setting.processes > 1:
            raise UsageError("detectors are timed in this process alone; give --processes 1")
        if setting.mode != "eager":
            raise UsageError("detectors run in mode eager alone; leave --mode out")
        asked = {"--e2e": setting.e2e, "--energy": setting.energy, "--max-batch": setting.max_batch}
        for option in (name for name, given in asked.items() if given):
            raise UsageError(f"{option} is not there for detectors; leave it out")
        return cls(DetectionSession(setting))

    @property
    def total(self) -> int:
        """Frames."""
        return self.session.frames

    @property
    def rounds(self) -> int:
        """Rounds, of a window of frames each."""
        return walk.ROUNDS

    def recall(self, cells: Sequence[Cell], todo: Sequence[Cell], clips: Callable[[str], pd.DataFrame]) -> None:
        """Remember which cells there are: a method is compared with its control, whenever that was measured."""
        self.planned = cells

    def ready(self, cell: Cell) -> Attached:
        """Attach the method to the detector."""
        return self.session.ready(cell)

    def measure(
        self, cells: Sequence[Attached], store: Store, run_id: str, repeat: Callable[[str], bool], task: Task
    ) -> Row:
        """Find objects in all frames."""
        spent = predict.measure(self.session, cells, store, run_id, repeat, task)
        return {"decode_ms": float(np.median(spent)) if spent else None}

    def samples_to_show(self) -> Sequence[fates.Sample]:
        """Read the first frames of the first videos."""
        found = []
        for video_id, segments in list(self.session.videos.items())[: fates.CLIPS]:
            try:
                looks = [self.session.look(frame) for frame in segments[0].frames[: fates.FRAMES]]
            except DecodeError:
                continue  # said in the pass before, and counted there
            found.append(fates.Sample(video_id, video_id, as_seen(self.session.model, looks), looks))
        return found

    def fate(self, ready: Attached, sample: fates.Sample) -> Fate:
        """Follow the tokens of consecutive frames."""
        return watched_frames(self.session.model, ready.pruner, sample.given).fate

    def samples_to_time(self, cells: Sequence[Attached]) -> Sequence[Any]:
        """Decode windows of frames spread over the split."""
        length = walk.window_length([ready.pruner.period for ready in cells])
        return walk.windows(self.session, length)

    def time_block(self, dense: Attached, cells: Sequence[Attached], inputs: Sequence[Any], task: Task) -> Timed:
        """Time windows from pixels to boxes."""
        return walk.time_block(self.session, dense, cells, inputs, task)

    def samples(self, run_id: str, timed: Timed, dense_id: str) -> Mapping[str, Sequence[Row]]:
        """Return the raw samples by configuration and scope."""
        return score.samples(run_id, timed, dense_id)

    def common(self, run: tasks_task.Run, cell: Cell) -> Row:
        """Columns known before anything is measured."""
        row = columns.common(run, cell, self.seen)
        return row | ({"batching": "lockstep"} if cell.setting.batch > 1 else {})

    def finished(self, base: Row, ready: Attached, dense: Attached, store: Store, timed: Timed) -> Row:
        """Row of a cell that was measured."""
        config_id, dense_id = ready.cell.config_id, dense.cell.config_id
        frames, reference = store.read("clips", config_id), store.read("clips", dense_id)
        return {
            **base,
            **tasks_task.outcome(ready, frames, "clip_id", self.unit),
            "caveat": ready.pruner.caveat or None,
            **score.cost(frames, reference),
            **score.quality(self.session, ready, dense_id, self._control(ready.cell), store.folder),
            **score.time(timed, config_id, dense_id),
        }

    def _control(self, cell: Cell) -> str | None:
        """Id of the random control of a cell."""
        twins = [
            each.config_id
            for each in self.planned
            if (each.method, each.params, each.keep) == (f"{cell.method}_random", cell.params, cell.keep)
        ]
        return twins[0] if twins else None

    def memory(self, ready: Attached, inputs: Sequence[Any]) -> Row:
        """Peak over a dense frame and the one after it."""
        return walk.peak_memory(self.session, ready, inputs)
