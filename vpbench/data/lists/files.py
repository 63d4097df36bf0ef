"""Which video files a folder holds: looked up by the path that a list gives, or by the name without its ending."""

import os
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from vpbench.data.lists import tree
from vpbench.data.lists.paths import is_absolute, loose, parts_of, same
from vpbench.data.lists.tree import MAX_ENTRIES, entries, is_folder, is_video, stem_of, walk

_WORD = re.compile("[a-z]+")
#: folders of single frames: millions of files, none of them a video
_FRAMES = frozenset({"rawframes", "frames", "flow"})
#: words of folders that say nothing of the video in them
_PLAIN = frozenset(
    {"train", "training", "val", "valid", "validate", "validation", "test", "testing", "video", "videos", "clips"}
)


class Place(NamedTuple):
    """Where a video is (`found`), or where it should be."""

    path: Path
    found: bool


def words_of(name: str) -> set[str]:
    """Return the words in a folder's name: `videos_val`, `val_256` and `val256` all hold `val`."""
    return set(_WORD.findall(name.lower()))


def subfolders(folder: str | Path) -> list[str]:
    """List the names of the folders in a folder, sorted; hidden ones and files are left out."""
    return sorted(entry.name for entry in entries(str(folder)) if not is_video(entry.name) and is_folder(entry))


def videos_in(folder: Path) -> list[Path]:
    """List the video files that lie in a folder itself, sorted; hidden ones are left out."""
    return sorted(folder / entry.name for entry in entries(str(folder)) if is_video(entry.name))


def unread_in(folder: Path) -> dict[str, int]:
    """Count the files of a folder that may be videos but are not read, by their endings."""
    return tree.unread(entry.name for entry in entries(str(folder)) if not is_folder(entry))


def first_file(root: Path, folders: Iterable[str], names: Sequence[str]) -> Path | None:
    """Find a file by any of its names, in the first of the folders under `root` that has one."""
    paths = (root / folder / name for folder in folders for name in names)
    return next((path for path in paths if path.is_file()), None)


