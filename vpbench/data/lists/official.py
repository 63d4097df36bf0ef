"""What datasets with official lists share: JSON files of a known shape, and lists of paths without labels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from vpbench.data import Video
from vpbench.data.lists.files import VideoFiles
from vpbench.data.lists.listing import Listing
from vpbench.data.lists.paths import parts_of
from vpbench.data.lists.text import read_text
from vpbench.data.lists.tree import stem_of
from vpbench.errors import UsageError

T = TypeVar("T")


class Entry(NamedTuple):
    """A video of an official list: where it says so, its path, and its class."""

    where: str
    path: str
    label: int


def read_json(path: Path, shape: TypeAdapter[T]) -> T:
    """Read a JSON file of a known shape; raises UsageError that names the first place where it has another."""
    try:
        return shape.validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:60]
        raise UsageError(f"{path}: {where!r}: {first['msg']}; give the official file") from error


def official_videos(
    root: Path, source: Path, entries: Sequence[Entry], unique: Callable[[str], bool] = lambda stem: True
) -> Listing:
    """Find the videos of an official list by path or name, or else as folders of frames, where no file is there."""
    paths = [entry.path for entry in entries]
    files = VideoFiles(root)
    places = files.find(paths, source, unique)
    if not any(place.found for place in places):
        files = VideoFiles(root, frames=True)
        places = files.find(paths, source, unique)
    listing = Listing(notes=files.notes)
    for entry, place in zip(entries, places, strict=True):
        listing.add(Video(stem_of(parts_of(entry.path)[-1]), place.path, entry.label), place.found, entry.where)
    return listing


def numbered_splits(kinds: Sequence[str], count: int) -> tuple[str, ...]:
    """Return names of splits: `test1`, `test2`, ..., `train1`, ..."""
    return tuple(f"{kind}{number}" for kind in kinds for number in range(1, count + 1))
