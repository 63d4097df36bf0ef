"""From decoded frames to upright RGB, with FFmpeg's own pixels, and decord's (even heights, 8 bits)."""

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from vpbench.data.video.reader import DecodeError, Frames

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame


#: quarter turns to the left that show a frame upright, by the upper left of its display matrix
TURNS = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}
#: kinds of pixels that FFmpeg 8 shows in wrong colours, unless their bytes are swapped first
SWAPPED = frozenset({"rgb555be", "rgb565be", "bgr555be", "bgr565be"})
#: colour matrices, as H.273 numbers them, that FFmpeg cannot convert: YCgCo, constant luminance, ICtCp and the like
MATRICES_UNKNOWN = frozenset({8, *range(10, 256)})
#: kinds of side data that FFmpeg may know of, by number
SIDE_DATA = 64

#: the name of a filter of FFmpeg and what it is told
Filter: TypeAlias = tuple[str, str]


def turns(frame: "VideoFrame") -> int:
    """Return by how many quarter turns to the left a frame must be turned; raises DecodeError for all else."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # there is something beside it that PyAV has no name for
        matrix = _without_unnamed(frame).side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0
    a, b, _, c, d, *_ = struct.unpack("=9i", cast("bytes", matrix))  # 16.16 fixed point
    found = TURNS.get((a / 65536, b / 65536, c / 65536, d / 65536))
    if found is None:
        raise DecodeError("is to be shown mirrored, scaled or turned by other than quarters; encode it again upright")
    return found


def _without_unnamed(frame: "VideoFrame") -> "VideoFrame":
    """Return a frame without what FFmpeg attaches to it and PyAV cannot name, such as the EXIF of JPEG and TIFF."""
    from av.sidedata.sidedata import Type

    unnamed = sorted(set(range(SIDE_DATA)) - {each.value for each in Type})
    return through(frame, *(("sidedata", f"mode=delete:type={number}") for number in unnamed))


class Converter:
    """Makes RGB of the frames of one video, as `ffmpeg -sws_flags bilinear -pix_fmt rgb24` does.

    Keeps FFmpeg's scaler, whose set-up takes longer than a small frame.
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._kind: tuple[str, int, int] | None = None

    def rgb(self, frame: "VideoFrame") -> Frames:
        """Return a frame upright, `[H, W, 3]`, valid until the next one.

        Raises DecodeError if it cannot be turned, or has colours that FFmpeg cannot convert.
        """
        import av

        if int(frame.colorspace) in MATRICES_UNKNOWN:  # before version 8 FFmpeg took them for another
            raise _foreign(frame)
        quarters, kind = turns(frame), (frame.format.name, frame.width, frame.height)
        if self._graph is None or self._kind != kind:
            self._graph, self._kind = _graph(frame, *_to_rgb(frame.format.name)), kind
        try:
            self._graph.vpush(frame)
            plane = self._graph.vpull().planes[0]
        except av.error.FFmpegError as error:
            raise _foreign(frame) from error
        rows = np.frombuffer(cast("bytes", plane), np.uint8).reshape(plane.height, plane.line_size)
        return np.rot90(rows[:, : plane.width * 3].reshape(plane.height, plane.width, 3), quarters)


def _foreign(frame: "VideoFrame") -> DecodeError:
    return DecodeError(
        f"cannot be shown in RGB: pixels of kind {frame.format.name}, colour matrix {int(frame.colorspace)} of H.273; "
        "encode it again with that of BT.709"
    )


def _to_rgb(pixels: str) -> Iterator[Filter]:
    """Yield the filters that make RGB of a kind of pixels."""
    scale = ("scale", "flags=bilinear:threads=1")  # one core per reader, as in decoding
    if pixels in SWAPPED:
        yield from (scale, ("format", pixels.removesuffix("be") + "le"))
    yield from (scale, ("format", "rgb24"))


def through(frame: "VideoFrame", *filters: Filter) -> "VideoFrame":
    """Return what becomes of one frame in FFmpeg's filters."""
    graph = _graph(frame, *filters)
    graph.vpush(frame)
    return graph.vpull()


def _graph(frame: "VideoFrame", *filters: Filter) -> "Graph":
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, *(graph.add(*each) for each in filters), graph.add("buffersink")).configure()
    return graph
