"""A split as listed: its videos in order, what is wrong with it, and the base of all datasets that are listed so."""

import abc
import contextlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from vpbench.data import Dataset, Video, known_split
from vpbench.data.lists.copies import equal_videos, stat_all
from vpbench.data.lists.files import VideoFiles
from vpbench.data.lists.paths import below, loose, parts_of
from vpbench.data.lists.roots import given_root, needed_root
from vpbench.data.lists.text import Listed, path_labels
from vpbench.data.lists.tree import stem_of
from vpbench.errors import UsageError

#: as many videos as suffice to derive a threshold from
CALIBRATION_VIDEOS = 72
#: advice where there is nothing to calibrate on
NOT_WITHOUT = "without them set the native parameters of a method with --set instead of --keep"
#: so many lines of each kind are told in notes; the rest is counted
NOTED = 3
_FRAMES_COLUMN = re.compile(r"(.*[^\s,])[\s,]+[0-9]{1,9}")


class NoList(UsageError):
    """A split has neither a list nor folders that would do as one."""


@dataclass
class Listing:
    """Videos of a split. `faults` make the list useless; `oddities` and `notes` are said, by kind, a line each.

    Kinds of oddities follow a number of videos (`2 listed twice`), as those of notes do; notes are no contradictions.
    """

    videos: list[Video] = field(default_factory=list)
    present: list[Video] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    oddities: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    #: how many videos or files the lines of each kind of oddity are about
    counts: Counter[str] = field(default_factory=Counter)
    _labels: dict[object, tuple[int, int | None]] = field(default_factory=dict)
    _below: list[str | None] = field(default_factory=list)
    _found: list[bool] = field(default_factory=list)

    def add(self, video: Video, found: bool, where: str, path: str | None = None) -> None:
        """Append a video, unless it is already there: the first one counts.

        path: where it is listed below the root, where an id stands for one video of one folder alone; see `settle`.
        """
        labels, own = (video.label, video.noun), video.video_id if path is None else (path, video.part)
        if own in self._labels:
            first = self._labels[own]
            differs = "" if first == labels else f" with other labels ({first[0]} and {video.label})"
            kind = "listed twice with other labels" if differs else "listed twice"
            self.odd(kind, f"{where}: {video.video_id} is listed twice{differs}; the first counts")
            return
        self._labels[own] = labels
        self.videos.append(video)
        self._below.append(path)
        self._found.append(found)
        if found:
            self.present.append(video)

    def odd(self, kind: str, line: str, count: int = 1) -> None:
        """Take down that something contradicts something else; count: of the videos or files that a line is about."""
        self.oddities.setdefault(kind, []).append(line)
        self.counts[kind] += count

    def unread(self, folder: Path, endings: Mapping[str, int]) -> None:
        """Take down that files of a folder have endings that are not read; endings: how many files have each."""
        if endings:
            named = ", ".join(f"{ending} {count}" for ending, count in endings.items())
            count = sum(endings.values())
            line = f"{folder}: {count} files with endings that are not read ({named}); convert them to MP4"
            self.odd("with an ending that is not read", line, count)

    def settle(self) -> None:
        """Give videos whose files have the same name their paths below the root, without endings, as ids.

        Names that are alone stay as they are, so that ids do not depend on where the files lie.
        """
        self.videos = [replace(each, video_id=unicodedata.normalize("NFC", each.video_id)) for each in self.videos]
        for longer in (lambda path: "/".join((*parts_of(path)[:-1], stem_of(parts_of(path)[-1]))), str):
            counts = Counter(video.video_id for video in self.videos)
            for place, (video, path) in enumerate(zip(self.videos, self._below, strict=True)):
                if path is not None and counts[video.video_id] > 1:
                    own = longer(path) + part_name(video)
                    self.videos[place] = replace(video, video_id=own)
        self.present = [video for video, found in zip(self.videos, self._found, strict=True) if found]


