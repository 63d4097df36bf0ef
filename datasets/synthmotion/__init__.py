"""Synthetic motion clips, embedded: 18 motion classes, 64x64, 2 s, as encoded H.264 files; needs no download."""

import csv
from pathlib import Path

from vpbench.data import Dataset, Video, known_split
from vpbench.datasets.synthmotion.scene import CLASSES
from vpbench.errors import UsageError

HERE = Path(__file__).resolve().parent
CI_CLIPS = 60


class SynthMotion(Dataset):
    """The clips that come with the package, or a folder of the same layout (`manifest.csv` and the files it names)."""

    classes = CLASSES
    splits = ("test", "ci")
    protocol = "first"

    def videos(self, split: str) -> list[Video]:
        """List the 504 clips of `test`, or its first 60 as `ci`; raises UsageError for a missing or broken manifest."""
        known_split("synthmotion", split, self.splits)
        found = read_manifest(self.root or HERE / "clips")
        return found[:CI_CLIPS] if split == "ci" else found

    def calibration(self) -> list[Video]:
        """List clips from seeds of their own, four of each class."""
        return read_manifest(HERE / "calibration")


def read_manifest(folder: Path) -> list[Video]:
    """Read `manifest.csv`; raises UsageError naming the line that is wrong. Files are not opened here."""
    path = folder / "manifest.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [_video(folder, row, number) for number, row in enumerate(csv.DictReader(stream), start=2)]
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; --root must name a folder with manifest.csv and its clips, or, for videos of "
            "your own, add --dataset folder"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a CSV text file: {error}") from error


def _video(folder: Path, row: dict[str, str], number: int) -> Video:
    try:
        name, label = Path(row["file"]), int(row["label"])
        if name.is_absolute() or ".." in name.parts or not 0 <= label < len(CLASSES):
            raise ValueError(f"file {name} or label {label} is not allowed")
        return Video(row["clip_id"], folder / name, label)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{folder / 'manifest.csv'} line {number}: {error}; needs columns clip_id, file, label"
        ) from error
