"""What lies below a folder: video files, folders of frames, and files that are neither; links are followed once."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from vpbench.errors import UsageError

#: of the containers that `video.container.FORMATS` lets through
ENDINGS = (
    ".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".qt", ".3gp", ".3g2", ".f4v", ".mk3d", ".divx",
    ".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".mpe", ".m2p", ".vob",
)  # fmt: skip
#: what lies beside videos and is taken for none: texts, tables, sound, pictures
BESIDE = frozenset({
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".md", ".rst", ".xml", ".yaml", ".yml", ".toml", ".html",
    ".pdf", ".log", ".py", ".sh", ".npy", ".npz", ".pkl", ".parquet", ".mat", ".md5", ".sha256", ".srt", ".vtt", ".ass",
    ".wav", ".mp3", ".flac", ".aac", ".m4a", ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".db", ".ini",
})  # fmt: skip
#: far above the largest dataset of this kind (650,000 videos), and below what fills the memory
MAX_ENTRIES = 5_000_000
#: root/videos/train/<class>/<part>/<file> is the deepest tree in use
MAX_DEPTH = 6
#: of a user's own folders, in which anything may be; deeper ones lead in circles
OWN_DEPTH = 32
_FRAME = re.compile(r".*\d\.(?:jpe?g|png)", re.IGNORECASE)


class Found(NamedTuple):
    """Something in a folder: a video file, a folder of numbered pictures, or what is neither."""

    folder: str
    name: str
    kind: Literal["video", "frames", "other"]

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.folder, self.name)


def stem_of(name: str) -> str:
    """Return a file's name without the ending of a video; other dots belong to the name."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in ENDINGS else name


def is_video(name: str) -> bool:
    """Tell by its ending whether a file is taken for a video."""
    return name.lower().endswith(ENDINGS)


def entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds, hidden files and results folders left out; nothing if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            yield from (entry for entry in found if not (entry.name.startswith(".") or _holds_results(entry)))
    except OSError:
        return


def _holds_results(entry: os.DirEntry[str]) -> bool:
    """Tell whether this is a results folder, as `--root .` has it: its figures are no frames, its name is no class."""
    return is_folder(entry) and os.path.isdir(os.path.join(entry.path, "results.parquet"))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a folder, or a link to one that is there."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def unread(names: Iterable[str]) -> dict[str, int]:
    """Count files that might be videos of a kind that is not read, by their endings; `none` for those without."""
    found = Counter(os.path.splitext(name)[1].lower() or "none" for name in names if not is_video(name))
    return {ending: count for ending, count in sorted(found.items()) if ending not in BESIDE}


def walk(
    root: Path, limit: int = MAX_ENTRIES, skips: Callable[[str], bool] | None = None, frames: bool = False
) -> Iterator[Found]:
    """Yield what lies below a folder, each folder visited once, whatever links lead to it.

    skips: names of folders that are not looked into. With `frames`, folders of pictures are videos; without, the
    pictures are what lies beside. Raises UsageError above `limit` files.
    """
    waiting, seen, count = [(str(root), 0)], set[tuple[int, int]](), 0
    deepest = OWN_DEPTH if frames else MAX_DEPTH
    while waiting:
        folder, depth = waiting.pop()
        if not _first_visit(folder, seen):
            continue
        own, inner = list[Found](), 0
        for entry in entries(folder):
            if is_video(entry.name) and not (frames and is_folder(entry)):
                count += 1
                yield Found(folder, entry.name, "video")
                inner += 1
            elif is_folder(entry):
                inner += 1
                if depth < deepest and (skips is None or not skips(entry.name)):
                    waiting.append((entry.path, depth + 1))
            elif frames and _FRAME.fullmatch(entry.name):
                own.append(Found(folder, entry.name, "frames"))
            else:
                count += 1
                yield Found(folder, entry.name, "other")
        if own and not inner:
            yield Found(*os.path.split(folder), "frames")
        else:
            yield from (found._replace(kind="other") for found in own)
        if count > limit:
            raise UsageError(f"{root}: more than {limit} files; name the folder of the dataset itself")


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
