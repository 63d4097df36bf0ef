"""The labelled videos of a user's folder, as its class folders or a list have them; nothing is opened."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vpbench.data import Seconds
from vpbench.data.lists.files import VideoFiles, subfolders, words_of
from vpbench.data.lists.paths import below, parts_of
from vpbench.data.lists.records import NoLabels, records
from vpbench.data.lists.text import read_text
from vpbench.data.lists.tree import BESIDE, Found, unread, walk
from vpbench.errors import UsageError

#: words in the names of folders and lists that tell a split, those that are evaluated first in front
ROLES = (("val", "valid", "validate", "validation"), ("dev", "eval"), ("test", "testing"), (), ("train", "training"))
#: place of splits with none of these words
OTHER, TRAIN = 3, ROLES[-1]
WORDS = frozenset(word for words in ROLES for word in words)
METADATA = ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class Item:
    """A video: where it is or should be, its path below the root, its label as text, and what a list says besides."""

    path: Path
    found: bool
    below: str
    label: str
    where: str
    split: str = ""
    number: str | None = None
    part: Seconds | None = None


@dataclass
class Items:
    """All videos of a folder, and what is odd about it: notes by kind, faults, and files without use by split."""

    items: list[Item] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)
    #: split -> folder and endings of files that are not read; videos in no class folder
    unread: dict[str, tuple[Path, dict[str, int]]] = field(default_factory=dict)
    loose: dict[str, list[Path]] = field(default_factory=dict)
    #: labels are of a list, where numbers are numbers
    listed: bool = False

    @property
    def splits(self) -> list[str]:
        """Names of the splits, those that are evaluated first in front; empty where nothing is split."""
        return sorted({item.split for item in self.items if item.split}, key=lambda name: (role(name), name))


def role(name: str) -> int:
    """Return the place of a split among `ROLES`: the lower it is, the sooner it is meant where none is named."""
    return next((place for place, words in enumerate(ROLES) if words_of(name) & set(words)), OTHER)


def is_train(split: str) -> bool:
    """Tell whether a split is there to train on."""
    return bool(words_of(split) & set(TRAIN))


def items_of(root: Path, source: Path | None) -> Items:
    """Return what a list names, or the metadata that lie in a folder, or its class folders.

    Raises UsageError where none of these makes sense.
    """
    if source is not None:
        return listed(root, source)
    every = [root, *(root / name for name in subfolders(root) if words_of(name) & WORDS)]
    found = [folder / name for folder in every for name in METADATA if (folder / name).is_file()]
    if not found:
        return class_folders(root)
    whole = Items(listed=True)
    try:
        for file in found:
            own = listed(root, file, "" if file.parent == root else file.parent.name)
            whole.items += own.items
            whole.notes |= own.notes
    except NoLabels as error:  # captions and the like beside class folders
        try:
            whole = class_folders(root)
        except UsageError:
            raise error from None
        whole.notes["lists without labels beside the folders"] = [str(file) for file in found]
        return whole
    if left := _unlisted(root, whole.items):
        whole.notes["in no line of the metadata"] = left
    return whole


def _unlisted(root: Path, items: Sequence[Item]) -> list[str]:
    """Return the paths below the root of the videos that no item stands for, be it by way of links."""
    known = {os.path.normpath(item.path) for item in items}
    videos = (each.path for each in walk(root, frames=True) if each.kind != "other")
    left = [path for path in videos if os.path.normpath(path) not in known]
    real = {os.path.realpath(path) for path in known} if left else set()
    return sorted(path.relative_to(root).as_posix() for path in left if os.path.realpath(path) not in real)


def listed(root: Path, source: Path, split: str = "") -> Items:
    """Read a list; nothing outside of the root is looked at.

    split: of all its videos, unless it has a column that says so.
    """
    files = VideoFiles(root, frames=True, confined=True)
    read = records(source, read_text(source), lambda path: files.exact(path, source) is not None)
    paths = [record.path for record in read]
    places = files.find(paths, source)
    found = Items(listed=True, notes=files.notes)
    for record, place, inside in zip(read, places, below(paths, root), strict=True):
        where = f"{source} line {record.line}"
        own = record.split or split or _split_of(source, root, record.path)
        if record.part is not None and place.found and place.path.is_dir():
            raise UsageError(f"{where}: {place.path} is a folder of frames, which has no seconds; list it as a whole")
        found.items.append(Item(place.path, place.found, inside, record.label, where, own, record.number, record.part))
    if len({item.split == "" for item in found.items}) > 1:
        bad = next(item for item in found.items if not item.split)
        raise UsageError(f"{bad.where}: no split, though other lines have one; fill in that column")
    return found


def _split_of(source: Path, root: Path, path: str) -> str:
    """Return the split in the first folder of a path of metadata in the root itself: `train/jump/a.mp4`."""
    first = parts_of(path)[0]
    return first if source.parent == root and source.name in METADATA and words_of(first) & WORDS else ""


def class_folders(root: Path) -> Items:
    """List `<class>/**/<video>` or `<split>/<class>/**/<video>`, sorted by split, class and path."""
    every = list(walk(root, frames=True))
    videos = [(each, each.path.relative_to(root).parts) for each in every if each.kind != "other"]
    if not videos:
        raise UsageError(f"{root}: no videos in it{_instead(root, every)}")
    splits = _splits(root, [parts for _, parts in videos])
    depth = 1 if splits else 0
    found = Items()
    for each, parts in sorted(videos, key=lambda video: video[1]):
        split = parts[0] if depth else ""
        if each.kind == "frames" and len(parts) <= depth + 1:
            raise UsageError(
                f"{each.path}: pictures of no video; frames are to lie in a folder for each video, in folders of "
                f"classes: {root.name}/jump/a/00001.jpg"
            )
        if len(parts) <= depth + 1:
            found.loose.setdefault(split, []).append(each.path)
            continue
        inside = "/".join(parts)
        found.items.append(Item(each.path, True, inside, parts[depth], str(each.path.parent), split))
    if not found.items:
        raise UsageError(f"{root}: no class folders, but {len(videos)} videos side by side{_instead(root, every)}")
    _look_beside(root, every, splits, found)
    return found


def _instead(root: Path, every: Sequence[Found]) -> str:
    """Say what there is in place of class folders."""
    endings = unread(each.name for each in every if each.kind == "other")
    lists = sorted(path.name for path in root.iterdir() if path.suffix in (".csv", ".tsv", ".jsonl"))
    lists += sorted(path.name for path in root.glob("*.txt") if words_of(path.stem) & (WORDS | {"list"}))
    named = ", ".join(f"{ending} {count}" for ending, count in endings.items())
    text = f"; files with endings that are not read: {named}; convert them to MP4" if endings else ""
    return f"{text}; give --list {root / lists[0]}" if lists else f"{text}; put them into {root.name}/<class>/"


def _splits(root: Path, videos: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the folders of splits, none where the folders are classes; raises UsageError where some are of each."""
    deep = Counter(parts[0] for parts in videos if len(parts) > 2)
    flat = Counter(parts[0] for parts in videos if len(parts) == 2)
    tops = sorted({*deep, *flat})
    splits = [top for top in tops if words_of(top) & WORDS and deep[top] > flat[top]]
    others = [top for top in tops if top not in splits]
    if splits and others:
        raise UsageError(
            f"{root}: {splits[0]} looks like a split and {others[0]} like a class; give the --root of folders that are "
            "all classes, or all splits"
        )
    if not splits and len(tops) > 1 and all(words_of(top) & WORDS for top in tops):
        raise UsageError(
            f"{root}: {', '.join(tops)} look like splits, but their videos lie in no class folders; "
            f"make {tops[0]}/<class>/<video>, or give --list FILE"
        )
    return splits


