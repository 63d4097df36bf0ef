"""EPIC-Kitchens-100: 97 verbs and 300 nouns in segments of long first-person videos; to be downloaded by the user."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vpbench.data import Numbers, Seconds, Video
from vpbench.data.lists.files import first_file, videos_in
from vpbench.data.lists.listing import ListedDataset, Listing, NoList
from vpbench.data.lists.text import read_text, table, whole
from vpbench.data.lists.tree import stem_of
from vpbench.errors import UsageError

VERBS, NOUNS = 97, 300
FOLDERS = (".", "annotations", "epic-kitchens-100-annotations")
COLUMNS = (
    "narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "start_frame", "stop_frame",
    "verb_class", "noun_class",
)  # fmt: skip
_IDS = {
    "participant_id": re.compile(r"P[0-9]{2,3}"),
    "video_id": re.compile(r"P[0-9]{2,3}_[0-9]{2,3}"),
    "narration_id": re.compile(r"P[0-9]{2,3}_[0-9]{2,3}_[0-9]{1,6}"),
}
_TIME = re.compile(r"([0-9]{1,3}):([0-5]?[0-9]):([0-5]?[0-9](?:\.[0-9]{1,9})?)")


class Segment(NamedTuple):
    """A row of an official table: what is done in a part of a video."""

    narration_id: str
    participant: str
    video_id: str
    time: Seconds
    frames: Numbers
    verb: int
    noun: int


class EpicKitchens100(ListedDataset):
    """The official tables, with whole videos, folders of frames, or one trimmed video per narration."""

    name = "epic100"
    wanted = (
        "a folder with EPIC_100_validation.csv (names: EPIC_100_verb_classes.csv, EPIC_100_noun_classes.csv) and "
        "P01/videos/P01_01.MP4 or P01/rgb_frames/P01_01/frame_0000000001.jpg; see epic-kitchens.github.io"
    )
    #: numbers, until the tables of classes tell the names
    classes = tuple(str(verb) for verb in range(VERBS))
    nouns = tuple(str(noun) for noun in range(NOUNS))
    splits = ("validation", "train")
    no_test = "the labels of the test split are not published; use --split validation"

    def __init__(self, root: Path | None = None) -> None:
        super().__init__(root)
        if self.root is not None:
            self.classes = _names(self.root, "EPIC_100_verb_classes.csv", VERBS) or self.classes
            self.nouns = _names(self.root, "EPIC_100_noun_classes.csv", NOUNS) or self.nouns

    def read(self, root: Path, split: str) -> Listing:
        """Read the official table of a split."""
        source = first_file(root, FOLDERS, [f"EPIC_100_{split}.csv"])
        if source is None:
            raise NoList(f"{root}: no EPIC_100_{split}.csv; --root is to be {self.wanted}")
        kitchens = Kitchens(root)
        listing = Listing()
        for line, segment in _segments(source):
            where = f"{source} line {line}"
            for column, label, count in (("verb_class", segment.verb, VERBS), ("noun_class", segment.noun, NOUNS)):
                if label >= count:
                    listing.faults.append(f"{where}: {column} {label} is outside 0 to {count - 1}")
            if segment.time.start == segment.time.stop:
                listing.odd("lasting no time", f"{where}: {segment.narration_id} lasts no time")
            video, found = kitchens.place(segment)
            listing.add(video, found, where)
        return listing


class Kitchens:
    """Where the videos of the participants are: as released, or flat, or cut into one file per narration.

    Only folders in which a video may lie are listed: those of frames hold millions of files.
    """

    def __init__(self, root: Path) -> None:
        self.bases = (root, root / "EPIC-KITCHENS")
        self._videos: dict[Path, dict[str, Path]] = {}
        self._sources: dict[str, tuple[Path, bool] | None] = {}

    def place(self, segment: Segment) -> tuple[Video, bool]:
        """Return a segment as a video, and whether it is there: in a whole video, as frames, or on its own."""
        if segment.video_id not in self._sources:
            self._sources[segment.video_id] = self._source(segment)
        source = self._sources[segment.video_id]
        if source is not None:
            path, is_folder = source
            return _video(segment, path, segment.frames if is_folder else segment.time), True
        trimmed = self._video_file(segment.participant, segment.narration_id)
        if trimmed is not None:
            return _video(segment, trimmed, None), True
        wanted = self.bases[0] / segment.participant / "videos" / f"{segment.video_id}.MP4"
        return _video(segment, wanted, segment.time), False

    def _source(self, segment: Segment) -> tuple[Path, bool] | None:
        """Find the video that holds a segment, and tell whether it is a folder of frames."""
        file = self._video_file(segment.participant, segment.video_id)
        if file is not None:
            return file, False
        person, video = segment.participant, segment.video_id
        inner = (f"{person}/rgb_frames/{video}", f"rgb_frames/{person}/{video}", f"rgb_frames/{video}")
        names = (*inner, f"{person}/{video}", video)
        folders = (base / name for base in self.bases for name in names)
        return next(((folder, True) for folder in folders if folder.is_dir()), None)

    def _video_file(self, person: str, stem: str) -> Path | None:
        names = (f"{person}/videos", f"videos/{person}", "videos", person, ".", f"{person}/clips", "clips")
        for folder in (base / name for base in self.bases for name in names):
            if folder not in self._videos:
                self._videos[folder] = {stem_of(file.name): file for file in videos_in(folder)}
            if stem in self._videos[folder]:
                return self._videos[folder][stem]
        return None


def _video(segment: Segment, path: Path, part: Seconds | Numbers | None) -> Video:
    return Video(segment.narration_id, path, segment.verb, part, segment.noun)


def _segments(source: Path) -> Iterator[tuple[int, Segment]]:
    """Read a table by the names of its columns: drafts have one more in front. Lists within cells are not read."""
    for line, cells in table(source, read_text(source), COLUMNS):
        row = dict(zip(COLUMNS, cells, strict=True))
        _check_ids(source, line, row)
        start, stop = (_seconds(source, line, column, row[column]) for column in COLUMNS[3:5])
        first, last, verb, noun = (whole(source, line, column, row[column]) for column in COLUMNS[5:])
        if stop < start or last < first:
            raise UsageError(f"{source} line {line}: {row['narration_id']} stops before it starts")
        narration, person, video = (row[column] for column in COLUMNS[:3])
        yield line, Segment(narration, person, video, Seconds(start, stop), Numbers(first, last), verb, noun)


def _check_ids(source: Path, line: int, row: dict[str, str]) -> None:
    """Paths are made of these ids, which therefore have to be what they claim to be."""
    for column, shape in _IDS.items():
        if not shape.fullmatch(row[column]):
            raise UsageError(f"{source} line {line}: {column} is {row[column][:40]!r}, not like P01, P01_01, P01_01_0")
    person, video, narration = (row[column] for column in _IDS)
    if not (video.startswith(f"{person}_") and narration.startswith(f"{video}_")):
        raise UsageError(f"{source} line {line}: {narration} is not of {video}, or that not of {person}")


def _seconds(source: Path, line: int, column: str, text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise UsageError(f"{source} line {line}: {column} is {text[:20]!r}, not a time like 00:01:02.34")
    hours, minutes, seconds = match.groups()
    # rounded, so that equal times are equal numbers whatever the sum
    return round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 9)


def _names(root: Path, name: str, count: int) -> tuple[str, ...] | None:
    """Read a table of classes; None where there is none."""
    path = first_file(root, FOLDERS, [name])
    if path is None:
        return None
    keys = {whole(path, line, "id", number): key for line, (number, key) in table(path, read_text(path), ("id", "key"))}
    if sorted(keys) != list(range(count)) or not all(key.isprintable() for key in keys.values()):
        raise UsageError(f"{path}: does not name {count} classes from 0 to {count - 1}; give the released file")
    return tuple(keys[label] for label in range(count))
