"""Read frames out of video files: exactly the frames asked for, or an error that names the file and the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vpbench import decord_worker
from vpbench.errors import UsageError, VpbenchError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

Frames = NDArray[np.uint8]


class DecodeError(VpbenchError):
    """A video that cannot be read as asked; the message is `path: reason`."""


class Reader(Protocol):
    """An open video."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def read(self, indices: Sequence[int]) -> Frames:
        """Return the frames `[n, H, W, 3]`, uint8 RGB, in the order asked; an index may come twice.

        Raises DecodeError if a frame does not exist or cannot be decoded, ValueError if no index is given.
        """


@contextmanager
def open_reader(path: Path, decoder: str) -> Iterator[Reader]:
    """Open a video with `pyav` (in this process) or `decord` (in a worker that is killed when it hangs).

    On sound files both give the same pixels. On clips cut by stream copy decord miscounts and reorders frames without
    a word: it is there to repeat published pipelines. Raises DecodeError for files that cannot be read, here or while
    reading (one raised in the `with` block gets the path in front); UsageError for a decoder that is unknown or does
    not work here.
    """
    if decoder not in ("pyav", "decord"):
        raise UsageError(f"unknown decoder {decoder!r} (known: pyav, decord)")
    try:
        _check_file(path)
        with _open_pyav(path) if decoder == "pyav" else _open_decord(path) as reader:
            yield reader
    except DecodeError as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise DecodeError(f"{path}: {error}") from error


def decode(path: Path, indices: Sequence[int], decoder: str) -> Frames:
    """Open a video, read frames `[n, H, W, 3]`, uint8 RGB, and close it; raises what `open_reader` raises."""
    with open_reader(path, decoder) as reader:
        return reader.read(indices)


def frame_indices(total: int, frames: int, stride: int) -> list[int]:
    """Return `frames` indices, `stride` apart, from 0 on; raises DecodeError if the video is too short for them."""
    last = (frames - 1) * stride
    if last >= total:
        raise DecodeError(f"too short: {total} frames, but {frames} frames with stride {stride} need {last + 1}")
    return list(range(0, last + 1, stride))


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror}") from error
    if not path.is_file():
        raise DecodeError(f"{path}: not a file")
    if size == 0:
        raise DecodeError(f"{path}: empty file; fetch it again")


def _check_indices(path: Path, indices: Sequence[int], total: int) -> None:
    if not indices:
        raise ValueError("no frame indices given")
    if outside := [i for i in indices if not 0 <= i < total]:
        raise DecodeError(f"{path}: frame {outside[0]} asked for, the video has {total} (0 to {total - 1})")


