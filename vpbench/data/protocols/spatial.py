"""How frames become squares: sizes, kernels and corners of each published evaluation. Imports no torch by itself."""

import abc
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Self

from vpbench.data.protocols.temporal import spread

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    #: frames `[F, H, W, 3]`, RGB from 0 to 255, uint8 or float32
    Pixels = NDArray[Any]

Pair = tuple[int, int]


@dataclass(frozen=True)
class Spatial(abc.ABC):
    """A rule that resizes frames and cuts `views` spatial views out of each.

    Frames keep their ratio and come to cover height x width as tightly as the rule says. Where the published code
    resizes floats the result is float32, from 0 to 255 and neither rounded nor normalised: backbones normalise, and as
    the weights of a pixel sum to 1, doing so after the resizing instead of before changes nothing but float rounding.
    """

    #: name of the kernel that resizes, see `resize.KERNELS`
    kernel: ClassVar[str]

    views: int

    @abc.abstractmethod
    def size(self, rows: int, cols: int, height: int, width: int) -> Pair:
        """Return what frames of rows x cols are resized to, for views of height x width."""

    def offsets(self, free: int) -> list[int]:
        """Return where each view starts along a side that is `free` pixels longer than it: from end to end."""
        return spread(free, self.views)

    def resized(self, frames: "NDArray[np.uint8]", height: int, width: int) -> "Pixels":
        """Return uint8 frames `[F, H, W, 3]` resized for views of height x width: uint8, or float32 (see above)."""
        from vpbench.data.protocols.resize import resize

        return resize(frames, self.size(frames.shape[1], frames.shape[2], height, width), self.kernel)

    def crops(self, resized: "Pixels", height: int, width: int) -> "list[Pixels]":
        """Cut the views `[F, height, width, 3]` out of resized frames; they share the memory of `resized`."""
        rows, cols = resized.shape[1:3]
        corners = zip(self.offsets(rows - height), self.offsets(cols - width), strict=True)
        return [resized[:, y : y + height, x : x + width] for y, x in corners]

    def single(self) -> Self:
        """Return the rule of one view in the centre."""
        return self if self.views == 1 else replace(self, views=1)


@dataclass(frozen=True)
class Bilinear(Spatial):
    """VideoMAE: bilinear without antialiasing on uint8, long side rounded down, views along it from end to end.

    Source: VideoMAE, `functional.py` and the test mode of its data sets. It resizes by OpenCV, in fixed point; exact
    weights and one rounding, as here, differ from that by at most 1 grey level, on 12 % of the values.
    """

    kernel = "bilinear"

    def size(self, rows: int, cols: int, height: int, width: int) -> Pair:
        """Return what frames are resized to; see `Spatial.size`."""
        if height * cols >= width * rows:  # the rows bind: whole numbers, since 224 * (180 / 224) may miss 180
            return height, height * cols // rows
        return width * rows // cols, width


@dataclass(frozen=True)
class Bicubic(Bilinear):
    """RLT: antialiased bicubic on uint8, and equal steps of whole pixels between views.

    Source: RLT, `kinetics_dataset.py`, test mode, which calls the same kernel through torchvision.
    """

    kernel = "bicubic"

    def offsets(self, free: int) -> list[int]:
        """Return where views start; see `Spatial.offsets`."""
        return [free // 2] if self.views == 1 else [k * (free // 2) for k in range(self.views)]


@dataclass(frozen=True)
class WideCentre(Spatial):
    """MViT: bilinear without antialiasing on floats, to a short side of 256 for a central view of 224.

    Source: SlowFast, `transform.py`. For views of other sizes the short side keeps the ratio 256:224. One view only.
    """

    kernel = "bilinear_float"

    views: int = field(default=1, init=False)

    def size(self, rows: int, cols: int, height: int, width: int) -> Pair:
        """Return what frames are resized to; see `Spatial.size`."""
        height, width = round(height * 256 / 224), round(width * 256 / 224)
        if height * cols >= width * rows:
            return height, max(width, int(cols / rows * height))
        return max(height, int(rows / cols * width)), width

    def offsets(self, free: int) -> list[int]:
        """Return where the view starts; see `Spatial.offsets`."""
        return [ceil(free / 2)]


@dataclass(frozen=True)
class Rounded(Bilinear):
    """VideoSwin: as VideoMAE, but sides are rounded to the nearest, and views come first, last, middle.

    Source: mmaction, `Resize` and `ThreeCrop`; by OpenCV as well, see `Bilinear`.
    """

    def size(self, rows: int, cols: int, height: int, width: int) -> Pair:
        """Return what frames are resized to; see `Spatial.size`."""
        scale = max(height / rows, width / cols)
        return int(rows * scale + 0.5), int(cols * scale + 0.5)

    def offsets(self, free: int) -> list[int]:
        """Return where views start; see `Spatial.offsets`."""
        step = free // 2
        return [step] if self.views == 1 else [0, 2 * step, step]


@dataclass(frozen=True)
class Antialiased(Spatial):
    """ViViT as RGTP evaluates it: antialiased bilinear on floats, sides rounded, views spread from corner to corner.

    Source: RGTP's data sets. Frames that fit already are left alone.
    """

    kernel = "antialiased_float"

    def size(self, rows: int, cols: int, height: int, width: int) -> Pair:
        """Return what frames are resized to; see `Spatial.size`."""
        scale = max(height / rows, width / cols)
        return round(rows * scale), round(cols * scale)


@dataclass(frozen=True)
class Stated(Spatial):
    """A checkpoint's own processor: antialiased bilinear on uint8, then the centre.

    Source: `transformers`, video processors: `resized` is the short side (the long one is rounded down) or both. For
    views of another size than `cropped` it is scaled along.
    """

    kernel = "antialiased"

    views: int = field(default=1, init=False)
    resized_to: tuple[int, ...] | None = None
    cropped: tuple[int, int] | None = None

    def size(self, rows: int, cols: int, height: int, width: int) -> Pair:
        """Return what frames are resized to; see `Spatial.size`."""
        if self.resized_to is None:
            return rows, cols
        of = self.cropped or (self.resized_to * 2)[:2]
        if len(self.resized_to) == 2:
            return round(self.resized_to[0] * height / of[0]), round(self.resized_to[1] * width / of[1])
        short = round(self.resized_to[0] * min(height, width) / min(of))
        return (short, int(short * cols / rows)) if rows <= cols else (int(short * rows / cols), short)


@dataclass(frozen=True)
class StatedBicubic(Stated):
    """Do as `Stated`, antialiased bicubic."""

    kernel = "bicubic"
