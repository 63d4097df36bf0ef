"""Diving48: 48 classes of dives that differ in their parts, 17,000 clips; to be downloaded by the user."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from vpbench.data.lists.files import first_file
from vpbench.data.lists.listing import ListedDataset, Listing, NoList
from vpbench.data.lists.official import Entry, official_videos, read_json
from vpbench.errors import UsageError

COUNT = 48
FOLDERS = (".", "annotations", "lists")
#: the corrected lists of October 2020 before the first ones
NAMES = ("Diving48_V2_{}.json", "Diving48_{}.json")


@dataclass(frozen=True, slots=True)
class Dive:
    """What is read of an official entry; clips are cut, so that its frames are all of them."""

    vid_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
    label: Annotated[int, Field(ge=0, lt=COUNT)]


class Diving48(ListedDataset):
    """The official JSON files, V2 where it is there, with the videos flat, or as folders of frames."""

    name = "diving48"
    wanted = (
        "a folder with Diving48_V2_test.json, Diving48_V2_train.json, Diving48_vocab.json, and rgb/<name>.mp4; "
        "see www.svcl.ucsd.edu/projects/resound/dataset.html"
    )
    #: numbers, until the copy at hand tells the names
    classes = tuple(str(label) for label in range(COUNT))
    splits = ("test", "train")

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root)
        source = None if self.root is None else first_file(self.root, FOLDERS, ["Diving48_vocab.json"])
        if source is not None:
            self.classes = _classes(source)

    def read(self, root: Path, split: str) -> Listing:
        """Read the official file of a split."""
        source = first_file(root, FOLDERS, [name.format(split) for name in NAMES])
        if source is None:
            raise NoList(f"{root}: no {NAMES[0].format(split)}; --root is to be {self.wanted}")
        dives = read_json(source, TypeAdapter(list[Dive]))
        entries = [Entry(f"{source} {dive.vid_name}", f"rgb/{dive.vid_name}.mp4", dive.label) for dive in dives]
        listing = official_videos(root, source, entries)
        if "_V2_" not in source.name:
            listing.notes["list of the first version, whose labels were corrected in V2"] = [str(source)]
        return listing


def _classes(source: Path) -> tuple[str, ...]:
    """Read the parts of each dive, in the order of the labels."""
    names = tuple(" ".join(parts) for parts in read_json(source, TypeAdapter(list[list[str]])))
    if len(set(names)) != COUNT or not all(name.isprintable() for name in names):
        raise UsageError(f"{source}: does not name {COUNT} classes; give the official file")
    return names
