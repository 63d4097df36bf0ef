"""Something-Something V2: 174 classes of actions told by motion, clips of 2 to 6 s; to be downloaded by the user."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from vpbench.data import Video
from vpbench.data.lists.files import VideoFiles, first_file
from vpbench.data.lists.listing import ListedDataset, Listing, NoList, listed_videos, misplaced
from vpbench.data.lists.official import read_json
from vpbench.data.lists.paths import loose
from vpbench.data.lists.text import find_list, read_text
from vpbench.errors import UsageError

COUNT = 174
#: where copies keep the official files, and what they call them
FOLDERS = (".", "labels", "annotations")
NAMES = ("something-something-v2-{}.json", "{}.json")
#: VideoMAE's lists of `validation`: test.csv is the same list as val.csv
WORDS = {"validation": ("validation", "val", "test"), "train": ("train",)}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is read of an official entry; `template` is the class, with its placeholders in square brackets."""

    id: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
    template: str


class SomethingV2(ListedDataset):
    """The official JSON files or lists of `path label`; videos as .webm, or as copies with another ending."""

    name = "ssv2"
    wanted = (
        "a folder with something-something-v2-validation.json and -labels.json (or labels/validation.json and "
        "labels/labels.json, or a list val.csv of lines `path label`) and the videos in 20bn-something-something-v2; "
        "see the page of Something-Something V2 at qualcomm.com"
    )
    #: numbers, until the copy at hand tells the names
    classes = tuple(str(label) for label in range(COUNT))
    splits = ("validation", "train")
    no_test = "the official test split has no labels; use --split validation, as all papers do"
    protocol = "spread_2x3"

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root)
        labels = None if self.root is None else _official(self.root, "labels")
        if labels is not None:
            self.classes = _names(labels)

    def read(self, root: Path, split: str) -> Listing:
        """Read the official file, else a list of `path label`."""
        files = VideoFiles(root, {"test"} | ({"train"} if split == "validation" else {"validation", "val"}))
        official = _official(root, split)
        if official is not None:
            return self._official_videos(root, official, files)
        source = find_list([root / folder for folder in FOLDERS], WORDS[split])
        if source is None:
            raise NoList(f"{root}: no list of ssv2 {split}; --root is to be {self.wanted}")
        listing = listed_videos(source, read_text(source), files, COUNT)
        labels = {loose(name): label for label, name in enumerate(self.classes) if not name.isdecimal()}
        for line in misplaced(listing.present, self.classes, labels):
            listing.odd("in the folder of another class", line)
        return listing

    def _official_videos(self, root: Path, source: Path, files: VideoFiles) -> Listing:
        if _official(root, "labels") is None:
            raise UsageError(f"{source}: names classes; add something-something-v2-labels.json, which numbers them")
        labels = {name: label for label, name in enumerate(self.classes)}
        listing = Listing()
        for entry in read_json(source, TypeAdapter(list[Entry])):
            where = f"{source} id {entry.id}"
            name = entry.template.replace("[", "").replace("]", "")
            if name not in labels:
                listing.faults.append(f"{where}: {name[:80]!r} is none of the 174 classes of the file of labels")
                continue
            place = files.named(entry.id, root / "20bn-something-something-v2" / f"{entry.id}.webm")
            listing.add(Video(entry.id, place.path, labels[name]), place.found, where)
        return listing


def _official(root: Path, what: str) -> Path | None:
    """Find the official file of a split or of the labels."""
    return first_file(root, FOLDERS, [name.format(what) for name in NAMES])


def _names(path: Path) -> tuple[str, ...]:
    """Read the file of labels, `{"Approaching something with your camera": "0", ...}`, in the order of the numbers."""
    numbers = read_json(path, TypeAdapter(dict[str, int]))
    names = tuple(sorted(numbers, key=numbers.__getitem__))
    if sorted(numbers.values()) != list(range(COUNT)) or not all(name.isprintable() for name in names):
        raise UsageError(f"{path}: does not number 174 classes from 0 to 173; give the file of Something-Something V2")
    return names
