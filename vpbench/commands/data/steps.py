"""`vpbench data`: the right work for the kind of dataset."""

import re
import shlex
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vpbench import registry
from vpbench.commands.data import check, check_boxes
from vpbench.commands.data.check import open_all
from vpbench.commands.data.encode import Recipe
from vpbench.commands.data.index import NAME, Index
from vpbench.commands.data.lists import write_lists
from vpbench.commands.data.output import filling
from vpbench.commands.data.probe import Probe
from vpbench.commands.data.report import SHOWN, Report
from vpbench.commands.data.resize import lines, resize
from vpbench.commands.data.unpack import unpack
from vpbench.data import Dataset, Given
from vpbench.data.boxes import DetectionDataset
from vpbench.data.lists.copies import stat_all
from vpbench.data.sources import opened
from vpbench.errors import NothingMeasured, UsageError

if TYPE_CHECKING:
    from vpbench.backbones.loading import Outputs

#: a run that is killed loses no more than this
SAVED_EVERY_S = 30.0
#: of a copy of which nothing more is said than where it lies
NOTHING = Given()


@dataclass(frozen=True)
class OwnWeights:
    """Weights of the user's own (a path or a name on a hub), and the key of those meant in a file with several."""

    weights: str
    key: str | None

    def outputs(self, dataset: str) -> "Outputs":
        """Return what their outputs are for a dataset, as `run` does; raises UsageError where no backbone fits."""
        from vpbench.backbones import loading

        if not loading.is_own(self.weights):
            raise UsageError(
                f"--weights {self.weights}: these name no classes; give weights of your own, or leave it out"
            )
        backbone = loading.backbone_of(self.weights, self.key)
        found = loading.outputs(backbone, self.weights, self.key, dataset)
        assert found is not None, "only random weights have no outputs of their own"
        return found


def run_check(
    name: str,
    root: Path | None,
    split: str | None,
    decoder: str,
    workers: int,
    quick: bool,
    index: Path | None,
    given: Given = NOTHING,
    own: OwnWeights | None = None,
) -> Report:
    """Look through one split of a dataset; raises UsageError where there is nothing to look at.

    own: weights whose outputs are to be the classes; a dataset without names of its own takes theirs.
    """
    if decoder not in ("pyav", "decord"):
        raise UsageError(f"unknown decoder {decoder!r} (known: pyav, decord)")
    dataset = opened(name, root, given) if own is None else _fitting(name, root, given, own)
    split = split or _default_split(dataset)
    how = check.How(decoder, workers, quick)
    if isinstance(dataset, DetectionDataset):
        if index is not None:
            raise UsageError(f"{name} has images, and a frame index is of videos; leave --index out")
        report = check_boxes.check(name, dataset, split, how)
    else:
        report = check.check(name, dataset, split, how, _index(dataset, index))
    report.advice += _advice(report, dataset, given, own)
    return report


def _fitting(name: str, root: Path | None, given: Given, own: OwnWeights) -> Dataset:
    """Open a dataset with the names that weights give its classes; raises UsageError where they have others."""
    from vpbench.tasks.recognition.questions import questions

    registry.check("datasets", name)
    outputs = own.outputs(name)
    dataset = _labelled(name, root, replace(given, names=lambda: outputs.names))
    dataset.default_split(False)  # a folder that was not named has no classes, and says so itself
    try:
        questions(dataset, outputs.count)
    except UsageError as error:
        raise UsageError(f"weights {own.weights} on {name}: {error}") from error
    return dataset


def _index(dataset: Dataset, given: Path | None) -> Index:
    """Read the index asked for, or the one that lies in the dataset's folder."""
    if given is not None:
        return Index.read(given)
    beside = None if dataset.root is None else dataset.root / NAME
    return Index.read(beside) if beside is not None and beside.is_file() else Index()


def _advice(report: Report, dataset: Dataset | DetectionDataset, said: Given, own: OwnWeights | None) -> list[str]:
    """Say what comes next."""
    asked: dict[str, object] = {"root": dataset.root, "list": said.list, "classes": said.classes}
    backbone = " --backbone BACKBONE" if own is None else ""  # weights tell which one they fit
    if own is not None:
        asked |= {"weights": own.weights, "weights-key": own.key}
    given = "".join(f" --{name} {shlex.quote(str(value))}" for name, value in asked.items() if value is not None)
    wanted = getattr(dataset, "wanted", None)
    if report.missing and isinstance(dataset, Dataset) and dataset.missing:
        return [f"{len(report.missing)} videos are missing: {dataset.missing}"]
    if report.missing and wanted is not None:
        return [f"where to get it: {report.dataset} is {wanted}"]
    if report.exit_code == 0:
        options = f"--dataset {report.dataset}{given} --split {report.split}"
        return [f"all there; next: vpbench run --method METHOD{backbone} {options}"]
    return []


