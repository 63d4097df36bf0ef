"""Small trees in the layouts of EPIC-Kitchens-100: its tables, whole videos, folders of frames, trimmed videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tiny_videos import write_video

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
#: rows like the released ones: lists within cells, a comma within quotes
VAL = (
    "P01_11_0,P01,P01_11,00:00:00.560,00:00:00.00,00:00:01.50,1,18,take plate,take,0,plate,2,['plate'],[2]",
    "P01_11_3,P01,P01_11,00:00:01.460,00:00:01.36,00:00:02.00,17,24,put pizza onto plate,put-onto,1,pizza,91,"
    "\"['pizza', 'plate']\",\"[91, 2]\"",
    "P04_101_7,P04,P04_101,00:01:05.780,00:00:00.25,00:00:01.75,4,21,mark tin,mark,96,tin,299,['tin'],[299]",
)
TRAIN = tuple(
    f"P02_01_{number},P02,P02_01,00:00:00.1,00:00:0{number % 9}.10,00:00:0{number % 9}.90,{number + 1},{number + 40},"
    f"open door,open,3,door,3,['door'],[3]"
    for number in range(100)
)


def table(rows: tuple[str, ...] = VAL, *, draft: bool = False) -> str:
    """The table of a split; drafts number the rows in a first column."""
    lines = [f"{4972 + place},{row}" for place, row in enumerate(rows)] if draft else list(rows)
    return "\n".join([f"uid,{HEADER}" if draft else HEADER, *lines]) + "\n"


def classes(count: int, name: str) -> str:
    """A table of classes; instances are lists within a cell."""
    rows = [f"{number},{name}-{number},\"['{name}', 'a, b']\",retrieve" for number in range(count)]
    return "\n".join(["id,key,instances,category", *rows]) + "\n"


def tables(root: Path, *, draft: bool = False) -> Path:
    """Write the tables of both splits and of the classes."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "EPIC_100_validation.csv").write_text(table(draft=draft))
    (root / "EPIC_100_train.csv").write_text(table(TRAIN, draft=draft))
    (root / "EPIC_100_verb_classes.csv").write_text(classes(97, "verb"))
    (root / "EPIC_100_noun_classes.csv").write_text(classes(300, "noun"))
    return root


def frames(folder: Path, count: int = 24) -> Path:
    """Write numbered JPEG files; the brightness of a frame is its number."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        pixels = np.full((32, 48, 3), 8 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"frame_{number:010d}.jpg", quality=95)
    return folder


def build(root: Path) -> Path:
    """Write the released layout with whole videos that decode: two seconds each."""
    tables(root)
    for place, (person, video) in enumerate((("P01", "P01_11"), ("P02", "P02_01"), ("P04", "P04_101"))):
        file = write_video(root / person / "videos" / f"{video}.mp4", seed=place)
        file.rename(file.with_suffix(".MP4"))
    return root
