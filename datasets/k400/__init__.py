"""Kinetics-400: 400 classes of human actions in clips of 10 s from YouTube; to be downloaded by the user."""

import json
import re
from collections import Counter
from pathlib import Path

from vpbench.data import Video, known_split
from vpbench.data.lists.files import VideoFiles, subfolders, unread_in, videos_in, words_of
from vpbench.data.lists.listing import ListedDataset, Listing, NoList, listed_videos, misplaced
from vpbench.data.lists.paths import loose
from vpbench.data.lists.text import find_list, has_header, read_text, table, whole
from vpbench.data.lists.tree import stem_of
from vpbench.errors import near_matches

CLASSES: tuple[str, ...] = tuple(json.loads((Path(__file__).parent / "classes.json").read_text(encoding="utf-8")))
#: split -> what its lists and folders are called; `test` is what VideoMAE's lists call `val`
WORDS = {"val": ("val", "validate", "validation"), "test": ("test",), "train": ("train",)}
COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
#: what the official files are called: one video in the world, whatever folder it lies in
_OFFICIAL = re.compile(r"[A-Za-z0-9_-]{11}_[0-9]{6}_[0-9]{6}")
#: copies differ in blanks, underscores, apostrophes and brackets; what is left still tells all classes apart
_LABELS = {loose(name): label for label, name in enumerate(CLASSES)}


class Kinetics400(ListedDataset):
    """Lists of `path label` or the official CSV files, else class folders; files are found by name in any folder.

    `test` may be asked for as well; it is no split of its own, since its list is either that of `val` or without use
    for papers, which all report `val`.
    """

    name = "k400"
    wanted = (
        "a folder with val.csv (lines `path label`, or the official columns label, youtube_id, time_start, time_end) "
        "and the videos, or with val/<class>/<video>.mp4; see github.com/cvdfoundation/kinetics-dataset"
    )
    classes = CLASSES
    splits = ("val", "train")

    def check_split(self, split: str) -> None:
        """Raise UsageError with near matches for a split that there is not."""
        known_split(self.name, split, tuple(WORDS))

    def read(self, root: Path, split: str) -> Listing:
        """Read the first list there is, else the class folders."""
        held_out = {*WORDS["val"], *WORDS["test"]}  # whose videos may lie in the folders of either
        files = VideoFiles(root, held_out if split == "train" else WORDS["train"])
        listed = _list_of(root, split)
        if listed is None:
            return _class_folders(root, split)
        source, text = listed
        if has_header(text, "youtube_id"):
            listing = _official(source, text, files, split)
        else:
            listing = listed_videos(source, text, files, len(CLASSES), _is_official)
        for line in misplaced(listing.present, CLASSES, _LABELS):
            listing.odd("in the folder of another class", line)
        return listing


def _is_official(stem: str) -> bool:
    return _OFFICIAL.fullmatch(stem) is not None


def _list_of(root: Path, split: str) -> tuple[Path, str] | None:
    folders = [root, *(root / name for name in ("annotations", "kinetics400", "lists", "labels"))]
    source = find_list(folders, WORDS[split])
    if source is not None:
        return source, read_text(source)
    if split == "val" and (source := find_list(folders, WORDS["test"])) is not None:
        text = read_text(source)
        # VideoMAE's test.csv is the list of val; the official one is another split
        return None if has_header(text, "youtube_id") else (source, text)
    return None


def _official(source: Path, text: str, files: VideoFiles, split: str) -> Listing:
    listing = Listing()
    for line, (name, youtube_id, *times) in table(source, text, COLUMNS):
        where = f"{source} line {line}"
        label = _LABELS.get(loose(name))
        if label is None:
            listing.faults.append(f"{where}: {name[:60]!r} is none of the 400 classes of Kinetics-400")
            continue
        if not _YOUTUBE_ID.fullmatch(youtube_id):
            listing.faults.append(f"{where}: {youtube_id[:20]!r} is no YouTube id")
            continue
        start, end = (whole(source, line, column, time) for column, time in zip(COLUMNS[2:], times, strict=True))
        stem = f"{youtube_id}_{start:06d}_{end:06d}"
        place = files.named(stem, files.root / split / CLASSES[label] / f"{stem}.mp4")
        listing.add(Video(stem, place.path, label), place.found, where)
    return listing


def _class_folders(root: Path, split: str) -> Listing:
    """List `<folder of the split>/<class>/<video>`, sorted by folder and name."""
    folder = _folder_of(root, split)
    listing = Listing()
    if alone := videos_in(folder):
        line = f"{folder}: {len(alone)} videos lie in no class folder, and are not listed"
        listing.odd("in no class folder", line, len(alone))
    unread = Counter[str]()
    for name in subfolders(folder):
        videos = videos_in(folder / name)
        label = _LABELS.get(loose(name))
        if label is None:
            if videos:
                close = near_matches(name, CLASSES).partition(" (known")[0]
                listing.faults.append(f"{folder / name}: not named after a class of Kinetics-400{close}")
            continue
        unread.update(unread_in(folder / name))
        for file in videos:
            stem = stem_of(file.name)
            path = None if _is_official(stem) else file.relative_to(root).as_posix()
            listing.add(Video(stem, file, label), True, str(folder / name), path)
    listing.unread(folder, unread)
    return listing


def _folder_of(root: Path, split: str) -> Path:
    """Find the folder of a split's class folders: `val`, `videos_val`, `val_256`; the shortest name counts."""
    for base in (root, root / "videos", root / "kinetics400"):
        named = [name for name in subfolders(base) if words_of(name) & set(WORDS[split])]
        for name in sorted(named, key=lambda name: (len(name), name)):
            if any(loose(inner) in _LABELS for inner in subfolders(base / name)):
                return base / name
    raise NoList(f"{root}: neither a list nor class folders of k400 {split}; --root is to be {Kinetics400.wanted}")
