"""What became of the tokens of a few clips: rows of the table `fates`. Imports no torch."""

import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from vpbench.rows.schema import FateRow


Ints = NDArray[np.int32]
#: stands for a token that no other one stands for
DROPPED = -1
#: names of the stages before a network: fewer or smaller frames, and tokens that never enter
PIXELS, INPUT = "pixels", "input"


@dataclass(frozen=True)
class Stage:
    """The tokens after one reduction: `token [N]` is, for each token of the dense clip, the id of the one that stands
    for it: its own while it is kept, another's once it is merged, `DROPPED` once it is gone.
    """

    name: str
    token: Ints


@dataclass(frozen=True)
class Fate:
    """What became of the N tokens of one clip, stage after stage; the last stage is how it ended.

    `grid`: slots, rows and columns of the dense clip; the id of a token is `(slot * rows + row) * columns + column`.
    `tubelet`: the frames, height and width in pixels that a token is made of. A network that pools its own tokens does
    so without any method as well: that neither drops nor merges a token here. Where a method leaves fewer or smaller
    frames, dense tokens share one from the stage `PIXELS` on, though no tokens were merged. Raises ValueError for
    arrays that do not fit the grid.
    """

    clip_id: str
    grid: tuple[int, int, int]
    tubelet: tuple[int, int, int]
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError(f"{self.clip_id}: a fate has at least one stage")
        for stage in self.stages:
            token = stage.token
            if token.shape != (self.tokens,) or token.min() < DROPPED or token.max() >= self.tokens:
                raise ValueError(f"{self.clip_id}, {stage.name}: need {self.tokens} ids from {DROPPED} on below that")

    @property
    def tokens(self) -> int:
        """Tokens of the dense clip."""
        slots, rows, columns = self.grid
        return slots * rows * columns

    @property
    def final(self) -> Ints:
        """The last stage's ids, `[N]`."""
        return self.stages[-1].token

    def left(self, stage: int = -1) -> int:
        """Return how many tokens are left after a stage, merged ones as one."""
        token = self.stages[stage].token
        return len(np.unique(token[token != DROPPED]))

    def sizes(self, stage: int = -1) -> Ints:
        """Return for each dense token how many of them share the one that stands for it, `[N]`; 0 for dropped ones."""
        token = self.stages[stage].token
        there = token != DROPPED
        shared = np.bincount(token[there], minlength=self.tokens)
        return np.where(there, shared[token], 0).astype(np.int32)


def whole(clip_id: str, grid: tuple[int, int, int], tubelet: tuple[int, int, int]) -> Fate:
    """Return the fate of a clip that keeps all of its tokens."""
    tokens = grid[0] * grid[1] * grid[2]
    return Fate(clip_id, grid, tubelet, (Stage(INPUT, np.arange(tokens, dtype=np.int32)),))


#: clips, the first ones of a split, and frames of each on detectors, which have a token grid for every frame
CLIPS, FRAMES = 3, 8
#: the longer side of a stored frame, at most
SIDE = 128
_QUALITY = 85
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """A clip whose tokens are followed: `frames` uint8 `[slots, H, W, 3]`; `given`: what a job runs."""

    clip_id: str
    video_id: str
    frames: Pixels
    given: Any


@dataclass(frozen=True)
class Shown:
    """A stored clip: frames `[slots, H, W, 3]`, maybe made smaller, and the last stage of its fates by config_id."""

    clip_id: str
    video_id: str
    frames: Pixels
    fates: Mapping[str, Fate]


def row_of(fate: Fate, sample: Sample, *, frames: bool) -> "FateRow":
    """Return the row of a fate's last stage, without run and configuration."""
    (slots, rows, columns), (deep, high, wide) = fate.grid, fate.tubelet
    row: FateRow = {"clip_id": sample.clip_id, "video_id": sample.video_id, "stage": fate.stages[-1].name}
    row |= {"slots": slots, "rows": rows, "columns": columns}
    row |= {"tubelet_frames": deep, "tubelet_height": high, "tubelet_width": wide, "tokens": packed(fate.final)}
    return row | {"frames": [_jpeg(frame, fate.grid) for frame in sample.frames] if frames else None}


def shown(table: "pd.DataFrame") -> list[Shown]:
    """Return stored clips (rows of `fates`, by `Store.predictions`), in order, each with all its configurations' fates.

    The same clip seen by two backbones is there twice. Clips whose frames are not there are left out.
    """
    found = []
    for (_, clip_id), rows in table.groupby(["dense_id", "clip_id"], sort=False):
        pictures = rows["frames"].dropna()
        if len(pictures):
            frames = np.stack([_pixels(content) for content in pictures.iloc[0]])
            fates = {str(row["config_id"]): _fate(row) for row in rows.to_dict("records")}
            found.append(Shown(str(clip_id), str(rows["video_id"].iloc[0]), frames, fates))
    return found


def packed(token: NDArray[np.int32]) -> bytes:
    """Write ids small: tokens that stand for themselves are zeros, dropped ones are all alike."""
    offset = np.where(token == DROPPED, len(token), token - np.arange(len(token))).astype("<i4")
    return zlib.compress(offset.view(np.uint8).reshape(-1, 4).T.tobytes(), 9)


def unpacked(content: bytes) -> NDArray[np.int32]:
    """Undo `packed`."""
    planes = np.frombuffer(zlib.decompress(content), np.uint8).reshape(4, -1)
    offset = np.ascontiguousarray(planes.T).view("<i4").ravel()
    own = np.arange(len(offset))
    return np.where(offset == len(offset), DROPPED, own + offset).astype(np.int32)


def _fate(row: Mapping[Any, Any]) -> Fate:
    grid, tubelet = (
        tuple(int(row[name]) for name in names)
        for names in (("slots", "rows", "columns"), ("tubelet_frames", "tubelet_height", "tubelet_width"))
    )
    return Fate(str(row["clip_id"]), grid, tubelet, (Stage(str(row["stage"]), unpacked(row["tokens"])),))  # type: ignore[arg-type]


def _jpeg(frame: Pixels, grid: tuple[int, int, int]) -> bytes:
    """Write a frame small, in whole pixels for each token."""
    from PIL import Image

    _, rows, columns = grid
    size = (_side(frame.shape[1], columns, max(grid[1:])), _side(frame.shape[0], rows, max(grid[1:])))
    stream = io.BytesIO()
    Image.fromarray(frame).resize(size, Image.Resampling.BOX).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _side(pixels: int, tokens: int, most: int) -> int:
    return tokens * max(1, min(pixels // tokens, SIDE // most))


def _pixels(content: bytes) -> Pixels:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
