"""Small trees in the layouts of Kinetics-400: lists of three kinds, and folders as labs have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tiny_videos import write_video


class Row(NamedTuple):
    """A row of the official table."""

    label: str
    youtube_id: str
    start: int
    end: int

    @property
    def stem(self) -> str:
        return f"{self.youtube_id}_{self.start:06d}_{self.end:06d}"


#: ids that begin with - and _ and hold both, classes with blanks, brackets, an apostrophe and capitals
VAL = (
    Row("abseiling", "--07WQ2iBlw", 1, 11),
    Row("air drumming", "_a_b-c_d-e_", 0, 10),
    Row("massaging person's head", "0wR5jVB-WPk", 417, 427),
    Row("passing American football (in game)", "-_-_-_-_-_-", 30, 40),
    Row("zumba", "zzzzzzzzzz9", 1234, 1244),
)
TRAIN = tuple(Row("archery", f"train-{place:05d}", place, place + 10) for place in range(100))
LABELS = {"abseiling": 0, "air drumming": 1, "archery": 5, "massaging person's head": 196, "zumba": 399} | {
    "passing American football (in game)": 208
}


def official(rows: Iterable[Row], split: str = "validate", licence: bool = True) -> str:
    """The official table: names with blanks are quoted, and the last column came later."""
    header = "label,youtube_id,time_start,time_end,split" + (",is_cc" if licence else "")
    lines = [
        ",".join([f'"{row.label}"' if " " in row.label else row.label, row.youtube_id, str(row.start), str(row.end)])
        + f",{split}"
        + (",0" if licence else "")
        for row in rows
    ]
    return "\n".join([header, *lines]) + "\n"


def path_label(rows: Sequence[Row], folder: str, separator: str = " ") -> str:
    """The lists of VideoMAE (blank) and SlowFast (comma)."""
    return "".join(f"{folder}/{row.label}/{row.stem}.mp4{separator}{LABELS[row.label]}\n" for row in rows)


def empty(*paths: Path) -> None:
    """Put files where only their names matter."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def class_folders(folder: Path, rows: Iterable[Row] = VAL, *, blank: str = " ", ending: str = ".mp4") -> None:
    """Write `<class>/<stem>.mp4`."""
    empty(*(folder / row.label.replace(" ", blank) / f"{row.stem}{ending}" for row in rows))


def flat(folder: Path, rows: Iterable[Row] = VAL, ending: str = ".mp4") -> None:
    """Write `<stem>.mp4`, as the public copy comes."""
    empty(*(folder / f"{row.stem}{ending}" for row in rows))


def build(root: Path) -> Path:
    """Write the public copy with videos that decode: official lists, flat folders, a class each."""
    (root / "annotations").mkdir(parents=True)
    for split, rows in {"val": VAL, "train": TRAIN[:4]}.items():
        (root / "annotations" / f"{split}.csv").write_text(official(rows, split))
        (root / split).mkdir()
        for place, row in enumerate(rows):
            write_video(root / split / f"{row.stem}.mp4", seed=place)
    return root
