"""Which task a request is about: the kind of its dataset decides, and the backbone has to be of that kind."""

from vpbench import registry
from vpbench.api import Dataset
from vpbench.backbones.loading import preparation
from vpbench.data.protocols import catalog
from vpbench.data.sources import load_any_dataset
from vpbench.errors import UsageError, VpbenchError
from vpbench.plan import Options
from vpbench.tasks.detection import Detection
from vpbench.tasks.recognition import Recognition
from vpbench.tasks.recognition.session import open_dataset
from vpbench.tasks.task import Task


def task_of(dataset: str, backbone: str) -> type[Task]:
    """Return how cells on a dataset are measured; raises UsageError, with names that fit, for the wrong backbone."""
    labelled = issubclass(load_any_dataset(dataset), Dataset)
    detects = registry.backbone(backbone).task == "detection"
    if labelled and detects:
        raise UsageError(
            f"{backbone} finds objects, and {dataset} has one label per video, no boxes; use --dataset "
            f"{_datasets(labelled=False)}, or a backbone that classifies clips ({_backbones(detects=False)})"
        )
    if not labelled and not detects:
        raise UsageError(
            f"{backbone} classifies clips, and {dataset} has boxes, not one label per video; use --backbone "
            f"{_backbones(detects=True)}, or a dataset of labelled clips ({_datasets(labelled=True)})"
        )
    return Recognition if labelled else Detection


def task_named(name: str) -> type[Task]:
    """Return a task by the name that rows have."""
    return {kind.name: kind for kind in (Recognition, Detection)}[name]


def split_of(asked: Options) -> str:
    """Return the split that is meant: the one asked for, or the dataset's first."""
    kind = load_any_dataset(asked.dataset)
    if asked.split is None and issubclass(kind, Dataset) and not kind.splits:  # the copy at hand has its own
        return open_dataset(asked).default_split(bool(asked.keep))
    return asked.split or kind.splits[0]


def protocol_of(asked: Options) -> str:
    """Return the protocol that is meant: the one asked for, the dataset's, or the backbone's; none for detectors.

    Raises UsageError where one is asked for that does not exist, or where there are no views to cut.
    """
    dataset, entry = load_any_dataset(asked.dataset), registry.backbone(asked.backbone)
    if not issubclass(dataset, Dataset):
        if asked.protocol is not None:
            raise UsageError(f"--protocol is about views of videos; on {asked.dataset} all frames are seen whole")
        return ""
    stated = preparation(asked.backbone, asked.weights)
    default = catalog.default(dataset.protocol, entry.protocol, stated)
    return default if asked.protocol is None else catalog.find(asked.protocol, asked.seed, default, stated).name


def _backbones(detects: bool) -> str:
    return ", ".join(name for name, entry in registry.backbones().items() if (entry.task == "detection") == detects)


def _datasets(labelled: bool) -> str:
    found = []
    for name in registry.names("datasets"):
        try:
            kind = load_any_dataset(name)
        except VpbenchError:
            continue  # a broken plug-in is no advice
        found += [name] if issubclass(kind, Dataset) == labelled else []
    return " or ".join(found)
