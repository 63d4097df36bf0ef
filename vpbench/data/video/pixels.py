"""From decoded frames to upright RGB, with the same pixels as decord gives (even heights, 8 bits)."""

import struct
from typing import TYPE_CHECKING, cast

import numpy as np

from vpbench.data.video.reader import DecodeError, Frames

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame


#: quarter turns to the left that show a frame upright, by the upper left of its display matrix
TURNS = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}


def turns(frame: "VideoFrame") -> int:
    """Return by how many quarter turns to the left a frame must be turned; raises DecodeError for all else."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 0
    a, b, _, c, d, *_ = struct.unpack("=9i", cast("bytes", matrix))  # 16.16 fixed point
    found = TURNS.get((a / 65536, b / 65536, c / 65536, d / 65536))
    if found is None:
        raise DecodeError("is to be shown mirrored, scaled or turned by other than quarters; encode it again upright")
    return found


class Converter:
    """Makes RGB of the frames of one video; keeps FFmpeg's scaler, whose set-up takes longer than a small frame."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._scaler = VideoReformatter()
        self._graph: Graph | None = None

    def rgb(self, frame: "VideoFrame") -> Frames:
        """Return a frame upright, `[H, W, 3]`, valid until the next one; raises DecodeError if it cannot be turned."""
        quarters = turns(frame)
        if frame.interlaced_frame:
            frame = self._unflagged(frame)
        plane = self._scaler.reformat(frame, format="rgb24").planes[0]
        rows = np.frombuffer(cast("bytes", plane), np.uint8).reshape(plane.height, plane.line_size)
        return np.rot90(rows[:, : plane.width * 3].reshape(plane.height, plane.width, 3), quarters)

    def _unflagged(self, frame: "VideoFrame") -> "VideoFrame":
        """Drop the note that lines are interlaced: newer scalers would spread colours over each field by itself."""
        if self._graph is None:
            self._graph = _without_fields(frame)
        self._graph.vpush(frame)
        return self._graph.vpull()


def _without_fields(frame: "VideoFrame") -> "Graph":
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("setfield", "mode=prog"), graph.add("buffersink")).configure()
    return graph