def run_unpack(name: str, archive: Path, out: Path) -> list[str]:
    """Unpack an archive and say what came of it; raises UsageError for datasets that come in no archive."""
    registry.check("datasets", name)
    if name != "imagenet_vid":
        raise UsageError(f"{name} comes in no archive that has to be unpacked; this is for imagenet_vid")
    done = unpack(archive, out)
    return [
        f"{done.written} files unpacked, {done.already} were there, {done.skipped} members are not needed",
        f"next: vpbench data check {name} --root {out}",
    ]


def run_lists(
    name: str, root: Path | None, split: str | None, out: Path, absolute: bool, given: Given = NOTHING
) -> list[str]:
    """Write lists of one split, or of all that have one, and say where to get what is missing."""
    dataset = _labelled(name, root, given)
    said = write_lists(name, dataset, dataset.splits if split is None else [split], out, absolute)
    if list(out.glob("*.missing.txt")) and (wanted := getattr(dataset, "wanted", None)) is not None:
        said.append(f"where to get it: {name} is {wanted}")
    return said


def run_index(
    name: str, root: Path | None, split: str | None, decoder: str, workers: int, out: Path, given: Given = NOTHING
) -> list[str]:
    """Add the videos of a split to `index.parquet`; those that have not changed since are not opened again.

    Raises NothingMeasured if none of them is there.
    """
    dataset = _labelled(name, root, given)
    split = split or dataset.default_split(False)
    videos = dataset.videos(split)
    stats = stat_all({video.path for video in videos})
    present = [video for video in videos if video.path in stats]
    if not present:
        raise NothingMeasured(f"{dataset.root}: none of the {len(videos)} videos of {name} {split} is there")
    target = out / NAME
    with filling(out):
        index = Index.read(target) if target.is_file() else Index()
        saving = _Saving(index, target)
        try:
            known = open_all(present, stats, check.How(decoder, workers, False), index, saving.take)
        finally:  # after Ctrl-C as well
            index.write(target)
    readable = sum(probe.error is None for probe in saving.taken)
    return [
        f"{target}: {len(present)} of {len(videos)} videos are there, {readable} readable, {known} were known",
        f"next: vpbench data check {name} --root {dataset.root} --split {split} --index {target}",
    ]


class _Saving:
    """Takes what comes, and writes it down from time to time."""

    def __init__(self, index: Index, target: Path) -> None:
        self.taken: list[Probe] = []
        self._index, self._target, self._saved = index, target, time.monotonic()

    def take(self, probes: list[Probe]) -> None:
        self.taken += probes
        self._index.add(probes)
        if time.monotonic() - self._saved > SAVED_EVERY_S:
            self._index.write(self._target)
            self._saved = time.monotonic()


def run_resize(
    name: str, root: Path | None, split: str | None, recipe: Recipe, workers: int, out: Path, given: Given = NOTHING
) -> tuple[list[str], bool]:
    """Make copies of the videos of a split; returns what came of it, and whether that is all of them."""
    dataset = _labelled(name, root, given)
    split = split or dataset.default_split(False)
    outcome = resize(name, dataset, split, recipe, workers, out)
    return list(lines(name, outcome, split, out, SHOWN)), not outcome.failed and not outcome.missing


def recipe_of(short_side: int | None, size: str | None, crf: int, key_frames: bool) -> Recipe:
    """Return how copies are made; raises UsageError for sides that are odd, absurd or two wishes at once."""
    sides: tuple[int, ...] = (320 if short_side is None else short_side,)
    if size is not None and short_side is None:
        sides = _sides(size)
    elif size is not None:
        raise UsageError("--short-side keeps the shape and --size does not; give one of them")
    if any(side % 2 or not 16 <= side <= 4096 for side in sides):
        raise UsageError(f"sides of {' and '.join(map(str, sides))} pixels: give even numbers from 16 to 4096")
    if len(sides) == 2:
        return Recipe(None, (sides[0], sides[1]), crf, key_frames)
    return Recipe(sides[0], None, crf, key_frames)


def _sides(size: str) -> tuple[int, ...]:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", size)
    if match is None:
        raise UsageError(f"--size {size!r}: give width and height, like 340x256")
    return int(match[1]), int(match[2])


def _default_split(dataset: Dataset | DetectionDataset) -> str:
    return dataset.default_split(False) if isinstance(dataset, Dataset) else dataset.splits[0]


def _labelled(name: str, root: Path | None, given: Given) -> Dataset:
    dataset = opened(name, root, given)
    if isinstance(dataset, DetectionDataset):
        raise UsageError(f"{name} has images, not videos; this is for datasets of labelled videos")
    return dataset
