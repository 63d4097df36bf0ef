"""Videos of your own: class folders, or a list, with any number of classes; frames as pictures too."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from vpbench.data import Given, Video
from vpbench.data.lists.copies import copied
from vpbench.data.lists.listing import CALIBRATION_VIDEOS, ListedDataset, Listing, misplaced, spread
from vpbench.data.lists.paths import loose, parts_of
from vpbench.data.lists.roots import given_root, needed_root
from vpbench.data.lists.text import find_list
from vpbench.data.lists.tree import stem_of
from vpbench.datasets.folder.classes import Classes, classes_of
from vpbench.datasets.folder.items import TRAIN, Item, Items, is_train, items_of, listed
from vpbench.errors import UsageError

#: the split where nothing is split, and what is left of it where some videos are to be calibrated on
ALL, REST = "all", "rest"
#: one video of so many is calibrated on where there is no split to train on, two at least
SHARE = 5


class Folder(ListedDataset):
    """`ROOT/<class>/**` or `ROOT/<split>/<class>/**`, a list, or the metadata of a Hugging Face folder.

    Without a split to train on a fifth of the videos, chosen by a hash of their paths, is calibrated on where that is
    asked for; split `rest` is what is left of them.
    """

    name = "folder"
    wanted = (
        "a folder with <class>/<video> or <split>/<class>/<video>, in which a video is a file or a folder of frames, "
        "or one that holds what --list FILE names"
    )
    remedy = "give weights with as many outputs, or --classes FILE with a name for each output"
    missing = "put them there, or give the --root in which they lie"
    mend = "`vpbench data check folder` names all"
    classes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()

    def __init__(self, root: Path | None = None, given: Given | None = None) -> None:
        given = Given() if given is None else given
        beside = None if given.list is None else given.list.absolute().parent
        super().__init__(given_root(self.name, root) or beside)
        self._given = given
        if self.root is not None:
            self._open(needed_root(self.name, self.root, self.wanted))

    @classmethod
    def opened(cls, root: Path | None, given: Given) -> Self:
        """Open a folder with its list and classes."""
        return cls(root, given)

    def _open(self, root: Path) -> None:
        self._found: Items = items_of(root, self._given.list)
        self._classes: Classes = classes_of(self._found, self._given.classes, self._given.names)
        self.classes = self._classes.names
        if self._classes.numbers and (lowest := min(int(item.label) for item in self._found.items)):
            self.remedy = f"labels are counted from 0, and the lowest here is {lowest}; count them so, or {self.remedy}"
        whole = tuple(self._found.splits) or (ALL,)
        self._train = next((split for split in whole if is_train(split) and len(whole) > 1), None)
        self._train_list = None if self._given.list is None else _list_to_train_on(self._given.list)
        held_back = self._train is None and self._train_list is None
        self.splits = (*whole, REST) if held_back else whole

    def default_split(self, calibrated: bool) -> str:
        """Return the split to validate on, or to test on; what is left of it where a share is calibrated on."""
        needed_root(self.name, self.root, self.wanted)
        return REST if calibrated and REST in self.splits else self.splits[0]

    def read(self, root: Path, split: str) -> Listing:
        """List the videos of a split."""
        share = {item.below for item in self._share()} if split == REST else ()
        own = [i for i in self._split(self.splits[0] if split == REST else split) if i.below not in share]
        listing = self._listed(own)
        listing.notes |= self._found.notes
        self._note(listing, split, own)
        return listing

    def calibration(self) -> list[Video]:
        """Spread up to 72 videos of the split to train on, or return the share that is held back.

        Files with the content of one that is evaluated are left out.
        """
        advice = "set the native parameters of a method with --set instead of --keep"
        needed_root(self.name, self.root, self.wanted)
        train = self._to_train_on()
        if train is not None:
            if self._train is not None and self._given.split == self._train:
                raise UsageError(f"split {self._train} is evaluated, and cannot be calibrated on as well; {advice}")
            others = {item.path for item in self._found.items if item.split != self._train}
            present = self._listed([item for item in train if item.found and item.path not in others]).videos
            while copies := copied(chosen := spread(present), others):
                present = [video for video in present if video.path not in copies]
            if not chosen:
                raise UsageError(f"{self.root}: no video is there that is only trained on; {advice}")
            return chosen
        if self._given.split != REST:
            raise UsageError(
                f"there is no split to train on, and split {self._given.split or self.splits[0]} evaluates all videos; "
                f"give --split {REST}, which holds back a share to calibrate on, or {advice}"
            )
        share = self._share()
        held_back = {item.below for item in share}
        evaluated = {item.path for item in self._split(self.splits[0]) if item.below not in held_back}
        videos = self._listed(share).videos
        copies = copied(videos, evaluated)
        if not (own := [video for video in videos if video.path not in copies]):
            raise UsageError(f"{self.root}: all videos that are held back are copies of evaluated ones; {advice}")
        return own

    def _split(self, split: str) -> list[Item]:
        return [item for item in self._found.items if not self._found.splits or item.split == split]

    def _share(self) -> list[Item]:
        """Choose the videos to calibrate on: those with the lowest hashes, so that new ones change few."""
        there = [item for item in self._split(self.splits[0]) if item.found]
        count = min(CALIBRATION_VIDEOS, max(2, len(there) // SHARE))
        if len(there) <= count:
            raise UsageError(
                f"{self.root}: {len(there)} videos are too few to hold some back; use --split {self.splits[0]}"
            )
        return sorted(there, key=lambda item: hashlib.sha256(item.below.encode()).digest())[:count]

    def _to_train_on(self) -> list[Item] | None:
        """Return the videos of the split to train on, or of the list beside; None where there is neither."""
        if self._train is not None:
            return self._split(self._train)
        return None if self._train_list is None or self.root is None else listed(self.root, self._train_list).items

    def _listed(self, items: Sequence[Item]) -> Listing:
        listing = Listing()
        for item in items:
            label = self._classes.label(item.label)  # none where only a list to train on has that class
            video = Video(stem_of(parts_of(item.below)[-1]), item.path, -1 if label is None else label, item.part)
            listing.add(video, item.found, item.where, item.below)
        listing.settle()
        return listing

    def _note(self, listing: Listing, split: str, own: list[Item]) -> None:
        """Take down what is odd about a split."""
        real = "" if split in (ALL, REST) and not self._found.splits else self.splits[0] if split == REST else split
        listing.faults += [text for top, text in self._found.faults if top == real]
        if real in self._found.unread:
            listing.unread(*self._found.unread[real])
        for path in self._found.loose.get(real, ()):
            listing.odd("in no class folder", f"{path}: lies in no class folder, and is not listed")
        if self._found.listed:
            labels = {loose(name): place for place, name in enumerate(self.classes) if not name.isdecimal()}
            for line in misplaced(listing.present, self.classes, labels):
                listing.odd("in the folder of another class", line)
        for count, line in self._classes.spellings(own):
            listing.odd("of a class that is spelled in several ways", line, count)
        full = {self._classes.label(item.label) for item in own}
        if empty := [name for place, name in enumerate(self.classes) if place not in full]:
            listing.notes["classes have no video in this split"] = empty


def _list_to_train_on(source: Path) -> Path | None:
    """Find the list to train on that lies beside one to evaluate: `train.csv` beside `val.csv`."""
    found = find_list([source.absolute().parent], TRAIN)
    return None if found is None or found == source.absolute() else found
