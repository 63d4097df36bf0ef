"""Copies of videos, smaller or cut out of longer ones, with exactly the frames and time stamps of the original."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vpbench.data import Seconds, Video
from vpbench.data.video import open_reader, open_video
from vpbench.data.video.container import explained, opened, video_stream
from vpbench.data.video.index import Index, index_of
from vpbench.data.video.pixels import turns
from vpbench.data.video.reader import DecodeError

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


#: FFmpeg's number for values from 0 to 255
FULL_RANGE = 2


@dataclass(frozen=True)
class Recipe:
    """How copies are made: with a short side of `short_side` pixels, or of `size` (width, height) whatever their shape.

    `short_side` makes nothing larger. `crf`: x264's quality, lower is better. `key_frames`: one per second, to be found
    quickly. Sides are even, as x264 needs them.
    """

    short_side: int | None
    size: tuple[int, int] | None
    crf: int
    key_frames: bool

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the copy of a video."""
        if self.size is not None:
            return self.size
        assert self.short_side is not None, "there is one of the two"
        scale = Fraction(min(self.short_side, min(width, height)), min(width, height))
        return _even(width * scale), _even(height * scale)

    def keeps(self, width: int, height: int) -> bool:
        """Tell whether a video is as it should be already."""
        same = (width, height) == self.size if self.size is not None else min(width, height) <= (self.short_side or 0)
        return same and not self.key_frames


def encode(video: Video, target: Path, recipe: Recipe) -> int:
    """Write what a video shows as H.264 without sound, upright, and return the number of frames.

    The first frame gets time 0; all others stay as long after it as they were. Raises DecodeError for a video that
    cannot be read, or whose copy differs in number or time of frames; OSError for a disk that refuses.
    """
    path = video.path
    with open_video(video, "pyav") as reader:
        count = len(reader)
    index = _index(path)
    first = _first(index, video)
    times = index.times[first : first + count]
    _write(path, _frames(path, index, times), target, index, recipe)
    copied = _index(target).seconds()
    if not np.array_equal(copied, (times - times[0]) * index.tick[0] / index.tick[1]):
        raise DecodeError(f"{path}: its copy has {len(copied)} frames for {count}, or other times; encode it by hand")
    return count


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of a video as it is shown; raises DecodeError if it cannot be read."""
    with open_reader(path, "pyav") as reader:
        _, height, width, _ = reader.read([0]).shape
    return width, height


def _index(path: Path) -> Index:
    with explained(path), opened(path) as container:
        return index_of(path, container)


def _even(side: Fraction | int) -> int:
    return max(2, 2 * round(side / 2))


def _first(index: Index, video: Video) -> int:
    if not isinstance(video.part, Seconds):
        return 0
    return int(np.searchsorted(index.seconds(), video.part.start, side="left"))


def _frames(path: Path, index: Index, times: np.ndarray) -> "Iterator[VideoFrame]":
    """Decode the frames of these times; raises DecodeError if one does not come."""
    keys = index.keys[index.keys <= times[0]]
    if times[0] == index.times[0] or not len(keys):
        yield from _expected(path, None, times)
        return
    found = _expected(path, int(keys[-1]), times)
    try:
        first = next(found)
    except DecodeError:  # seeking missed, as it may in MPEG-TS; the start of the file is the one sure place
        yield from _expected(path, None, times)
        return
    yield first
    yield from found


def _expected(path: Path, start: int | None, times: np.ndarray) -> "Iterator[VideoFrame]":
    left = iter(times.tolist())
    wanted = next(left)
    with explained(path), opened(path) as container:
        for frame in _decoded(path, container, start):
            if frame.pts is not None and frame.pts < wanted:
                if wanted != times[0]:
                    raise DecodeError(f"{path}: the frames are not in the order of their times; encode it again")
                continue
            if frame.pts != wanted or frame.is_corrupt:
                break
            yield frame
            following = next(left, None)
            if following is None:
                return
            wanted = following
    raise DecodeError(f"{path}: the frame at {wanted - times[0]} ticks cannot be decoded; fetch it again")


def _decoded(path: Path, container: "InputContainer", start: int | None) -> "Iterator[VideoFrame]":
    stream = video_stream(path, container)
    if start is not None:
        container.seek(start, stream=stream, backward=True)
    yield from container.decode(stream)


def _write(path: Path, frames: "Iterator[VideoFrame]", target: Path, index: Index, recipe: Recipe) -> None:
    import av

    shaper, tick = _Shaper(recipe), Fraction(*index.tick)
    first = next(frames)
    start, second, size = first.pts or 0, -1, (first.width, first.height)
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = _stream(container, shaper.shaped(first), index, recipe)
        for original in itertools.chain([first], frames):
            if (original.width, original.height) != size:
                raise DecodeError(f"{path}: the frame size changes within the video")
            # read before the frame is shaped, which may leave it the very same object
            time = (original.pts or 0) - start
            frame = shaper.shaped(original)
            frame.pts, frame.time_base, frame.pict_type = time, tick, 0
            if recipe.key_frames and int(time * tick) > second:
                second, frame.pict_type = int(time * tick), 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


class _Shaper:
    """Makes frames upright and of their new size; keeps FFmpeg's filters, whose set-up takes longer than a frame."""

    def __init__(self, recipe: Recipe) -> None:
        from av.video.reformatter import VideoReformatter

        self._recipe, self._scaler = recipe, VideoReformatter()
        self._graphs: dict[int, Graph] = {}

    def shaped(self, frame: "VideoFrame") -> "VideoFrame":
        """Return a frame with half the resolution of colours, as all players and published copies have it."""
        quarters = turns(frame)
        if quarters or frame.interlaced_frame:
            frame = self._upright(frame, quarters)
        width, height = self._recipe.size_of(frame.width, frame.height)
        # formats with a j have values from 0 to 255, which other formats may have as well
        full = frame.format.name.startswith("yuvj") or frame.color_range == FULL_RANGE
        return self._scaler.reformat(frame, width, height, "yuvj420p" if full else "yuv420p", interpolation="BICUBIC")

    def _upright(self, frame: "VideoFrame", quarters: int) -> "VideoFrame":
        """Turn a frame, and drop the note that its lines are interlaced, as readers do."""
        if quarters not in self._graphs:
            self._graphs[quarters] = _graph(frame, quarters)
        self._graphs[quarters].vpush(frame)
        return self._graphs[quarters].vpull()


def _graph(frame: "VideoFrame", quarters: int) -> "Graph":
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    turning = [graph.add("transpose", "cclock") for _ in range(quarters)]
    graph.link_nodes(source, graph.add("setfield", "mode=prog"), *turning, graph.add("buffersink")).configure()
    return graph


def _stream(container: "OutputContainer", frame: "VideoFrame", index: Index, recipe: Recipe) -> "VideoStream":
    rate = Fraction(index.fps).limit_denominator(100_000) if index.fps else Fraction(25)
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
    stream.options = {"crf": str(recipe.crf), "preset": "medium", "forced-idr": "1"}
    context = stream.codec_context
    context.time_base, context.thread_count = Fraction(*index.tick), 1
    context.color_range, context.colorspace = frame.color_range, frame.colorspace
    return stream
