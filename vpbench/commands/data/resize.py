"""Smaller copies of a dataset's videos, in the same folders; parts of long videos become files of their own."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vpbench import processes
from vpbench.commands.data.encode import Recipe, encode, upright_size
from vpbench.commands.data.lists import CLASSES, apart, path_labels, root_of, write_classes
from vpbench.commands.data.output import disk_errors, filling, finish, temporary, write_text
from vpbench.data import Dataset, Video
from vpbench.data.lists.copies import stat_all
from vpbench.data.video.reader import DecodeError
from vpbench.errors import NothingMeasured, UsageError
from vpbench.progress import task

#: how the copies in a folder were made, so that no others are mixed with them
RECORD = "copies.json"
#: where parts of videos go
CLIPS = "clips"
#: annotations that the copies need besides a list, and the folders in which they may lie
BESIDES = {
    "epic100": ("EPIC_100_*.csv",),
    "ssv2": ("something-something-v2-labels.json", "labels.json"),
    "ucf101": ("classInd.txt", "testlist0?.txt", "trainlist0?.txt"),
    "hmdb51": ("*_test_split?.txt",),
    "diving48": ("Diving48_*.json",),
}
FOLDERS = (
    ".", "annotations", "epic-kitchens-100-annotations", "labels", "ucfTrainTestlist", "testTrainMulti_7030_splits",
    "UCF101TrainTestSplits-RecognitionTask", "test_train_splits", "splits", "lists",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One video to copy: to `encoded`, or, if it is as it should be already, to `kept`."""

    video: Video
    encoded: Path
    kept: Path
    partial: Path
    recipe: Recipe


@dataclass(frozen=True)
class Made:
    """What came of a job."""

    kept: bool = False
    error: str | None = None


@dataclass
class Outcome:
    """Counts of videos, and what went wrong with which."""

    expected: int = 0
    encoded: int = 0
    kept: int = 0
    already: int = 0
    missing: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def resize(name: str, dataset: Dataset, split: str, recipe: Recipe, workers: int, out: Path) -> Outcome:
    """Copy the videos of a split, and what else makes the copies a dataset of their own.

    Raises UsageError if the folder holds copies of another kind; NothingMeasured if no video is there; VpbenchError for
    a disk that is full, after which the same command goes on.
    """
    root = root_of(name, dataset)
    apart(out, root)
    videos = dataset.videos(split)
    present = stat_all({video.path for video in videos})
    outcome = Outcome(len(videos), missing=[str(video.path) for video in videos if video.path not in present])
    if not present:
        raise NothingMeasured(f"{root}: none of the {len(videos)} videos of {name} {split} is there")
    with filling(out) as partial:
        _record(out, partial, recipe)
        jobs = [Job(video, *_targets(video, root, out), partial, recipe) for video in videos]
        _check_targets(jobs)
        _annotate(name, root, split, jobs, out, partial)
        if name == "folder":
            write_classes(dataset, out, partial)
        _copy_all([job for job in jobs if job.video.path in present], workers, outcome)
    return outcome


def make(job: Job) -> Made:
    """Copy one video, in a worker; raises VpbenchError where the disk is at fault."""
    unfinished = temporary(job.partial, ".mp4")
    try:
        keeps = job.video.part is None and job.recipe.keeps(*upright_size(job.video.path))
        target = job.kept if keeps else job.encoded
        with disk_errors(target):
            if keeps:
                shutil.copyfile(job.video.path, unfinished)
            else:
                encode(job.video, unfinished, job.recipe)
            _to_disk(unfinished)
            finish(unfinished, target)
        return Made(keeps)
    except DecodeError as error:
        return Made(error=str(error))
    finally:
        unfinished.unlink(missing_ok=True)