class _PyavReader:
    """Frame i is the i-th presentation time stamp (PTS) among the packets that are shown.

    Counting packets instead of trusting the header keeps B-frames, edit lists and variable frame rates exact.
    """

    def __init__(self, path: Path, container: InputContainer) -> None:
        self._path, self._container = path, container
        self._stream = _video_stream(path, container)
        self._times, self._keys = self._index()
        if container.format.name == "avi" and self._stream.codec_context.has_b_frames:
            self._check_order()

    def _index(self) -> tuple[list[int], list[int]]:
        """Return the sorted PTS of the frames shown and of the key frames among them."""
        path, times, keys, packets = self._path, [], [], 0
        for packet in self._container.demux(self._stream):
            if not packet.size:
                continue  # the flush packet at the end
            packets += 1
            if packet.is_corrupt:
                raise DecodeError(f"{path}: truncated or damaged at packet {packets}; fetch it again")
            if packet.pts is None:
                raise DecodeError(f"{path}: packet {packets} has no time stamp; put the video into an MP4")
            if not packet.is_discard:
                times.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        if not times:
            raise DecodeError(f"{path}: no frames in it")
        self._check_whole(packets, max(times))
        if len(set(times)) < len(times):
            raise DecodeError(f"{path}: several frames have the same time stamp; encode it again")
        return sorted(times), sorted(keys)

    def _check_whole(self, packets: int, last: int) -> None:
        """Compare what was read with the header's count, which is 0 where the container has none."""
        expected, there = self._stream.frames, packets
        if self._container.format.name == "avi":
            there = last + 1  # AVI counts time slots, and those of dropped frames are empty
        if there < expected:  # an edit list may hide whole groups of frames: count without it
            there = max(there, _count_unedited(self._path))
        if there < expected:
            raise DecodeError(f"{self._path}: truncated, {there} of {expected} frames are there; fetch it again")

    def _check_order(self) -> None:
        """Decode everything once: AVI has no PTS, and what FFmpeg makes up is wrong for H.264 with B-frames."""
        last: int | None = None
        with _container(self._path) as container:
            for frame in container.decode(_video_stream(self._path, container)):
                last = _later(self._path, frame.pts, last)

    def __len__(self) -> int:
        return len(self._times)

    def read(self, indices: Sequence[int]) -> Frames:
        _check_indices(self._path, indices, len(self))
        wanted = {self._times[i] for i in indices}
        with _explained(self._path):
            found = self._from_key(wanted)
            if len(found) < len(wanted):  # seeking missed, as it may in MPEG-TS; opening anew is the one sure start
                with _container(self._path) as container:
                    found = self._pick(container, _video_stream(self._path, container), wanted)
        if missing := wanted - found.keys():
            raise DecodeError(f"{self._path}: {len(missing)} of {len(wanted)} frames cannot be decoded; fetch it again")
        if len({frame.shape for frame in found.values()}) > 1:
            raise DecodeError(f"{self._path}: the frame size changes within the video")
        return np.stack([found[self._times[i]] for i in indices])

    def _from_key(self, wanted: set[int]) -> dict[int, Frames]:
        """Decode from the last key frame not after the first frame wanted; what was missed is not in the result."""
        import av

        start = max((key for key in self._keys if key <= min(wanted)), default=self._times[0])
        try:
            self._container.seek(start, stream=self._stream, backward=True)
            return self._pick(self._container, self._stream, wanted)
        except av.error.FFmpegError:
            return {}  # not all formats can seek; a fault of the data comes up again in decoding from the start

    def _pick(self, container: InputContainer, stream: VideoStream, wanted: set[int]) -> dict[int, Frames]:
        """Decode from where the container stands until all wanted PTS have come."""
        found: dict[int, Frames] = {}
        last: int | None = None
        for frame in container.decode(stream):
            last = _later(self._path, frame.pts, last)
            if last in wanted and not frame.is_corrupt:
                found[last] = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                if len(found) == len(wanted):
                    break
        return found


def _later(path: Path, pts: int | None, last: int | None) -> int:
    """Return `pts`; raises DecodeError unless it is later than that of the frame shown before."""
    if pts is None or (last is not None and pts <= last):
        raise DecodeError(f"{path}: the time stamps are not in the order of the frames; encode it again as MP4")
    return pts


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise DecodeError(f"{path}: no video stream in it")
    stream = container.streams.video[0]
    stream.thread_count = 1  # one core per reader: decoding must not disturb what is being timed
    return stream


def _container(path: Path, **options: str) -> InputContainer:
    import av
    import av.logging

    av.logging.set_level(av.logging.PANIC)  # ours is the one line; FFmpeg would add several
    # titles in unknown encodings must not make a video unreadable
    return av.open(str(path), options=options, metadata_errors="replace")


def _count_unedited(path: Path) -> int:
    """Count the whole packets in the file, those hidden by an edit list included."""
    with _container(path, ignore_editlist="1") as container:
        packets = container.demux(_video_stream(path, container))
        return sum(1 for packet in packets if packet.size and not packet.is_corrupt)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what FFmpeg raises into a DecodeError."""
    import av

    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise DecodeError(f"{path}: {error.strerror or error}") from error


@contextmanager
def _open_pyav(path: Path) -> Iterator[Reader]:
    with ExitStack() as stack:
        with _explained(path):
            reader = _PyavReader(path, stack.enter_context(_container(path)))
        yield reader


class _DecordReader:
    """A video opened by the worker; the length is asked once, frames on demand."""

    def __init__(self, path: Path, worker: decord_worker.Worker) -> None:
        self._path, self._worker = path, worker
        self._length = worker.length(str(path))

    def __len__(self) -> int:
        return self._length

    def read(self, indices: Sequence[int]) -> Frames:
        _check_indices(self._path, indices, len(self))
        return self._worker.frames(str(self._path), indices)


@contextmanager
def _open_decord(path: Path) -> Iterator[Reader]:
    worker = decord_worker.shared()
    try:
        yield _DecordReader(path, worker)
    except decord_worker.DecordFailed as error:
        raise DecodeError(f"{path}: {error}") from error
    finally:
        worker.close_video()
