"""Files that lack frames: most containers open all the same, and then seem to be shorter videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from vpbench.data.video.container import opened, video_stream
from vpbench.data.video.reader import DecodeError

if TYPE_CHECKING:
    from av.container import InputContainer


#: containers that say nowhere how long they are
ENDLESS = ("mpegts", "mpeg")
#: a gap of so many usual ones is a lost frame; film shown at the rate of television has gaps of 1.5
LOST = 1.75
_SEGMENT = 0x18538067


def check_whole(path: Path, container: "InputContainer", packets: int, times: Sequence[int]) -> None:
    """Raise DecodeError if frames are missing in a file, of which `packets` packets could be read.

    `times`: the PTS of the frames shown, ascending. MPEG-TS cut between two frames cannot be told from a shorter one.
    """
    name = container.format.name
    if expected := video_stream(path, container).frames:
        # AVI counts time slots; those of dropped frames are empty, and so are some behind each where slots are finer
        there = times[-1] + _usual_gap(times) if name == "avi" else packets
        if there < expected:  # an edit list may hide whole groups of frames: count without it
            there = max(there, _count_unedited(path))
        if there < expected:
            raise DecodeError(f"{path}: truncated, {there} of {expected} frames are there; fetch it again")
    elif name in ENDLESS:
        _check_even(path, times)
    else:
        end = _end_of_segment(path) if name.startswith("matroska") else _end_of_boxes(path)
        if end > (size := path.stat().st_size):
            raise DecodeError(f"{path}: truncated, {size} of {end} bytes are there; fetch it again")


def _usual_gap(times: Sequence[int]) -> int:
    return int(np.median(np.diff(times))) if len(times) > 1 else 1


def _count_unedited(path: Path) -> int:
    """Count the whole packets in the file, those hidden by an edit list included."""
    with opened(path, ignore_editlist="1") as container:
        packets = container.demux(video_stream(path, container))
        return sum(1 for packet in packets if packet.size and not packet.is_corrupt)


def _check_even(path: Path, times: Sequence[int]) -> None:
    """Look for the gaps that packets leave that were lost, on the way or at the end (of B-frames yet to come)."""
    gaps = np.diff(times)
    if len(gaps) and gaps.max() > LOST * np.median(gaps):
        raise DecodeError(
            f"{path}: frames are missing, or come at a variable rate, which MPEG-TS cannot tell from that; "
            "fetch it again, or put it into an MP4"
        )


def _end_of_segment(path: Path) -> int:
    """Return where the one large element of a Matroska or WebM file says it ends; 0 if it does not say so."""
    with path.open("rb") as file:
        for _ in range(8):  # the header, maybe padding, the segment
            name, size = _number(file, keep_marker=True), _number(file, keep_marker=False)
            if name is None or size is None:
                return 0
            if name == _SEGMENT:
                return file.tell() + size
            file.seek(size, 1)
    return 0


def _number(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """Read one of Matroska's numbers, whose first byte tells their length; None where it means "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big")
    if keep_marker:
        return value
    value -= 1 << 7 * length
    return None if value == (1 << 7 * length) - 1 else value


def _end_of_boxes(path: Path) -> int:
    """Return where the last box of an MP4 file says it ends, for those in fragments, which count no frames."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            if length == 1:
                length = int.from_bytes(file.read(8), "big")
            if length < 8 or not kind.strip(b"\0"):  # 0 is "until the end of the file"; else padding
                return at
            at += length
    return at if at >= size else size + 1  # up to seven bytes of another box
