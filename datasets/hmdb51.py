"""HMDB51: 51 classes of human motion in 6,766 clips of films, three splits; to be downloaded by the user."""

import re
from pathlib import Path

from vpbench.data import Video
from vpbench.data.lists.listing import ListedDataset, Listing, NoList, untested
from vpbench.data.lists.official import Entry, numbered_splits, official_videos
from vpbench.data.lists.text import checked_path, read_text
from vpbench.errors import UsageError

COUNT = 51
FOLDERS = (".", "testTrainMulti_7030_splits", "test_train_splits", "splits", "annotations", "lists")
#: what the number behind a video means
TRAIN, TEST = "1", "2"
_FILE = re.compile(r"([a-z_]+)_test_split([123])\.txt")
_LINE = re.compile(r"(\S.*?)\s+([012])")


class Hmdb51(ListedDataset):
    """The official lists, a file for each class and split, with the videos in folders of classes, or as frames."""

    name = "hmdb51"
    wanted = (
        "a folder with testTrainMulti_7030_splits/<class>_test_split1.txt for 51 classes, and hmdb51_org/<class>/*.avi "
        "(unpacked); see the page of HMDB at serre-lab.clps.brown.edu"
    )
    #: numbers, until the copy at hand tells the names
    classes = tuple(str(label) for label in range(COUNT))
    splits = numbered_splits(("test", "train"), 3)

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root)
        names = {} if self.root is None else {number: _files(self.root, number) for number in "123"}
        found = next((tuple(files) for files in names.values() if len(files) == COUNT), None)
        if found is not None:
            self.classes = found

    def read(self, root: Path, split: str) -> Listing:
        """Read the official lists of a split, class after class."""
        kind, number = split[:-1], split[-1]
        files = _files(root, number)
        if not files:
            raise NoList(f"{root}: no lists like brush_hair_test_split{number}.txt; --root is to be {self.wanted}")
        if len(files) != COUNT:
            raise UsageError(
                f"{root}: lists of {len(files)} classes of split {number} ({', '.join(list(files)[:3])} ...), "
                f"not of {COUNT}; unpack them all"
            )
        entries = [
            Entry(where, f"{name}/{video}", label)
            for label, (name, source) in enumerate(files.items())
            for where, video, mark in _lines(source)
            if mark == (TEST if kind == "test" else TRAIN)
        ]
        return official_videos(root, next(iter(files.values())), entries)

    def calibration(self) -> list[Video]:
        """Spread up to 72 videos of the first split to train on that are tested in none."""
        return untested(self, "train1", ("test1", "test2", "test3"))


def _files(root: Path, number: str) -> dict[str, Path]:
    """Return the list of each class of a split, by the classes' names in order, from the first folder with any."""
    for folder in FOLDERS:
        matches = [(_FILE.fullmatch(path.name), path) for path in sorted((root / folder).glob("*_test_split?.txt"))]
        found = {match[1]: path for match, path in matches if match is not None and match[2] == number}
        if found:
            return dict(sorted(found.items()))
    return {}


def _lines(source: Path) -> list[tuple[str, str, str]]:
    found = []
    for line, text in enumerate(read_text(source).split("\n"), start=1):
        if not text.strip():
            continue
        where, match = f"{source} line {line}", _LINE.fullmatch(text.strip())
        if match is None or "/" in match[1]:
            raise UsageError(f"{where}: {text[:60]!r} is no video and 0, 1 or 2; give the official list")
        found.append((where, checked_path(where, match[1]), match[2]))
    return found
