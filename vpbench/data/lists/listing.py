"""A split as listed: its videos in order, what is wrong with it, and the base of all datasets that are listed so."""

import abc
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar

from vpbench.data import Dataset, Video, known_split
from vpbench.data.lists.files import VideoFiles, stem_of
from vpbench.data.lists.roots import given_root, needed_root
from vpbench.data.lists.text import path_labels
from vpbench.errors import UsageError

#: as many videos as suffice to derive a threshold from
CALIBRATION_VIDEOS = 72


class NoList(UsageError):
    """A split has neither a list nor folders that would do as one."""


@dataclass
class Listing:
    """Videos of a split. `faults` make the list useless, `oddities` are merely said."""

    videos: list[Video] = field(default_factory=list)
    present: list[Video] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)
    _labels: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def add(self, video: Video, found: bool, where: str) -> None:
        """Append a video, unless its id is already there: the first one counts."""
        labels = video.label, video.noun
        if video.video_id in self._labels:
            first = self._labels[video.video_id]
            differs = "" if first == labels else f" with other labels ({first[0]} and {video.label})"
            self.oddities.append(f"{where}: {video.video_id} is listed twice{differs}; the first counts")
            return
        self._labels[video.video_id] = labels
        self.videos.append(video)
        if found:
            self.present.append(video)


class ListedDataset(Dataset):
    """A dataset of the user's own copy: lists and files under one folder, `--root` or an environment variable."""

    #: what is typed as `--dataset`
    name: ClassVar[str]
    #: what the folder should hold, and where to get it
    wanted: ClassVar[str]
    #: why there is no split `test`, where it exists without labels
    no_test: ClassVar[str] = ""

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(given_root(self.name, root))
        self._listings: dict[str, Listing] = {}

    @abc.abstractmethod
    def read(self, root: Path, split: str) -> Listing:
        """Read the list of a split; raises NoList where there is none, UsageError where it makes no sense."""

    def videos(self, split: str) -> list[Video]:
        """List the videos of a split in the order of the list, missing files included.

        Raises UsageError where the folder or the list is missing or wrong.
        """
        listing = self._listing(split)
        if listing.faults:
            more = f" (and {len(listing.faults) - 1} more faults)" if len(listing.faults) > 1 else ""
            raise UsageError(f"{listing.faults[0]}{more}; give the lists of {self.name}")
        return list(listing.videos)

    def contradictions(self, split: str) -> list[str]:
        """Say what is wrong with a list, also where `videos` refuses it, and which files come twice."""
        listing = self._listing(split)
        return [*listing.faults, *listing.oddities, *_shared_files(listing.present)]

    def calibration(self) -> list[Video]:
        """Spread up to 72 videos of the train split evenly; raises UsageError where no video of it is there."""
        advice = "without them set the native parameters of a method with --set instead of --keep"
        try:
            self.videos("train")
        except NoList as error:
            raise UsageError(f"{self.name}: thresholds are derived from train videos; {error}; {advice}") from error
        present = self._listing("train").present
        if not present:
            raise UsageError(f"{self.root}: none of {self.name}'s train videos is there; {advice}")
        count = min(CALIBRATION_VIDEOS, len(present))
        return [present[place * len(present) // count] for place in range(count)]

    def check_split(self, split: str) -> None:
        """Raise UsageError with near matches for a split that there is not, and with the reason for `no_test`."""
        if split == "test" and self.no_test:
            raise UsageError(f"{self.name}: {self.no_test}")
        known_split(self.name, split, self.splits)

    def _listing(self, split: str) -> Listing:
        self.check_split(split)
        if split not in self._listings:
            self._listings[split] = self.read(needed_root(self.name, self.root, self.wanted), split)
        return self._listings[split]


def listed_videos(source: Path, text: str, files: VideoFiles, classes: int) -> Listing:
    """Read a `path label` list; labels outside the range are faults."""
    listing = Listing()
    for line, path, label in path_labels(source, text):
        where = f"{source} line {line}"
        if label >= classes:
            listing.faults.append(f"{where}: label {label} is outside 0 to {classes - 1}")
        place = files.listed(path, source)
        listing.add(Video(stem_of(PurePosixPath(path).name), place.path, label), place.found, where)
    return listing


def _shared_files(videos: list[Video]) -> list[str]:
    """Name the files that two ids stand for, be it by way of links; parts of one file are what they are."""
    owner: dict[tuple[int, int], str] = {}
    found = []
    for video in videos:
        if video.part is not None:
            continue
        try:
            status = os.stat(video.path)
        except OSError:  # a link that leads nowhere; it is missing, not shared
            continue
        first = owner.setdefault((status.st_dev, status.st_ino), video.video_id)
        if first != video.video_id:
            found.append(f"{video.path}: one file for both {first} and {video.video_id}")
    return found