def _copy_all(jobs: Sequence[Job], workers: int, outcome: Outcome) -> None:
    todo = [job for job in jobs if not (job.encoded.exists() or job.kept.exists())]
    outcome.already = len(jobs) - len(todo)
    with task("copying", len(todo), "videos") as progress:
        for job, made in processes.each(make, _by_file(todo), workers):
            error = made.reason if isinstance(made, processes.Lost) else made.error
            if error is not None:
                text = error.removeprefix(f"{job.video.path}: ")
                outcome.failed.append(f"{job.video.path} ({job.video.video_id}): {text}")
            elif isinstance(made, Made) and made.kept:
                outcome.kept += 1
            else:
                outcome.encoded += 1
            progress.advance()


def _by_file(jobs: Sequence[Job]) -> Iterator[Job]:
    """Yield the parts of one file one after the other: what was learnt of it is kept for a while."""
    place = {job.video.path: number for number, job in reversed(list(enumerate(jobs)))}
    yield from sorted(jobs, key=lambda job: place[job.video.path])


def _targets(video: Video, root: Path, out: Path) -> tuple[Path, Path]:
    """Return where the copy goes, as MP4 and with the ending of the original."""
    if ".." in Path(video.video_id).parts or Path(video.video_id).is_absolute():
        raise UsageError(f"{video.video_id!r}: an id that is no file name; the list of this dataset cannot be copied")
    if video.part is not None:
        place = out / CLIPS / f"{video.video_id}.mp4"
        return place, place
    inside = video.path.is_relative_to(root) and ".." not in video.path.relative_to(root).parts
    kept = out / (video.path.relative_to(root) if inside else Path(video.path.parent.name) / video.path.name)
    return kept.with_suffix(".mp4"), kept


def _check_targets(jobs: Sequence[Job]) -> None:
    """Raise UsageError if one copy would take the place of another."""
    owners: dict[Path, Path] = {}
    for job in jobs:
        if job.video.path.is_dir():
            raise UsageError(f"{job.video.path}: a folder of frames, of which no copies are made; it is read as it is")
        first = owners.setdefault(job.encoded, job.video.path)
        if first != job.video.path:
            raise UsageError(
                f"{first} and {job.video.path} would have the same copy, {job.encoded}; remove one of them"
            )


def _record(out: Path, partial: Path, recipe: Recipe) -> None:
    """Note how copies are made; raises UsageError if those that are there were made in another way."""
    path, text = out / RECORD, json.dumps(asdict(recipe)) + "\n"
    if not path.is_file():
        write_text(partial, path, text)
    elif (found := path.read_text(encoding="utf-8", errors="replace")) != text:
        raise UsageError(f"{out}: holds copies made as {found.strip()[:200]}; name another folder with --out")


def _annotate(name: str, root: Path, split: str, jobs: Sequence[Job], out: Path, partial: Path) -> None:
    """Put the annotations beside the copies: official tables of parts of videos, else a list with all copies."""
    for folder in FOLDERS:
        for pattern in BESIDES.get(name, ()):
            for path in sorted((root / folder).glob(pattern)):
                write_text(partial, out / folder / path.name, path.read_text(encoding="utf-8"))
    if name not in BESIDES or all(job.video.part is None for job in jobs):
        entries = ((job.encoded.relative_to(out), job.video.label) for job in jobs)
        write_text(partial, out / f"{split}.csv", path_labels(entries))


def _to_disk(path: Path) -> None:
    """Make sure that a file is on the disk before its name says that it is done."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def lines(name: str, outcome: Outcome, split: str, out: Path, shown: int) -> Iterator[str]:
    """Yield what came of it, and what comes next."""
    yield (
        f"{outcome.expected} videos: {outcome.encoded} encoded, {outcome.kept} copied as they are, "
        f"{outcome.already} were there, {len(outcome.failed)} failed, {len(outcome.missing)} missing"
    )
    for kind, found in (("failed", outcome.failed), ("missing", outcome.missing)):
        for line in found[:shown]:
            yield f"{kind}: {line}"
        if len(found) > shown:
            yield f"{kind}: and {len(found) - shown} more"
    own = f" --list {out / split}.csv --classes {out / CLASSES}" if name == "folder" else f" --split {split}"
    yield f"next: vpbench data check {name} --root {out}{own}"
