"""What a protocol has to know of a backbone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """The clips that a backbone takes: `frames`, `stride` apart in the video, of `height` x `width` pixels."""

    frames: int
    height: int
    width: int
    stride: int


@dataclass(frozen=True)
class Preparation:
    """What the settings of a checkpoint's own processor say of clips.

    `resized`: None for frames as they are, one number for their short side, two for height and width whatever the
    ratio. `cropped`: whether the centre is cut out. `kernel`: `bilinear` or `bicubic`, both antialiased. `spread`:
    whether frames are spread over the whole video, instead of a window in the middle of it.
    """

    resized: tuple[int, ...] | None
    cropped: tuple[int, int] | None
    kernel: str
    spread: bool
