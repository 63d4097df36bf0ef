"""What a reader is, and the checks that all readers share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vpbench.errors import VpbenchError

Frames = NDArray[np.uint8]
#: of one frame, far above 4K (8.3 million): beyond it a file is a mistake, or made to exhaust memory
MAX_PIXELS = 50_000_000
#: of the frames of one `read`; 300 frames of 1080p are below it
MAX_READ_BYTES = 2_000_000_000


class DecodeError(VpbenchError):
    """A video that cannot be read as asked; the message is `path: reason`."""


class Reader(Protocol):
    """An open video, or a part of one."""

    @property
    def fps(self) -> float | None:
        """The average frame rate of the whole video, as its header says; None where unknown (folders of frames)."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def read(self, indices: Sequence[int]) -> Frames:
        """Return the frames `[n, H, W, 3]`, uint8 RGB, in the order asked; an index may come twice.

        Each frame is decoded once, whatever the order. Raises DecodeError if a frame does not exist, cannot be decoded
        or all together are too large, ValueError if no index is given.
        """


class TimedReader(Reader, Protocol):
    """An open video file."""

    def seconds(self) -> NDArray[np.float64]:
        """Return when each frame is shown, `[n]`, in seconds after the first one, ascending."""


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Put the path in front of a DecodeError that lacks it."""
    try:
        yield
    except DecodeError as error:
        if str(error).startswith(str(path)):
            raise
        raise DecodeError(f"{path}: {error}") from error


def frame_indices(total: int, frames: int, stride: int) -> list[int]:
    """Return `frames` indices, `stride` apart, from 0 on; raises DecodeError if the video is too short for them."""
    last = (frames - 1) * stride
    if last >= total:
        raise DecodeError(
            f"too short: {total} frames, but {frames} frames with stride {stride} need {last + 1}; give fewer --frames"
        )
    return list(range(0, last + 1, stride))


def check_file(path: Path) -> None:
    """Raise DecodeError unless there is a file with something in it."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DecodeError(f"{path}: {error.strerror}") from error
    if not path.is_file():
        raise DecodeError(f"{path}: not a file")
    if size == 0:
        raise DecodeError(f"{path}: empty file; fetch it again")


def check_indices(path: Path, indices: Sequence[int], total: int) -> None:
    """Raise DecodeError if a frame does not exist, ValueError if none is asked for."""
    if not indices:
        raise ValueError("no frame indices given")
    if outside := [i for i in indices if not 0 <= i < total]:
        raise DecodeError(f"{path}: frame {outside[0]} asked for, the video has {total} (0 to {total - 1})")


def check_size(path: Path, frames: int, width: int, height: int) -> None:
    """Raise DecodeError if a frame, or `frames` of them as RGB, are beyond the limits."""
    advice = "make smaller copies (vpbench data prepare resize NAME --short-side 320)"
    if width * height > MAX_PIXELS:
        raise DecodeError(f"{path}: {width}x{height} pixels, more than {MAX_PIXELS / 1e6:g} million; {advice}")
    if (size := frames * width * height * 3) > MAX_READ_BYTES:
        raise DecodeError(
            f"{path}: {frames} frames of {width}x{height} are {size / 1e9:.1f} GB, more than "
            f"{MAX_READ_BYTES / 1e9:g} GB; {advice}"
        )