class ListedDataset(Dataset):
    """A dataset of the user's own copy: lists and files under one folder, `--root` or an environment variable."""

    #: what is typed as `--dataset`
    name: ClassVar[str]
    #: what the folder should hold, and where to get it
    wanted: ClassVar[str]
    #: why there is no split `test`, where it exists without labels
    no_test: ClassVar[str] = ""
    #: what to do about a list that makes no sense
    mend: ClassVar[str] = "give the lists of the dataset"

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
            raise UsageError(f"{listing.faults[0]}{more}; {self.mend}")
        return list(listing.videos)

    def contradictions(self, split: str) -> list[str]:
        """Say what is wrong with a list, also where `videos` refuses it, and which files come twice."""
        listing = self._listing(split)
        odd = (line for lines in listing.oddities.values() for line in lines)
        return [*listing.faults, *odd, *_shared_files(listing.present)]

    def remarks(self, split: str) -> list[str]:
        """Say what had to be guessed to find the files, a line for each kind."""
        return [
            f"{len(lines)} {kind} ({', '.join(lines[:NOTED])}{', ...' if len(lines) > NOTED else ''})"
            for kind, lines in self._listing(split).notes.items()
        ]

    def problems(self, split: str) -> dict[str, int]:
        """Count what contradicts itself by kind, files of equal content with different labels too."""
        listing = self._listing(split)
        shared = len(_shared_files(listing.present))
        stats = stat_all({video.path for video in listing.present})
        equal = sum(len(group) for group, differs in equal_videos(listing.present, stats) if differs)
        more = {"sharing one file with another": shared, "with the content of another, but another label": equal}
        return dict(listing.counts) | {kind: count for kind, count in more.items() if count}

    def calibration(self) -> list[Video]:
        """Spread up to 72 videos of the train split evenly; raises UsageError where no video of it is there."""
        try:
            self.videos("train")
        except NoList as error:
            raise _nothing_to_train_on(self.name, error) from error
        present = self._listing("train").present
        if not present:
            raise UsageError(f"{self.root}: none of {self.name}'s train videos is there; {NOT_WITHOUT}")
        return spread(present)

    def check_split(self, split: str) -> None:
        """Raise UsageError with near matches for a split that there is not, and with the reason for `no_test`."""
        if split == "test" and self.no_test:
            raise UsageError(f"{self.name}: {self.no_test}")
        known_split(self.name, split, self.splits)

    def _listing(self, split: str) -> Listing:
        self.check_split(split)
        if split not in self._listings:
            listing = self.read(needed_root(self.name, self.root, self.wanted), split)
            listing.settle()
            self._listings[split] = listing
        return self._listings[split]


def spread(present: Sequence[Video]) -> list[Video]:
    """Choose up to 72 videos, evenly spread over the list."""
    count = min(CALIBRATION_VIDEOS, len(present))
    return [present[place * len(present) // count] for place in range(count)]


def untested(dataset: ListedDataset, train: str, tests: Sequence[str]) -> list[Video]:
    """Spread up to 72 videos of a split to train on that are in no split to test on of which there is a list."""
    tested: set[str] = set()
    for split in tests:
        with contextlib.suppress(NoList):  # a split without a list is not evaluated
            tested.update(video.video_id for video in dataset.videos(split))
    try:
        videos = dataset.videos(train)
    except NoList as error:
        raise _nothing_to_train_on(dataset.name, error) from error
    present = [video for video in videos if video.video_id not in tested and video.path.exists()]
    if not present:
        raise UsageError(f"{dataset.root}: no video of {dataset.name} is there that is only trained on; {NOT_WITHOUT}")
    return spread(present)


def _nothing_to_train_on(name: str, error: NoList) -> UsageError:
    return UsageError(f"{name}: thresholds are derived from train videos; {error}; {NOT_WITHOUT}")


def part_name(video: Video) -> str:
    """Return what tells the parts of one file apart, to be put behind its name; empty for a whole file."""
    return "" if video.part is None else "@" + "-".join(f"{value:g}" for value in vars(video.part).values())


def listed_videos(
    source: Path, text: str, files: VideoFiles, classes: int, unique: Callable[[str], bool] = lambda stem: False
) -> Listing:
    """Read a `path label` list, or `path frames label` of folders of frames; labels outside the range are faults.

    unique: names that stand for one video in whatever folder it lies, as those of the published dataset do.
    """
    lines = _without_frames(path_labels(source, text), files, source)
    paths = [line.path for line in lines]
    listing = Listing()
    for line, place, path in zip(lines, files.find(paths, source, unique), below(paths, files.root), strict=True):
        where = f"{source} line {line.line}"
        if line.label >= classes:
            listing.faults.append(f"{where}: label {line.label} is outside 0 to {classes - 1}")
        stem = stem_of(parts_of(line.path)[-1])
        listing.add(Video(stem, place.path, line.label), place.found, where, None if unique(stem) else path)
    listing.notes |= files.notes
    return listing


def _without_frames(lines: list[Listed], files: VideoFiles, source: Path) -> list[Listed]:
    """Take the column of frame counts away, if there is one: the paths are there without it, and not with it."""
    shorter = [(line, _FRAMES_COLUMN.fullmatch(line.path)) for line in lines]
    if not lines or any(match is None for _, match in shorter):
        return lines
    bases = (files.root, source.parent)
    cut = [line._replace(path=match[1]) for line, match in shorter if match is not None]
    if any(files.holds(base / line.path) for line in lines for base in bases):
        return lines
    return cut if any(files.holds(base / line.path) for line in cut for base in bases) else lines


def misplaced(videos: Iterable[Video], classes: Sequence[str], labels: Mapping[str, int]) -> list[str]:
    """Name the videos that lie in the folder of another class than the one listed; labels: by `loose` class name."""
    found = []
    for video in videos:
        folder = labels.get(loose(video.path.parent.name))
        if folder is not None and folder != video.label:
            found.append(
                f"{video.path}: lies in the folder of class {folder}, but is listed as {video.label} "
                f"({classes[video.label] if video.label < len(classes) else 'no class'})"
            )
    return found


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
