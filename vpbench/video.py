"""Read frames out of video files: exactly the frames asked for, or an error that names the file and the reason."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vpbench.errors import UsageError, VpbenchError

Frames = NDArray[np.uint8]

#: seconds one request to decord may take; it hangs for ever on some stream-copied clips
DEADLINE_S = 20.0


class DecodeError(VpbenchError):
    """A video that cannot be read as asked; the message is `path: reason`."""


class Reader(Protocol):
    """An open video."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def read(self, indices: Sequence[int]) -> Frames:
        """Return the frames `[n, H, W, 3]`, uint8 RGB, in the order asked; an index may come twice."""


@contextmanager
def open_reader(path: Path, decoder: str) -> Iterator[Reader]:
    """Open a video with `pyav` (in this process) or `decord` (in a worker that is killed when it hangs).

    Raises DecodeError for files that cannot be read, here or while reading; UsageError for an unknown decoder or one
    that is not installed.
    """
    if decoder == "pyav":
        with _open_pyav(path) as reader:
            yield reader
    elif decoder == "decord":
        yield _DecordReader(path)
    else:
        raise UsageError(f"unknown decoder {decoder!r} (known: pyav, decord)")


def frame_indices(total: int, frames: int, stride: int) -> list[int]:
    """Return `frames` indices, `stride` apart, from 0 on; raises DecodeError if the video is too short for them."""
    last = (frames - 1) * stride
    if last >= total:
        raise DecodeError(f"too short: {total} frames, but {frames} frames with stride {stride} need {last + 1}")
    return list(range(0, last + 1, stride))


class _PyavReader:
    """Frame i is the i-th presentation time stamp among the packets that are shown.

    Counting packets instead of trusting the header keeps B-frames, edit lists and variable frame rates exact.
    """

    def __init__(self, path: Path, container) -> None:  # type: ignore[no-untyped-def]
        self.path, self.container = path, container
        if not container.streams.video:
            raise DecodeError(f"{path}: no video stream in it")
        self.stream = container.streams.video[0]
        self.stream.thread_count = 1
        self.times, self.keys = self._index()

    def _index(self) -> tuple[list[int], list[int]]:
        times, keys, packets = [], [], 0
        for packet in self.container.demux(self.stream):
            if packet.pts is None:
                continue  # the flush packet at the end
            packets += 1
            if packet.is_corrupt:
                raise DecodeError(f"{self.path}: damaged packet at frame {packets - 1}; fetch the file again")
            if not packet.is_discard:
                times.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        if packets < self.stream.frames:
            raise DecodeError(
                f"{self.path}: truncated, {packets} of {self.stream.frames} frames are there; fetch it again"
            )
        if not times:
            raise DecodeError(f"{self.path}: no frames in it")
        return sorted(times), sorted(keys)

    def __len__(self) -> int:
        return len(self.times)

    def read(self, indices: Sequence[int]) -> Frames:
        if not indices:
            raise ValueError("no frame indices given")
        if min(indices) < 0 or max(indices) >= len(self):
            raise DecodeError(f"{self.path}: frame {max(indices)} asked for, the video has {len(self)}")
        wanted = {self.times[i] for i in indices}
        start = max((key for key in self.keys if key <= min(wanted)), default=self.times[0])
        found = self._decode(wanted, start)
        if len(found) < len(wanted) and start != self.times[0]:
            found = self._decode(wanted, self.times[0])  # seeking missed: some containers mark key frames wrongly
        if missing := wanted - found.keys():
            raise DecodeError(f"{self.path}: {len(missing)} of {len(wanted)} frames cannot be decoded")
        return np.stack([found[self.times[i]] for i in indices])

    def _decode(self, wanted: set[int], start: int) -> dict[int, Frames]:
        self.container.seek(start, stream=self.stream, backward=True)
        found: dict[int, Frames] = {}
        for frame in self.container.decode(self.stream):
            if frame.pts in wanted:
                found[frame.pts] = frame.to_ndarray(format="rgb24")
                if len(found) == len(wanted):
                    break
        return found


@contextmanager
def _open_pyav(path: Path) -> Iterator[_PyavReader]:
    import av
    import av.logging

    av.logging.set_level(av.logging.PANIC)  # ours is the one line; FFmpeg would add several
    try:
        if path.stat().st_size == 0:
            raise DecodeError(f"{path}: empty file; fetch it again")
        with av.open(str(path)) as container:
            yield _PyavReader(path, container)
    except DecodeError as error:
        # what is raised inside the block (too short, say) may not know the file
        raise error if str(path) in str(error) else DecodeError(f"{path}: {error}") from error
    except (av.error.FFmpegError, OSError) as error:
        raise DecodeError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


class _DecordReader:
    """A video opened by the worker; the length is asked once, frames on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DecodeError(f"{path}: no such file")
        self.length = int(_worker().ask(path, None))

    def __len__(self) -> int:
        return self.length

    def read(self, indices: Sequence[int]) -> Frames:
        frames: Frames = _worker().ask(self.path, list(indices))
        return frames


class _Worker:
    """A process that owns decord, killed when an answer takes longer than the deadline."""

    def __init__(self, target=None) -> None:  # type: ignore[no-untyped-def]
        self.target = target or _serve
        self.process: multiprocessing.process.BaseProcess | None = None
        self.pipe: Connection | None = None

    def ask(self, path: Path, indices: list[int] | None):  # type: ignore[no-untyped-def]
        """Return the answer to one request; raises DecodeError if it is an error or does not come in time."""
        if self.process is None or not self.process.is_alive():
            self._start()
        assert self.pipe is not None
        try:
            self.pipe.send((str(path), indices))
            answered = self.pipe.poll(DEADLINE_S)
            good, answer = (
                self.pipe.recv() if answered else (False, f"no answer within {DEADLINE_S:g} s, decord was killed")
            )
        except (EOFError, BrokenPipeError):
            answered, good, answer = False, False, "decord ended its process"
        if not answered:
            self.stop()
        if not good:
            raise DecodeError(f"{path}: {answer}; --decoder pyav may read it")
        return answer

    def stop(self) -> None:
        """Kill the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=self.target, args=(other,), daemon=True)
        self.process.start()
        other.close()


_the_worker: _Worker | None = None


def _worker() -> _Worker:
    global _the_worker
    if _the_worker is None:
        import importlib.util

        if importlib.util.find_spec("decord") is None:
            raise UsageError("decord is not installed (it has no build for this platform); use --decoder pyav")
        _the_worker = _Worker()
        atexit.register(_the_worker.stop)
    return _the_worker


def _serve(pipe: Connection) -> None:
    """Answer requests in the worker: (path, None) with the length, (path, indices) with the frames."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader: tuple[str, object] | None = None
    with contextlib.suppress(EOFError):  # the parent has gone
        while True:
            path, indices = pipe.recv()
            try:
                if reader is None or reader[0] != path:
                    reader = (path, decord.VideoReader(path, num_threads=1))
                video = reader[1]
                pipe.send((True, len(video) if indices is None else video.get_batch(indices).asnumpy()))  # type: ignore[attr-defined, arg-type]
            except Exception as error:  # crosses the process boundary as text; the parent raises it
                reader = None
                pipe.send((False, str(error).strip().splitlines()[0][:200]))
