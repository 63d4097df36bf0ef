"""Clips whose every frame carries its number, as large blocks that survive coding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 8


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Draw the bits of a number as columns, the lowest on the left."""
    on = [number >> bit & 1 for bit in range(BITS)]
    columns = np.array(on)[np.arange(width) * BITS // width]
    return np.where(columns[None, :, None], 220, 40).astype(np.uint8).repeat(height, 0).repeat(3, 2)


def numbers(frames: np.ndarray) -> list[int]:
    """Read the numbers back from frames `[n, H, W, 3]`."""
    height, width = frames.shape[1:3]
    centres = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    shown = frames[:, height // 3 : height // 2][:, :, centres].mean(axis=(1, 3)) > 130
    return [sum(int(on) << bit for bit, on in enumerate(row)) for row in shown]


def write_numbered(
    path: Path,
    *,
    frames: int = 48,
    codec: str = "libx264",
    size: tuple[int, int] = (128, 64),
    options: Mapping[str, str] | None = None,
    pts: Sequence[int] | None = None,
    container: str | None = None,
    pixels: str = "yuv420p",
    rotation: int | None = None,
    movflags: str = "",
) -> Path:
    """Write a clip of 25 frames/s, or with `pts` in ms; the ending of the path tells the container, unless given."""
    tick = Fraction(1, 25) if pts is None else Fraction(1, 1000)
    with av.open(str(path), "w", format=container, options={"movflags": movflags} if movflags else {}) as target:
        stream = target.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        stream.options = {**({"crf": "18", "g": "16"} if codec == "libx264" else {}), **(options or {})}
        stream.codec_context.time_base = tick
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = pts[number] if pts is not None else number, tick
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return path


def cut_numbered(source: Path, target: Path, hidden: int) -> Path:
    """Copy a clip without decoding it; an edit list hides the first `hidden` frames, as `ffmpeg -ss -c copy` does."""
    options = {"use_editlist": "1", "avoid_negative_ts": "disabled"}
    with av.open(str(source)) as origin, av.open(str(target), "w", options=options) as to:
        stream = to.add_stream_from_template(origin.streams.video[0])
        for packet in origin.demux(video=0):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                shift = int(hidden / 25 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                to.mux(packet)
    return target
