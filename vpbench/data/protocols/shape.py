"""What a protocol has to know of a backbone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """The clips that a backbone takes: `frames`, `stride` apart in the video, of `height` x `width` pixels."""

    frames: int
    height: int
    width: int
    stride: int
