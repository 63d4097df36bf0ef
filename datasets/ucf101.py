"""UCF101: 101 classes of human actions in 13,320 clips, three splits; to be downloaded by the user."""

import re
from pathlib import Path

from vpbench.data import Video
from vpbench.data.lists.files import first_file
from vpbench.data.lists.listing import ListedDataset, Listing, NoList, untested
from vpbench.data.lists.official import Entry, numbered_splits, official_videos
from vpbench.data.lists.text import checked_path, read_text
from vpbench.errors import UsageError

COUNT = 101
FOLDERS = (".", "ucfTrainTestlist", "annotations", "UCF101TrainTestSplits-RecognitionTask", "splits", "lists")
_CLASS = re.compile(r"([0-9]{1,3})\s+([A-Za-z0-9]+)")
_LINE = re.compile(r"(\S+/\S+)(?:\s+([0-9]{1,3}))?")


class Ucf101(ListedDataset):
    """The official lists, with the videos as they come, in folders of classes or not, or as folders of frames."""

    name = "ucf101"
    wanted = (
        "a folder with ucfTrainTestlist/testlist01.txt, trainlist01.txt and classInd.txt, and "
        "UCF-101/<class>/v_<class>_g01_c01.avi; see www.crcv.ucf.edu/data/UCF101.php"
    )
    #: numbers, until the copy at hand tells the names
    classes = tuple(str(label) for label in range(COUNT))
    splits = numbered_splits(("test", "train"), 3)

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root)
        source = None if self.root is None else first_file(self.root, FOLDERS, ["classInd.txt"])
        self._named = source is not None
        if source is not None:
            self.classes = _classes(source)

    def read(self, root: Path, split: str) -> Listing:
        """Read the official list of a split; folders name the classes, and train lists number them as well."""
        kind, number = split[:-1], split[-1]
        source = first_file(root, FOLDERS, [f"{kind}list0{number}.txt"])
        if source is None:
            raise NoList(f"{root}: no {kind}list0{number}.txt; --root is to be {self.wanted}")
        if not self._named:
            raise UsageError(f"{source}: names classes; add classInd.txt, which numbers them")
        labels = {name: label for label, name in enumerate(self.classes)}
        entries, odd = list[Entry](), list[str]()
        for place, text in enumerate(read_text(source).split("\n"), start=1):
            if not (stripped := text.strip()):
                continue
            where = f"{source} line {place}"
            match = _LINE.fullmatch(stripped)
            name = "" if match is None else match[1].split("/")[0]
            if match is None or name not in labels:
                raise UsageError(
                    f"{where}: {stripped[:60]!r} is no video of a class of classInd.txt; lines look like "
                    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi; give the official list"
                )
            entries.append(Entry(where, checked_path(where, match[1]), labels[name]))
            if match[2] is not None and int(match[2]) != labels[name] + 1:
                odd.append(f"{where}: {match[1]} is listed as {match[2]}, but {name} is {labels[name] + 1}")
        listing = official_videos(root, source, entries)
        for line in odd:
            listing.odd("listed with the number of another class", line)
        return listing

    def calibration(self) -> list[Video]:
        """Spread up to 72 videos of the first train list that no test list has: groups 22 to 25."""
        return untested(self, "train1", ("test1", "test2", "test3"))


def _classes(source: Path) -> tuple[str, ...]:
    found = {}
    for line, text in enumerate(read_text(source).split("\n"), start=1):
        if text.strip():
            match = _CLASS.fullmatch(text.strip())
            if match is None:
                raise UsageError(f"{source} line {line}: {text[:40]!r} is no number and name of a class")
            found[int(match[1])] = match[2]
    if sorted(found) != list(range(1, COUNT + 1)) or len(set(found.values())) != COUNT:
        raise UsageError(f"{source}: does not number {COUNT} classes from 1 to {COUNT}; give the official file")
    return tuple(found[number] for number in range(1, COUNT + 1))
