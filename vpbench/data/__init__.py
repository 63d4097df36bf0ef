"""Videos as data: what an annotation names, the clips cut from it, and the datasets that list it. Imports no torch."""

import abc
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from vpbench.errors import UsageError, near_matches

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Seconds:
    """A part of a video file: the frames shown in `[start, stop)`, in seconds."""

    start: float
    stop: float


@dataclass(frozen=True)
class Numbers:
    """A part of a folder of frames: those whose file names end in `first` to `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True)
class Video:
    """What one line of an annotation file names: a video file, a folder of frames, or a part of either.

    `path` is where it has to be, whether it is there or not. `noun`: the second label of datasets that have two.
    """

    video_id: str
    path: Path
    label: int
    part: Seconds | Numbers | None = None
    noun: int | None = None


@dataclass(frozen=True)
class Clip:
    """Frames of one view of one video: `pixels` `[T, H, W, 3]`, RGB, uint8 or float32 (both from 0 to 255)."""

    clip_id: str
    video_id: str
    view: int
    label: int
    pixels: "np.ndarray"


@dataclass(frozen=True)
class Given:
    """What is said of a copy of videos beside where it lies.

    `list` and `classes`: files that list its videos and name its classes. `names`: returns what the outputs of the
    weights are called, in their order, empty where they do not say; asked where a dataset has no names of its own.
    `split`: the one that will be evaluated, where it is known.
    """

    list: Path | None = None
    classes: Path | None = None
    names: Callable[[], Sequence[str]] = tuple
    split: str | None = None


class Dataset(abc.ABC):
    """Labelled videos: their lists, labels and files. One class named `Source` per file in `datasets/`.

    How clips are cut from them is a protocol's business; see `vpbench.data.protocols`.
    """

    classes: tuple[str, ...]
    #: names of the second labels, where videos have two (EPIC-Kitchens: verbs are the classes)
    nouns: tuple[str, ...] = ()
    #: the first one is meant where none is asked for
    splits: tuple[str, ...]
    #: protocol for all backbones; None where each backbone's own one is meant
    protocol: ClassVar[str | None] = None
    #: what to do about weights of other classes
    remedy: str = "give weights that were trained on it"
    #: what to do about videos that are not there; empty where they are to be fetched
    missing: ClassVar[str] = ""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    @abc.abstractmethod
    def videos(self, split: str) -> list[Video]:
        """List the videos of a split in their fixed order, missing files included; no id comes twice.

        Raises UsageError if lists are missing or wrong.
        """

    @abc.abstractmethod
    def calibration(self) -> list[Video]:
        """List videos that are in no evaluated split, from which thresholds are derived without their labels."""

    @classmethod
    def opened(cls, root: Path | None, given: "Given") -> Self:
        """Open a copy with all that was said of it; raises UsageError for what this dataset has no use for."""
        unused = [
            f"--{name}" for name, value in (("list", given.list), ("classes", given.classes)) if value is not None
        ]
        if unused:
            raise UsageError(f"{' and '.join(unused)}: for videos of your own (--dataset folder); leave it out")
        return cls(root)

    def default_split(self, calibrated: bool) -> str:
        """Return the split that is meant where none is asked for; `calibrated`: some videos are to be calibrated on."""
        return self.splits[0]

    def contradictions(self, split: str) -> list[str]:
        """Say where lists and files contradict each other (labels, ids or files that come twice), a line each."""
        return []

    def remarks(self, split: str) -> list[str]:
        """Say what is remarkable, though no contradiction, a line each."""
        return []

    def problems(self, split: str) -> dict[str, int]:
        """Count what `contradictions` says, by kind, in words that follow a number; empty where all is well."""
        count = len(self.contradictions(split))
        return {"contradictory": count} if count else {}


def known_split(dataset: str, split: str, known: Sequence[str]) -> None:
    """Raise UsageError with near matches for a split that a dataset does not have."""
    if split not in known:
        raise UsageError(f"{dataset} has no split {split!r}{near_matches(split, known)}")


def manifest_digest(videos: Iterable[Video]) -> str:
    """SHA-256 over ids, labels and parts in order: two runs with the same digest saw the same list."""
    lines = "".join(f"{v.video_id}\t{v.label}\t{v.noun}\t{v.part}\n" for v in videos)
    return hashlib.sha256(lines.encode()).hexdigest()
