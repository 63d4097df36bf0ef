"""Whether a video's file is the one it was: by size and time of change, and by its content where only times differ.

A copy on another computer has another time of change, but is the same video.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vpbench.data import Numbers, Video
from vpbench.data.video.folder import frame_files
from vpbench.data.video.reader import DecodeError

#: bytes that are looked at in the beginning, the middle and the end of a file
SAMPLE = 1 << 16


@dataclass(frozen=True)
class FileState:
    """A video's file at one time: bytes, time of its last change, and a digest of samples of it, None if unknown.

    Of a folder of frames the first, the middle and the last one of the part stand for all.
    """

    size: int
    changed_ns: int
    content: str | None = None

    def same(self, other: "FileState") -> bool:
        """Tell whether both are of the same content, as far as that is known."""
        content = self.content is not None and self.content == other.content
        return self.size == other.size and (self.changed_ns == other.changed_ns or content)


def state_of(video: Video, *, content: bool = False) -> FileState | None:
    """Return the state of a video's file now, with a digest of it if `content` is asked for; None if it is missing."""
    try:
        files = list(_files(video))
        stats = [file.stat() for file in files]
        digest = _digest(files) if content else None
        times = [each.st_mtime_ns for each in stats]
    except (OSError, DecodeError):
        return None
    return FileState(sum(each.st_size for each in stats), max(times), digest)


def changed(video: Video, was: FileState) -> bool:
    """Tell whether a video's file is another than it was; one that is missing now is not."""
    now = state_of(video)
    if now is None or now.same(was):
        return False
    if now.size == was.size and was.content is not None:
        now = state_of(video, content=True)
    return now is not None and not now.same(was)


def _files(video: Video) -> Iterator[Path]:
    if not video.path.is_dir():
        yield video.path
        return
    names = frame_files(video.path, video.part if isinstance(video.part, Numbers) else None)
    for place in sorted({0, len(names) // 2, len(names) - 1}):
        yield video.path / names[place]


def _digest(files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            size = file.stat().st_size
            for start in (0, (size - SAMPLE) // 2, size - SAMPLE):
                stream.seek(max(0, start))
                found.update(stream.read(SAMPLE))
    return found.hexdigest()[:32]
