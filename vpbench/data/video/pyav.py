"""The default reader: PyAV, in this process, exact on every kind of clip that the tests build."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vpbench.data.video.container import explained, jumps, opened, video_stream
from vpbench.data.video.index import check_by_decoding, index_of, later
from vpbench.data.video.pixels import Converter
from vpbench.data.video.reader import DecodeError, Frames, TimedReader, check_indices, check_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


#: frames that it is cheaper to decode than to jump over
NEAR = 4


@contextmanager
def open_pyav(path: Path) -> Iterator[TimedReader]:
    """Open a video file; raises DecodeError if it is damaged or its frames cannot be told apart."""
    with ExitStack() as stack:
        with explained(path):
            reader = _PyavReader(path, stack.enter_context(opened(path)))
        yield reader


class _PyavReader:
    def __init__(self, path: Path, container: "InputContainer") -> None:
        self._path, self._container = path, container
        self._stream = video_stream(path, container)
        self._index = index_of(path, container)
        self.fps = self._index.fps
        self._converter = Converter()
        self._progressive = self._interlaced = False  # not known before a frame is decoded

    def __len__(self) -> int:
        return len(self._index.times)

    def seconds(self) -> NDArray[np.float64]:
        return self._index.seconds()

    def read(self, indices: Sequence[int]) -> Frames:
        check_indices(self._path, indices, len(self))
        context = self._stream.codec_context
        check_size(self._path, len(indices), context.width, context.height)
        with explained(self._path):
            found = self._jumping(indices) if jumps(self._stream) else self._found(indices)
            if found.missing:  # seeking missed, as it may in MPEG-TS; opening anew is the one sure start
                with opened(self._path) as container:
                    self._walk(container, video_stream(self._path, container), found, found.missing, every=True)
        if found.missing:
            raise DecodeError(
                f"{self._path}: {len(found.missing)} of the {len(set(indices))} frames wanted cannot be decoded; "
                "fetch it again"
            )
        return found.frames()

    def _found(self, indices: Sequence[int]) -> "_Found":
        return _Found(self._path, self._index.times, indices)

    def _jumping(self, indices: Sequence[int]) -> "_Found":
        """Decode only from key frames to wanted frames; what was missed is left in `missing`."""
        import av

        found = self._found(indices)
        try:
            for start, wanted in self._runs(sorted(set(indices))):
                self._container.seek(start, stream=self._stream, backward=True)
                self._walk(self._container, self._stream, found, wanted, every=self._interlaced)
        except (av.error.FFmpegError, DecodeError):
            pass  # not all formats can seek; a fault of the data comes up again in decoding from the start
        except _Interlaced:
            check_by_decoding(self._path, self._index)  # a field may be a packet of its own, and counted as a frame
            self._interlaced = True
            return self._jumping(indices)
        return found

    def _runs(self, wanted: Sequence[int]) -> Iterator[tuple[int, set[int]]]:
        """Split ascending frames where a jump to a key frame saves decoding; yields the PTS to seek and to find."""
        times = self._index.times
        keys = np.searchsorted(times, self._index.keys)
        # -1, the last start, where no key frame is shown before a frame: an edit list hides it
        group = np.searchsorted(keys, wanted, side="right") - 1
        cuts = [n for n in range(1, len(wanted)) if group[n] >= 0 and keys[group[n]] > wanted[n - 1] + NEAR]
        for first, stop in zip([0, *cuts], [*cuts, len(wanted)], strict=True):
            yield int(self._index.starts[group[first]]), set(times[wanted[first:stop]].tolist())

    def _walk(
        self, container: "InputContainer", stream: "VideoStream", found: "_Found", wanted: set[int], *, every: bool
    ) -> None:
        """Decode from where the container stands until all wanted PTS have come.

        Unless `every` frame is to be decoded, those of H.264 that nobody wants and no other frame refers to are left
        out: it saves a third of the time and changes no pixel of the rest.
        """
        context, last = stream.codec_context, None
        left, may_skip = set(wanted), context.name == "h264" and not every
        skipping = False
        context.skip_frame = "DEFAULT"
        for packet in container.demux(stream):
            if may_skip and skipping != (skip := self._progressive and packet.pts not in left):
                skipping, context.skip_frame = skip, "NONREF" if skip else "DEFAULT"
            for frame in packet.decode():
                if frame.interlaced_frame and not every:
                    raise _Interlaced
                self._progressive = True
                last = later(self._path, frame.pts, last)
                if last in left and not frame.is_corrupt:
                    found.put(last, self._converter.rgb(frame))
                    left.discard(last)
                    if not left:
                        return


class _Interlaced(Exception):
    """A frame consists of two fields."""


class _Found:
    """The result of one `read`, filled as frames are decoded."""

    def __init__(self, path: Path, times: NDArray[np.int64], indices: Sequence[int]) -> None:
        self._path, self._count = path, len(indices)
        self._frames: Frames | None = None
        self._slots: dict[int, list[int]] = {}
        for slot, index in enumerate(indices):
            self._slots.setdefault(int(times[index]), []).append(slot)
        self.missing = set(self._slots)

    def put(self, pts: int, rgb: Frames) -> None:
        """Store a frame; raises DecodeError if it is not as large as the others."""
        if self._frames is None:
            check_size(self._path, self._count, rgb.shape[1], rgb.shape[0])
            self._frames = np.empty((self._count, *rgb.shape), np.uint8)
        if self._frames.shape[1:] != rgb.shape:
            raise DecodeError(f"{self._path}: the frame size changes within the video")
        self._frames[self._slots[pts]] = rgb
        self.missing.discard(pts)

    def frames(self) -> Frames:
        """Return what was asked for, once nothing is missing."""
        assert self._frames is not None
        return self._frames
