"""Datasets by name: the class that lists the videos of each. Imports no torch."""

from pathlib import Path

from vpbench import registry
from vpbench.data import Dataset, Given
from vpbench.data.boxes import DetectionDataset
from vpbench.errors import UsageError


def load_dataset(name: str) -> type[Dataset]:
    """Import the class of one dataset of labelled clips; raises UsageError for one of boxes."""
    found = load_any_dataset(name)
    if not issubclass(found, Dataset):
        raise UsageError(f"dataset {name!r} has boxes, not one label per video; use a backbone that detects objects")
    return found


def load_detection_dataset(name: str) -> type[DetectionDataset]:
    """Import the class of one dataset of frames with boxes; raises UsageError for one of labelled clips."""
    found = load_any_dataset(name)
    if not issubclass(found, DetectionDataset):
        raise UsageError(f"dataset {name!r} has one label per video, no boxes; use a backbone that classifies clips")
    return found


def opened(name: str, root: Path | None, given: Given) -> Dataset | DetectionDataset:
    """Open a copy of a dataset of either kind; raises UsageError for what was said of it in vain."""
    found = load_any_dataset(name)
    if issubclass(found, Dataset):
        return found.opened(root, given)
    if given.list is not None or given.classes is not None:
        raise UsageError(f"{name} has boxes, and lists of its own; leave --list and --classes out")
    return found(root)


def load_any_dataset(name: str) -> type[Dataset | DetectionDataset]:
    """Import the class of one dataset of either kind."""
    return registry.load("datasets", name, (Dataset, DetectionDataset))
