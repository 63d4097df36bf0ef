"""A part of a video file, by the seconds at which its frames are shown."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vpbench.data import Seconds
from vpbench.data.video.reader import DecodeError, Frames, Reader, TimedReader, check_indices

#: how long after the end of its video a part may end. Annotations of the last action often do by a few frames; a file
#: that misses more is not the one that was annotated
END_SLACK_S = 0.5


def within(path: Path, reader: TimedReader, part: Seconds) -> Reader:
    """Return a reader of the frames shown in `[part.start, part.stop)`, seconds after the first frame of the video.

    Raises DecodeError if there are none, or the video ends more than `END_SLACK_S` before the part does.
    """
    times = reader.seconds()
    first, stop = (int(n) for n in np.searchsorted(times, (part.start, part.stop), side="left"))
    span = f"the part from {part.start:g} s to {part.stop:g} s"
    end = float(times[-1]) + float(times[-1]) / max(len(times) - 1, 1)  # the last frame is shown for a while, too
    if part.stop > end + END_SLACK_S:
        raise DecodeError(f"{path}: {span} ends after the video, which has {end:.2f} s; fetch the whole video")
    if part.start < 0 or first >= stop:
        raise DecodeError(f"{path}: no frame is shown in {span} (of {end:.2f} s); check the list")
    return _Part(path, reader, first, stop - first)


class _Part:
    def __init__(self, path: Path, reader: Reader, first: int, count: int) -> None:
        self._path, self._reader, self._first, self._count = path, reader, first, count
        self.fps = reader.fps

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> Frames:
        check_indices(self._path, indices, len(self))
        return self._reader.read([self._first + i for i in indices])
