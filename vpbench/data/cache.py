"""Decoded views on disk, for those who measure the same videos again and again; the least used ones make room."""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpbench.data import Video
from vpbench.data.state import state_of
from vpbench.errors import UsageError
from vpbench.progress import say
from vpbench.storage import whole


@dataclass(frozen=True)
class ClipCache:
    """A folder of arrays, one file per video and way to cut it, of `limit_bytes` in all.

    Any number of processes may use one folder. A file is found again only while the video's file has the same size
    and time of change.
    """

    folder: Path
    limit_bytes: int

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--cache {self.folder}: {error.strerror}; name a folder that can be written") from error

    def read(self, video: Video, key: str) -> NDArray[Any] | None:
        """Return the views of a video, or None where they are not (or no longer) there; `key`: how they were cut."""
        path = self._file(video, key)
        try:
            views: NDArray[Any] = np.load(path, allow_pickle=False)
            os.utime(path)  # what is used stays
        except (OSError, ValueError, EOFError):
            return None
        return views

    def write(self, video: Video, key: str, views: NDArray[Any]) -> None:
        """Keep the views of a video; where the disk refuses, that is said, and the run goes on without."""
        path = self._file(video, key)
        if views.nbytes > self.limit_bytes:
            return
        try:
            self._make_room(views.nbytes)
            with whole(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, views)
        except OSError as error:
            say(f"{path}: not cached ({error.strerror}); free some space or leave out --cache")

    def _make_room(self, wanted: int) -> None:
        found = []
        # what a process that was killed had not finished goes like any other
        for path in (*self.folder.glob("*.npy"), *self.folder.glob(".*.tmp")):
            with contextlib.suppress(FileNotFoundError):  # another process made room as well
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found) + wanted
        for _, size, path in sorted(found):
            if total <= self.limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _file(self, video: Video, key: str) -> Path:
        found = state_of(video)
        state = (-1, -1) if found is None else (found.size, found.changed_ns)
        own = f"{video!r} {state} {key}"
        return self.folder / f"{hashlib.sha256(own.encode()).hexdigest()[:32]}.npy"