def _look_beside(root: Path, every: Sequence[Found], splits: Sequence[str], found: Items) -> None:
    """Take down folders of classes that hold no video, and files with endings that are not read."""
    depth, tops = (1, splits) if splits else (0, [""])
    others: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in every:
        parts = each.path.relative_to(root).parts
        if each.kind == "other" and len(parts) > depth + 1:
            others[parts[0] if depth else "", parts[depth]].append(each.name)
    full = {(item.split, item.label) for item in found.items}
    for top in tops:
        names = [name for name in subfolders(root / top) if (root / top / name).is_dir()]
        for name in names:
            beside = others[top, name]
            if (top, name) in full:
                continue
            if any(Path(file).suffix.lower() in BESIDE for file in beside):
                found.notes.setdefault("folders hold no videos and are no classes", []).append(str(root / top / name))
                continue
            nothing = "nothing" if os.access(root / top / name, os.R_OK | os.X_OK) else "nothing that may be read"
            endings = ", ".join(unread(beside)) or nothing
            reason = f"{root / top / name}: an empty class (there is {endings} in it)"
            found.faults.append((top, f"{reason}; put videos into it, or remove the folder"))
        names_read = [file for (split, name), files in others.items() if split == top for file in files]
        if endings_left := unread(names_read):
            found.unread[top] = root / top, endings_left
