"""Which video files a folder holds: looked up by the path that a list gives, or by the name without its ending."""

import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vpbench.errors import UsageError

ENDINGS = (".mp4", ".mkv", ".webm", ".avi")
#: far above the largest dataset of this kind (650,000 videos), and below what fills the memory
MAX_ENTRIES = 5_000_000
#: root/videos/train/<class>/<part>/<file> is the deepest tree in use
MAX_DEPTH = 6
_WORD = re.compile("[a-z]+")
#: folders of single frames: millions of files, none of them a video
_FRAMES = frozenset({"rawframes", "frames", "flow"})


class Place(NamedTuple):
    """Where a video is (`found`), or where it should be."""

    path: Path
    found: bool


def stem_of(name: str) -> str:
    """Return a file's name without the ending of a video; other dots belong to the name."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in ENDINGS else name


def words_of(name: str) -> set[str]:
    """Return the words in a folder's name: `videos_val`, `val_256` and `val256` all hold `val`."""
    return set(_WORD.findall(name.lower()))


def subfolders(folder: str | Path) -> list[str]:
    """List the names of the folders in a folder, sorted; hidden ones and files are left out."""
    return sorted(entry.name for entry in _entries(str(folder)) if not _is_video(entry.name) and _is_folder(entry))


def videos_in(folder: Path) -> list[Path]:
    """List the video files that lie in a folder itself, sorted; hidden ones are left out."""
    return sorted(folder / entry.name for entry in _entries(str(folder)) if _is_video(entry.name))


def first_file(root: Path, folders: Iterable[str], names: Sequence[str]) -> Path | None:
    """Find a file by any of its names, in the first of the folders under `root` that has one."""
    paths = (root / folder / name for folder in folders for name in names)
    return next((path for path in paths if path.is_file()), None)


class VideoFiles:
    """The video files under a folder. Folders named after a word of `skipped` are not looked into."""

    def __init__(self, root: Path, skipped: Container[str] = ()) -> None:
        self.root = root
        self._skipped = skipped
        self._names: dict[str, set[str]] = {}

    def listed(self, path: str, source: Path) -> Place:
        """Find what a list names: the path itself, from the root or from the folder of the list, else the same name.

        A list from another computer so finds its videos, and one of .mp4 files those that are .webm here.
        """
        wanted = self.root / path  # an absolute path stays as it is
        for candidate in (wanted, source.parent / path):
            if self.holds(candidate):
                return Place(candidate, True)
        return self.named(stem_of(PurePosixPath(path).name), wanted)

    def named(self, stem: str, wanted: Path) -> Place:
        """Find a video by its name without ending; where there is none, it should be `wanted`."""
        found = self._by_stem.get(stem)
        return Place(wanted, False) if found is None else Place(Path(*found), True)

    def holds(self, path: Path) -> bool:
        """Tell whether a file is there; asks the disk once per folder, not per file."""
        parent = str(path.parent)
        if parent not in self._names:
            self._names[parent] = {entry.name for entry in _entries(parent)}
        return path.name in self._names[parent]

    @cached_property
    def _by_stem(self) -> dict[str, tuple[str, str]]:
        """Folder and name of each video. Of several copies, a replacement counts, then the one nearest to the root."""
        found: dict[str, tuple[str, str]] = {}
        for folder, name in self._walk():
            stem = stem_of(name)
            rival = found.get(stem)
            if rival is None or self._rank(folder, name) < self._rank(*rival):
                found[stem] = folder, name
        return found

    def _rank(self, folder: str, name: str) -> tuple[bool, int, str, str]:
        inside = folder[len(str(self.root)) :]
        # Kinetics comes with sound copies of broken files, which are to take their places
        return "replacement" not in words_of(inside), inside.count(os.sep), folder, name

    def _walk(self) -> Iterator[tuple[str, str]]:
        """Yield folder and name of each video file; each folder is visited once, whatever links lead to it."""
        waiting, seen, count = [(str(self.root), 0)], set[tuple[int, int]](), 0
        while waiting:
            folder, depth = waiting.pop()
            if not _first_visit(folder, seen):
                continue
            for entry in _entries(folder):
                count += 1
                if _is_video(entry.name):
                    yield folder, entry.name
                elif depth < MAX_DEPTH and not self._is_skipped(entry.name) and _is_folder(entry):
                    waiting.append((entry.path, depth + 1))
            if count > MAX_ENTRIES:
                raise UsageError(f"{self.root}: more than {MAX_ENTRIES} files; name the folder of the dataset itself")

    def _is_skipped(self, name: str) -> bool:
        return any(word in self._skipped or word in _FRAMES for word in words_of(name))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds, hidden files left out; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError:
        return


def _is_video(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _first_visit(folder: str, seen: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(folder)
    except OSError:
        return False
    key = status.st_dev, status.st_ino
    if key in seen:
        return False
    seen.add(key)
    return True
