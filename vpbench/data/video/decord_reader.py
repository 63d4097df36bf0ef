"""decord as published pipelines use it, in a process of its own; see `vpbench.data.decord_worker`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpbench.data import decord_worker
from vpbench.data.video.container import explained, opened, video_stream
from vpbench.data.video.pixels import turns
from vpbench.data.video.reader import DecodeError, Frames, TimedReader, check_indices, check_size


@contextmanager
def open_decord(path: Path) -> Iterator[TimedReader]:
    """Open a video file in the worker of this process; raises DecodeError, UsageError if there is no decord."""
    width, height = _size(path)
    worker = decord_worker.shared()
    try:
        yield _DecordReader(path, worker, width, height)
    except decord_worker.DecordFailed as error:
        raise DecodeError(f"{path}: {error}") from error
    finally:
        worker.close_video()


def _size(path: Path) -> tuple[int, int]:
    """Return width and height as stored; raises DecodeError for what decord would show wrongly or choke on."""
    with explained(path), opened(path) as container:
        stream = video_stream(path, container)
        for frame in container.decode(stream):
            if turns(frame) and not container.format.name.startswith("mov"):
                raise DecodeError("is to be shown turned, which decord does in MP4 only; use --decoder pyav")
            return frame.width, frame.height
    raise DecodeError("no frames in it")


class _DecordReader:
    """A video opened by the worker; the length is asked once, frames on demand."""

    def __init__(self, path: Path, worker: decord_worker.Worker, width: int, height: int) -> None:
        self._path, self._worker, self._width, self._height = path, worker, width, height
        self._length, self.fps = worker.length(str(path))

    def __len__(self) -> int:
        return self._length

    def seconds(self) -> NDArray[np.float64]:
        return self._worker.seconds(str(self._path))

    def read(self, indices: Sequence[int]) -> Frames:
        check_indices(self._path, indices, len(self))
        check_size(self._path, len(indices), self._width, self._height)
        return self._worker.frames(str(self._path), indices)
