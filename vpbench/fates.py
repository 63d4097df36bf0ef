"""Keep what became of the tokens of a few clips beside the results: rows of the table `fates`. Imports no torch."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpbench.fate import DROPPED, Fate, Stage
from vpbench.progress import say

if TYPE_CHECKING:
    from vpbench.job import Job, R
    from vpbench.store import Store

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


def keep(job: Job[R], cells: Sequence[R], store: Store, run_id: str, *, force: bool) -> None:
    """Write the fates of the first clips in each cell, dense first; frames come with dense alone.

    Cells that have theirs are left alone, unless `force`. Tokens that cannot be followed are named, and left out.
    """
    todo = [c for c in cells if c.error is None and (force or not store.has("fates", c.cell.config_id))]
    if not todo:
        return
    samples, dense_id = job.samples_to_show(), cells[0].cell.config_id
    for ready in todo:
        own = {"run_id": run_id, "config_id": ready.cell.config_id, "dense_id": dense_id}
        try:
            rows = [own | row_of(job.fate(ready, sample), sample, frames=ready is cells[0]) for sample in samples]
        except Exception as error:  # a picture less must not end a run
            say(f"{ready.cell.label}: no picture of its tokens: {error}")
            continue
        store.write("fates", ready.cell.config_id, rows)


def row_of(fate: Fate, sample: Sample, *, frames: bool) -> dict[str, Any]:
    """Return the row of a fate's last stage, without run and configuration."""
    names = ("slots", "rows", "columns", "tubelet_frames", "tubelet_height", "tubelet_width")
    return {
        "clip_id": sample.clip_id,
        "video_id": sample.video_id,
        **dict(zip(names, (*fate.grid, *fate.tubelet), strict=True)),
        "stage": fate.stages[-1].name,
        "tokens": packed(fate.final),
        "frames": [_jpeg(frame, fate.grid) for frame in sample.frames] if frames else None,
    }


def shown(table: pd.DataFrame) -> list[Shown]:
    """Return the stored clips of the table `fates`, in its order, each with the fates of all its configurations.

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
