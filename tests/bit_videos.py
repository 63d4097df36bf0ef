"""Small videos in whose frames the bits of their numbers can be seen, and copies with frames hidden."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FRAMES = 48


def write(
    path: Path, *, b_frames: int = 0, gop: int = 16, pts: list[int] | None = None, container: str = "mp4"
) -> Path:
    """Write frames whose six blocks are the bits of the frame number; `pts` counts ms, in AVI frames of 40 ms."""
    tick = Fraction(1, 25) if container == "avi" else Fraction(1, 1000)
    pts = pts or [number * (1 if container == "avi" else 40) for number in range(FRAMES)]
    with av.open(str(path), "w", format=container) as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"crf": "18", "bf": str(b_frames), "g": str(gop), "preset": "medium"}
        stream.codec_context.time_base = tick
        for number in range(FRAMES):
            picture = np.full((64, 96, 3), 40, np.uint8)
            for bit in range(6):
                picture[:, bit * 16 : bit * 16 + 16] = 220 if number >> bit & 1 else 40
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = pts[number], tick
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return path


def copied(source: Path, target: Path, hidden: int = 0, **options: str) -> Path:
    """Copy a stream without decoding; an edit list hides the first `hidden` frames."""
    with av.open(str(source)) as origin, av.open(str(target), "w", options=options) as to:
        stream = to.add_stream_from_template(origin.streams.video[0])
        for packet in origin.demux(video=0):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                shift = int(hidden / 25 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                to.mux(packet)
    return target


def trimmed(source: Path, target: Path, hidden: int) -> Path:
    return copied(source, target, hidden, use_editlist="1", avoid_negative_ts="disabled")


def numbers(frames: np.ndarray) -> list[int]:
    """Read the frame numbers back."""
    bits = frames[:, 20:44, 8::16].mean(axis=(1, 3)) > 130
    return [sum(int(on) << bit for bit, on in enumerate(row)) for row in bits]
