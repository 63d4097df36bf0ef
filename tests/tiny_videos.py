"""Tiny videos that decode, for trees of datasets."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

CODECS = {".webm": "libvpx", ".avi": "mpeg4"}


def write_video(path: Path, *, seed: int = 0, frames: int = 24, width: int = 48, height: int = 32) -> Path:
    """Write a bright square that moves over a dark ground; the ending tells container and codec."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS.get(path.suffix.lower(), "libx264"), rate=12)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            pixels = np.full((height, width, 3), 40, np.uint8)
            left = (number + 5 * seed) % (width - 10)
            pixels[8:18, left : left + 10] = 210
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path
