"""Datasets by name: the class that lists the videos of each. Imports no torch."""

from vpbench import registry
from vpbench.data import Dataset
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


def load_any_dataset(name: str) -> type[Dataset | DetectionDataset]:
    """Import the class of one dataset of either kind."""
    return registry.load("datasets", name, (Dataset, DetectionDataset))
