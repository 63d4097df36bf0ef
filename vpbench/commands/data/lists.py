"""Lists of `path label` lines, as VideoMAE, RLT and others read them, of the videos that are there."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from vpbench.commands.data.output import filling, write_text
from vpbench.data import Dataset, Video
from vpbench.data.lists.copies import stat_all
from vpbench.data.lists.listing import NoList
from vpbench.errors import NothingMeasured, UsageError


def write_lists(name: str, dataset: Dataset, splits: Iterable[str], out: Path, absolute: bool) -> list[str]:
    """Write `<split>.csv` for each split that has a list, and say what is in it and what is missing.

    Paths are relative to the dataset's folder unless `absolute`. Raises UsageError for videos that are parts of files,
    NothingMeasured where no split has a list.
    """
    root = root_of(name, dataset)
    apart(out, root)
    lines: list[str] = []
    with filling(out) as partial:
        for split in splits:
            try:
                videos = dataset.videos(split)
            except NoList as error:
                lines.append(f"{split}: no list written ({error})")
                continue
            lines += _write(root, split, videos, out, partial, absolute)
        if name == "folder":
            write_classes(dataset, out, partial)
            lines.append(f"{out / CLASSES}: names of {len(dataset.classes)} classes, for --classes")
    if not list(out.glob("*.csv")):
        raise NothingMeasured("; ".join(lines))
    return lines


#: names of a user's own classes, in the order of their numbers
CLASSES = "classes.txt"


def write_classes(dataset: Dataset, out: Path, partial: Path) -> None:
    """Write what the numbers of a list stand for."""
    write_text(partial, out / CLASSES, "".join(f"{name}\n" for name in dataset.classes))


def root_of(name: str, dataset: Dataset) -> Path:
    """Return the folder of a dataset; raises UsageError for one that comes with the package."""
    if dataset.root is None:
        raise UsageError(f"{name}: give --root, the folder of the dataset")
    return dataset.root


def apart(out: Path, root: Path) -> None:
    """Raise UsageError if what is written would lie among the originals, and be taken for some of them."""
    if out.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{out}: lies in {root} itself; name a folder outside of it with --out")


def path_labels(entries: Iterable[tuple[Path, int]]) -> str:
    """Return the text of a list; paths with blanks are quoted, which pandas, decord's users and vpbench read."""
    text = io.StringIO()
    csv.writer(text, delimiter=" ", lineterminator="\n").writerows((str(path), label) for path, label in entries)
    return text.getvalue()


def _write(root: Path, split: str, videos: list[Video], out: Path, partial: Path, absolute: bool) -> list[str]:
    if any(video.part is not None for video in videos):
        raise UsageError(
            f"{split}: its videos are parts of files, which such a list cannot name; cut them first with "
            "`vpbench data prepare resize`, and list those"
        )
    present = stat_all({video.path for video in videos})
    found = [(_named(video.path, root, absolute), video.label) for video in videos if video.path in present]
    missing = [f"{video.path}\n" for video in videos if video.path not in present]
    write_text(partial, out / f"{split}.csv", path_labels(found))
    lines = [f"{out / f'{split}.csv'}: {len(found)} of {len(videos)} videos"]
    if missing:
        write_text(partial, out / f"{split}.missing.txt", "".join(missing))
        lines.append(f"{out / f'{split}.missing.txt'}: the other {len(missing)}")
    else:
        (out / f"{split}.missing.txt").unlink(missing_ok=True)
    return lines


def _named(path: Path, root: Path, absolute: bool) -> Path:
    if absolute:
        return path.absolute()
    return path.relative_to(root) if path.is_relative_to(root) else path.absolute()
