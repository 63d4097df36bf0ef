"""`vpbench data`: the right work for the kind of dataset."""

from __future__ import annotations

from pathlib import Path

from vpbench import registry
from vpbench.data import Dataset
from vpbench.errors import UsageError
from vpbench.prepare import check, check_boxes
from vpbench.prepare.index import NAME, Index
from vpbench.prepare.report import Report
from vpbench.prepare.unpack import unpack
from vpbench.tasks.frames import DetectionDataset


def run_check(
    name: str, root: Path | None, split: str | None, decoder: str, workers: int, quick: bool, index: Path | None
) -> Report:
    """Look through one split of a dataset; raises UsageError where there is nothing to look at."""
    if decoder not in ("pyav", "decord"):
        raise UsageError(f"unknown decoder {decoder!r} (known: pyav, decord)")
    dataset = registry.load_any_dataset(name)(root)
    split = split or default_split(dataset)
    how = check.How(decoder, workers, quick)
    if isinstance(dataset, DetectionDataset):
        if index is not None:
            raise UsageError(f"{name} has images, and a frame index is of videos; leave --index out")
        report = check_boxes.check(name, dataset, split, how)
    else:
        report = check.check(name, dataset, split, how, _index(dataset, index))
    report.advice += _advice(report, dataset)
    return report


def default_split(dataset: Dataset | DetectionDataset) -> str:
    """Return the split that is evaluated unless another is named."""
    return "test" if "test" in dataset.splits else dataset.splits[0]


def _index(dataset: Dataset, given: Path | None) -> Index:
    """Read the index asked for, or the one that lies in the dataset's folder."""
    if given is not None:
        return Index.read(given)
    beside = None if dataset.root is None else dataset.root / NAME
    return Index.read(beside) if beside is not None and beside.is_file() else Index()


def _advice(report: Report, dataset: Dataset | DetectionDataset) -> list[str]:
    """Say what comes next."""
    given = "" if dataset.root is None else f" --root {dataset.root}"
    wanted = getattr(dataset, "wanted", None)
    if report.missing and wanted is not None:
        return [f"where to get it: {report.dataset} is {wanted}"]
    if report.exit_code == 0:
        options = f"--dataset {report.dataset}{given} --split {report.split}"
        return [f"all there; next: vpbench run --method METHOD --backbone BACKBONE {options}"]
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
