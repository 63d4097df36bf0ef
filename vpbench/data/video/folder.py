"""Folders of frames: one picture file per frame, with the frame's number at the end of its name."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from vpbench.data import Numbers
from vpbench.data.video.container import in_place_of
from vpbench.data.video.reader import MAX_PIXELS, DecodeError, Frames, Reader, check_indices, check_size

#: of one file, far above any frame as JPEG or PNG; a file beyond it is not one
MAX_BYTES = 64_000_000
_NUMBERED = re.compile(r"(\d+)\.(?:jpe?g|png)", re.IGNORECASE)


@contextmanager
def open_folder(path: Path, part: Numbers | None) -> Iterator[Reader]:
    """Open a folder of JPEG or PNG frames such as `frame_0000000001.jpg`, `img_00001.jpg` or `00001.png`, or a part.

    Frames are in the order of the numbers their names end in. Raises DecodeError if a number comes twice or is missing,
    for then the indices of all later frames would be off.
    """
    yield _Folder(path, frame_files(path, part))


def frame_files(path: Path, part: Numbers | None) -> list[str]:
    """Return the names of the frames in a folder, or of a part of them, in order; raises DecodeError as above."""
    files = _files(path, path.stat().st_mtime_ns)
    if not files:
        raise DecodeError(f"{path}: no frames in it (pictures such as frame_0000000001.jpg)")
    first, last = (part.first, part.last) if part is not None else (min(files), max(files))
    if first > last:
        raise DecodeError(f"{path}: no frame is in the part from number {first} to {last}; check the list")
    for number in range(first, last + 1):
        if number not in files:
            there = f"{len(files)} frames, {min(files)} to {max(files)}"
            raise DecodeError(f"{path}: frame number {number} is missing ({there} are there); extract it again")
    return [files[number] for number in range(first, last + 1)]


@lru_cache(maxsize=2)  # an hour of frames is some 20 MB of names; lists name one video's parts one after another
def _files(path: Path, changed_ns: int) -> dict[int, str]:
    """Return the file names of the frames by their numbers."""
    files: dict[int, str] = {}
    for name in sorted(entry.name for entry in path.iterdir()):
        found = _NUMBERED.search(name)
        if found is None or found.end() < len(name) or name.startswith("."):
            continue
        number = int(found[1])
        if number in files:
            raise DecodeError(f"{path}: {files[number]} and {name} both are frame {number}; keep one kind of frames")
        files[number] = name
    return files


class _Folder:
    fps: float | None = None

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names

    def __len__(self) -> int:
        return len(self._names)

    def read(self, indices: Sequence[int]) -> Frames:
        check_indices(self._path, indices, len(self))
        frames: Frames | None = None
        done: dict[int, int] = {}
        for slot, index in enumerate(indices):
            if (before := done.setdefault(index, slot)) < slot and frames is not None:
                frames[slot] = frames[before]
                continue
            file = self._path / self._names[index]
            pixels = picture(file, ("JPEG", "PNG"), modes=("RGB", "L", "P", "RGBA"))
            if frames is None:
                check_size(self._path, len(indices), pixels.shape[1], pixels.shape[0])
                frames = np.empty((len(indices), *pixels.shape), np.uint8)
            if pixels.shape != frames.shape[1:]:
                raise DecodeError(f"{file}: {pixels.shape[1]}x{pixels.shape[0]} pixels, unlike the frames before")
            frames[slot] = pixels
        assert frames is not None
        return frames


def picture(path: Path, formats: tuple[str, ...], modes: Sequence[str] | None = None) -> Frames:
    """Decode one file of unknown origin, `[H, W, 3]`; raises DecodeError if it is none of `formats` or `modes`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DecodeError(f"{path}: {path.stat().st_size / 1e6:.0f} MB, larger than any frame")
        # from memory: Pillow leaves the file open where decoding fails
        with Image.open(io.BytesIO(path.read_bytes()), formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DecodeError(f"{path}: {image.width}x{image.height} pixels, more than any frame has")
            if modes is not None and image.mode not in modes:
                raise DecodeError(f"{path}: pixels of kind {image.mode}; make 8-bit RGB files of them")
            return np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise DecodeError(f"{path}: is missing") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        said = in_place_of(path) or f"not a readable {' or '.join(formats)} file ({error})"
        raise DecodeError(f"{path}: {said}") from error