class VideoFiles:
    """The video files under a folder. Folders named after a word of `skipped` are not looked into.

    With `frames`, folders of frames count as videos; with `confined`, nothing outside of the folder is looked at.
    `notes` collects what had to be guessed, by kind, a line each.
    """

    def __init__(
        self, root: Path, skipped: Container[str] = (), *, frames: bool = False, confined: bool = False
    ) -> None:
        self.root = root
        self.notes: dict[str, list[str]] = {}
        self._skipped, self._frames, self._confined = skipped, frames, confined
        self._names: dict[str, set[str]] = {}

    def listed(self, path: str, source: Path) -> Place:
        """Find what a list names: the path itself, from the root or from the folder of the list, else the same name.

        A list from another computer so finds its videos, and one of .mp4 files those that are .webm here.
        """
        return self.find([path], source)[0]

    def find(
        self, paths: Sequence[str], source: Path, unique: Callable[[str], bool] = lambda stem: False
    ) -> list[Place]:
        """Find all that a list names; what is not there is looked for by name, among the files that no line names.

        A name alone is enough where it is `unique` in the world, or where nothing else has it and the folder that it is
        listed in is not there either: else a namesake would stand in for a missing file.
        """
        exact = [self.exact(path, source) for path in paths]
        for path, there in zip(paths, exact, strict=True):
            if "\\" in path and (there is None or "\\" not in there.name):
                self._note(r"paths are written with \, which is read as /", path)
        taken = {os.path.normpath(path) for path in exact if path is not None}
        parts = {path: parts_of(path) for path in paths} if None in exact else {}
        alike = Counter(same(stem_of(names[-1])) for names in set(parts.values()))
        found = []
        for path, there in zip(paths, exact, strict=True):
            if there is None:
                names = parts[path]
                there = self._by_name(names, taken, alike[same(stem_of(names[-1]))] > 1, unique)
                if there is None and self._confined and is_absolute(path) and not self.inside(Path(path)):
                    self._note(f"lie outside of {self.root}, where nothing is read (--root / allows it)", path)
            found.append(Place(self._wanted(path), False) if there is None else Place(there, True))
        return found

    def named(self, stem: str, wanted: Path) -> Place:
        """Find a video by its name without ending; where there is none, it should be `wanted`."""
        found = self._by_stem.get(same(stem))
        return Place(wanted, False) if found is None else Place(Path(*min(found, key=self._rank)), True)

    def holds(self, path: Path) -> bool:
        """Tell whether a file is there; asks the disk once per folder, not per file."""
        parent = str(path.parent)
        if parent not in self._names:
            self._names[parent] = {entry.name for entry in entries(parent)}
        return path.name in self._names[parent]

    def inside(self, path: Path) -> bool:
        """Tell whether a path lies in the root, as it is written or as links have it."""
        whole = Path(os.path.abspath(path))
        return whole.is_relative_to(os.path.abspath(self.root)) or whole.is_relative_to(self.root.resolve())

    def exact(self, path: str, source: Path) -> Path | None:
        """Find a path as it is written, from the root or from the folder of the list, or else with \\ as folders."""
        forms = [path, *([os.path.join(*parts_of(path))] if "\\" in path else [])]
        for candidate in (base / form for form in forms for base in (self.root, source.parent)):
            # an absolute path stays as it is, and .. behind a link would leave the root
            own = Path(os.path.normpath(candidate)) if self._confined else candidate
            if (not self._confined or self.inside(own)) and self.holds(own):
                return own
        return None

    def _wanted(self, path: str) -> Path:
        return self.root.joinpath(*parts_of(path)) if self._confined or "\\" in path else self.root / path

    def _by_name(
        self, names: tuple[str, ...], taken: Container[str], alike: bool, unique: Callable[[str], bool]
    ) -> Path | None:
        stem = stem_of(names[-1])
        known: Sequence[tuple[str, str]] = self._by_stem.get(same(stem), ())
        if not known and not unique(stem):  # Windows tells no capitals from small letters
            known = self._by_letters.get(same(stem).casefold(), ())
        there = [each for each in known if os.path.normpath(os.path.join(*each)) not in taken]
        if not there:
            return None
        if unique(stem):
            return Path(*min(there, key=self._rank))
        shared = {each: self._shared(names, each[0]) for each in there}
        best = max(shared.values())
        nearest = [each for each in there if shared[each] == best]
        if best:  # of several copies in folders of the same name the one nearest to the root
            top = min(each[0].count(os.sep) for each in nearest)
            nearest = [each for each in nearest if each[0].count(os.sep) == top]
        listed, first = "/".join(names), self._shown(min(nearest, key=self._rank))
        if len({(each[0], stem_of(each[1])) for each in nearest}) > 1:
            self._note("could be one of several files, and count as missing", f"{listed}: {first} and others")
            return None
        if not best and (alike or self._is_here(names)):
            self._note("are missing, though a file elsewhere has the same name", f"{listed}: not {first}")
            return None
        path = Path(*min(nearest, key=self._rank))
        if same(path.name) != same(names[-1]):
            self._note("are there under another name or ending", f"{listed}: {first}")
        elif best < len(names) - 1 and best < len(path.relative_to(self.root).parts) - 1:
            self._note("are there in another folder than listed", f"{listed}: {first}")
        return path

    def _shared(self, names: tuple[str, ...], folder: str) -> int:
        """Return how many folders a listed path and one that is there have in common, from the file upwards."""
        there = Path(folder).relative_to(self.root).parts
        pairs = zip(reversed(names[:-1]), reversed(there), strict=False)
        return next((n for n, (a, b) in enumerate(pairs) if loose(a) != loose(b)), min(len(names) - 1, len(there)))

    def _is_here(self, names: tuple[str, ...]) -> bool:
        """Tell whether the folder that a video is listed in is there, unless its name says nothing."""
        parent = names[-2] if len(names) > 1 else ""
        return bool(parent) and not words_of(parent) & _PLAIN and loose(parent) in self._folders

    def _shown(self, each: tuple[str, str]) -> str:
        return Path(*each).relative_to(self.root).as_posix()

    def _note(self, kind: str, line: str) -> None:
        self.notes.setdefault(kind, []).append(line)

    @cached_property
    def _by_stem(self) -> dict[str, list[tuple[str, str]]]:
        """Folder and name of each video by the name without its ending."""
        found: dict[str, list[tuple[str, str]]] = {}
        if self.root.resolve() == Path(self.root.anchor or "/").resolve():  # a whole computer is not searched
            return found
        for each in walk(self.root, MAX_ENTRIES, self._is_skipped, self._frames):
            if each.kind != "other":
                stem = each.name if each.kind == "frames" else stem_of(each.name)
                found.setdefault(same(stem), []).append((each.folder, each.name))
        return found

    @cached_property
    def _by_letters(self) -> dict[str, list[tuple[str, str]]]:
        """The same, with all letters small."""
        found: dict[str, list[tuple[str, str]]] = {}
        for stem, places in self._by_stem.items():
            found.setdefault(stem.casefold(), []).extend(places)
        return found

    @cached_property
    def _folders(self) -> set[str]:
        every = {folder for places in self._by_stem.values() for folder, _ in places}
        return {loose(part) for folder in every for part in Path(folder).relative_to(self.root).parts}

    def _rank(self, place: tuple[str, str]) -> tuple[bool, int, str, str]:
        """Of several copies, a replacement counts, then the one nearest to the root."""
        folder, name = place
        inside = folder[len(str(self.root)) :]
        # Kinetics comes with sound copies of broken files, which are to take their places
        return "replacement" not in words_of(inside), inside.count(os.sep), folder, name

    def _is_skipped(self, name: str) -> bool:
        return any(word in self._skipped or (word in _FRAMES and not self._frames) for word in words_of(name))
