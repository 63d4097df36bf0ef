"""Make the frame index of a dataset: every video opened once, and what that told kept."""

from __future__ import annotations

import time
from pathlib import Path

from vpbench.commands.data.check import How, open_all, stat_all
from vpbench.commands.data.index import NAME, Index
from vpbench.commands.data.output import filling
from vpbench.commands.data.probe import Probe
from vpbench.data import Dataset
from vpbench.errors import NothingMeasured

#: a run that is killed loses no more than this
SAVED_EVERY_S = 30.0


def make_index(name: str, dataset: Dataset, split: str, how: How, out: Path) -> list[str]:
    """Add the videos of a split to `index.parquet`; those that have not changed since are not opened again.

    Raises NothingMeasured if none of them is there.
    """
    videos = dataset.videos(split)
    stats = stat_all({video.path for video in videos})
    present = [video for video in videos if video.path in stats]
    if not present:
        raise NothingMeasured(f"{dataset.root}: none of the {len(videos)} videos of {name} {split} is there")
    target = out / NAME
    with filling(out):
        index = Index.read(target) if target.is_file() else Index()
        saving = _Saving(index, target)
        try:
            known = open_all(present, stats, how, index, saving.take)
        finally:  # after Ctrl-C as well
            index.write(target)
    readable = sum(probe.error is None for probe in saving.taken)
    return [
        f"{target}: {len(present)} of {len(videos)} videos are there, {readable} readable, {known} were known",
        f"next: vpbench data check {name} --root {dataset.root} --split {split} --index {target}",
    ]


class _Saving:
    """Takes what comes, and writes it down from time to time."""

    def __init__(self, index: Index, target: Path) -> None:
        self.taken: list[Probe] = []
        self._index, self._target, self._saved = index, target, time.monotonic()

    def take(self, probes: list[Probe]) -> None:
        self.taken += probes
        self._index.add(probes)
        if time.monotonic() - self._saved > SAVED_EVERY_S:
            self._index.write(self._target)
            self._saved = time.monotonic()
