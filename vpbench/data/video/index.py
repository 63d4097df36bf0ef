"""Which frames a video file has and when they are shown, from its packets; kept for the files opened last."""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vpbench.data.video.container import opened, video_stream
from vpbench.data.video.reader import DecodeError
from vpbench.data.video.whole import ENDLESS, check_whole

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


#: files whose index is kept: an hour of video at 60 frames/s is 2 MB
KEPT = 8
_kept: "OrderedDict[tuple[str, int, int], Index]" = OrderedDict()


@dataclass(frozen=True, eq=False)
class Index:
    """Frame i is the i-th presentation time stamp (PTS) among the packets that are shown.

    Counting packets instead of trusting the header keeps B-frames, edit lists and variable frame rates exact.
    `times`, `keys`: ascending PTS of all frames and of the key frames among them; `starts`: what to seek for each key
    frame, and last for the first frame of all; `tick`: seconds per unit of them.
    """

    times: NDArray[np.int64]
    keys: NDArray[np.int64]
    starts: NDArray[np.int64]
    tick: tuple[int, int]
    fps: float | None

    def seconds(self) -> NDArray[np.float64]:
        """Return when each frame is shown after the first one: the float64 nearest to the exact time."""
        numerator, denominator = self.tick
        return (self.times - self.times[0]) * numerator / denominator


def index_of(path: Path, container: "InputContainer") -> Index:
    """Return the index of an open file, read from its packets unless the same file was opened a short while ago.

    The container does not stay where it was. Raises DecodeError for files that are damaged, or whose frames cannot be
    told apart.
    """
    status = path.stat()
    key = (str(path.absolute()), status.st_mtime_ns, status.st_size)
    index = _kept.pop(key, None) or _read(path, container)
    _kept[key] = index
    while len(_kept) > KEPT:
        _kept.popitem(last=False)
    return index


def check_by_decoding(path: Path, index: Index) -> None:
    """Decode everything once; raises DecodeError unless just the frames of the index appear, in their order."""
    last, shown = None, 0
    with opened(path) as container:
        for frame in container.decode(video_stream(path, container)):
            last = later(path, frame.pts, last)
            shown += 1
    if shown != len(index.times) or last != index.times[-1]:
        raise DecodeError(f"{path}: {len(index.times)} packets give {shown} frames; encode it again as MP4")


def later(path: Path, pts: int | None, last: int | None) -> int:
    """Return `pts`; raises DecodeError unless it is later than that of the frame shown before."""
    if pts is None or (last is not None and pts <= last):
        raise DecodeError(f"{path}: the time stamps are not in the order of the frames; encode it again as MP4")
    return pts


def _read(path: Path, container: "InputContainer") -> Index:
    stream = video_stream(path, container)
    times, keys, packets = [], {}, 0
    by_decoding_time = container.format.name in ENDLESS  # no index either: FFmpeg searches, and by that time
    for packet in container.demux(stream):
        if not packet.size:
            continue  # the flush packet at the end
        packets += 1
        if packet.is_corrupt:
            raise DecodeError(f"{path}: truncated or damaged at packet {packets}; fetch it again")
        if packet.pts is None:
            raise DecodeError(f"{path}: packet {packets} has no time stamp; encode it again as MP4")
        if not packet.is_discard:
            times.append(packet.pts)
            if packet.is_keyframe:
                keys[packet.pts] = packet.dts if by_decoding_time and packet.dts is not None else packet.pts
    if not times:
        raise DecodeError(f"{path}: no frames in it")
    check_whole(path, container, packets, sorted(times))
    if len(set(times)) < len(times):
        raise DecodeError(f"{path}: several frames have the same time stamp; encode it again")
    index = _index(stream, times, keys)
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        check_by_decoding(path, index)  # AVI has no PTS, and what FFmpeg makes up is wrong for H.264 with B-frames
    return index


def _index(stream: "VideoStream", times: list[int], keys: dict[int, int]) -> Index:
    rate, tick = stream.average_rate, stream.time_base
    if tick is None:
        raise DecodeError("its time stamps have no unit; encode it again as MP4")
    starts = [keys[key] for key in sorted(keys)] + [min(times)]
    return Index(
        times=np.array(sorted(times), np.int64),
        keys=np.array(sorted(keys), np.int64),
        starts=np.array(starts, np.int64),
        tick=(tick.numerator, tick.denominator),
        fps=float(rate) if rate else None,
    )
