"""decord as published pipelines use it, in a process of its own; see `vpbench.data.decord_worker`.

It repeats what those pipelines saw, but what it is known to show wrongly is refused: PyAV reads it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vpbench.data import decord_worker
from vpbench.data.video.container import explained, jumps, opened, video_stream
from vpbench.data.video.pixels import Converter, turns
from vpbench.data.video.reader import DecodeError, Frames, TimedReader, check_indices, check_size
from vpbench.data.video.whole import ENDLESS

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: decoders of AV1
AV1 = frozenset({"av1", "libdav1d", "libaom-av1"})
_ADVICE = "use --decoder pyav"


@contextmanager
def open_decord(path: Path) -> Iterator[TimedReader]:
    """Open a video file in the worker of this process; raises DecodeError, UsageError if there is no decord."""
    stored = _checked(path)
    worker = decord_worker.shared()
    try:
        yield _DecordReader(path, worker, stored)
    except decord_worker.DecordFailed as error:
        raise DecodeError(f"{path}: {error}") from error
    finally:
        worker.close_video()


@dataclass(frozen=True)
class _Stored:
    """Frames that are shown, and their width and height as stored."""

    frames: int
    width: int
    height: int


def _checked(path: Path) -> _Stored:
    """Look into a file; raises DecodeError for what decord would show wrongly or choke on."""
    with explained(path):
        frames = _count(path)
        with opened(path) as container:
            stream = video_stream(path, container)
            _check_kind(container, stream)
            for frame in container.decode(stream):
                if turns(frame) and not container.format.name.startswith("mov"):
                    raise DecodeError(f"is to be shown turned, which decord does in MP4 only; {_ADVICE}")
                Converter().rgb(frame)  # decord takes any colour matrix for one that it knows
                return _Stored(frames, frame.width, frame.height)
    raise DecodeError("no frames in it")


def _check_kind(container: "InputContainer", stream: "VideoStream") -> None:
    context = stream.codec_context
    if context.codec.name in AV1:
        raise DecodeError(f"decord has no decoder for AV1; {_ADVICE}")
    if not jumps(stream):
        raise DecodeError(
            f"decord loses what {context.codec.name} with {context.pix_fmt} keeps between frames; {_ADVICE}"
        )
    best = container.streams.best("video")
    if best is None or best.index != stream.index:
        raise DecodeError(f"several video streams, of which decord takes another than the first; {_ADVICE}")
    if container.format.name in (*ENDLESS, "avi") and context.has_b_frames:
        raise DecodeError(f"B-frames, which decord mixes up in this container; {_ADVICE}")


def _count(path: Path) -> int:
    """Count the packets whose frames are shown; raises DecodeError where their times lead decord astray."""
    shown, key, before = 0, None, None
    with opened(path) as container:
        for packet in container.demux(video_stream(path, container)):
            if not packet.size:
                continue  # the flush packet at the end
            if packet.pts is None:
                raise DecodeError(f"frames without time stamps, which decord mixes up; {_ADVICE}")
            if packet.is_keyframe:
                key = packet.pts
            if key is not None and packet.pts < key:
                raise DecodeError(f"groups of frames are open, which decord mixes up; {_ADVICE}")
            if container.format.name == "avi" and before is not None and packet.pts != before + 1:
                raise DecodeError(f"frames are left out or reordered, which decord does not see in AVI; {_ADVICE}")
            before = packet.pts
            shown += not packet.is_discard
    return shown


class _DecordReader:
    """A video opened by the worker; the length is asked once, frames on demand."""

    def __init__(self, path: Path, worker: decord_worker.Worker, stored: _Stored) -> None:
        self._path, self._worker, self._stored = path, worker, stored
        self._length, self.fps = worker.length(str(path))
        if self._length != stored.frames:
            raise DecodeError(f"{stored.frames} frames are shown, of which decord makes {self._length}; {_ADVICE}")

    def __len__(self) -> int:
        return self._length

    def seconds(self) -> NDArray[np.float64]:
        times = self._worker.seconds(str(self._path))
        if not (np.diff(times) > 0).all():
            raise DecodeError(f"decord does not know when its frames are shown; {_ADVICE}")
        return times

    def read(self, indices: Sequence[int]) -> Frames:
        check_indices(self._path, indices, len(self))
        check_size(self._path, len(indices), self._stored.width, self._stored.height)
        return self._worker.frames(str(self._path), indices)
