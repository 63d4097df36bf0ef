"""Names are files: a method is a file in `methods/`, a dataset a file or folder in `datasets/`.

Third parties add theirs through entry points of the groups `vpbench.methods` and `vpbench.datasets`.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import pkgutil
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vpbench.errors import UsageError, VpbenchError, near_matches

if TYPE_CHECKING:
    from vpbench.api import Dataset, Method
    from vpbench.data.boxes import DetectionDataset


Kind = Literal["methods", "datasets"]
#: how the tokens of a backbone flow; see `api.SITES`
Flow = Literal["stream", "steps", "grid", "frames"]


def names(kind: Kind) -> list[str]:
    """List what can be named, sorted; imports none of it."""
    return sorted(_modules(kind))


def check(kind: Kind, name: str) -> None:
    """Raise UsageError with near matches if there is no such method or dataset; imports none of them."""
    known = _modules(kind)
    if name not in known:
        raise UsageError(f"unknown {kind.removesuffix('s')} {name!r}{near_matches(name, known)}")


def summary(kind: Kind, name: str) -> str:
    """Return the first docstring line of the file, without importing it."""
    doc = ast.get_docstring(ast.parse(source(kind, name).read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0]


def source(kind: Kind, name: str) -> Path:
    """Return the file that defines a method or dataset."""
    check(kind, name)
    spec = importlib.util.find_spec(_modules(kind)[name])
    if spec is None or spec.origin is None:
        raise VpbenchError(f"{kind}/{name}: its module {_modules(kind)[name]} cannot be found; reinstall the package")
    return Path(spec.origin)


def load_method(name: str) -> type[Method]:
    """Import one method's class."""
    from vpbench.api import Method

    found: type[Method] = _only_class("methods", name, (Method,))
    if not dataclasses.is_dataclass(found) or "reference" not in vars(found):
        raise VpbenchError(f"method {name!r} ({source('methods', name)}) must be a frozen dataclass with a `reference`")
    return found


def load_dataset(name: str) -> type[Dataset]:
    """Import the class of one dataset of labelled clips; raises UsageError for one of boxes."""
    from vpbench.api import Dataset

    found = load_any_dataset(name)
    if not issubclass(found, Dataset):
        raise UsageError(f"dataset {name!r} has boxes, not one label per video; use a backbone that detects objects")
    return found


def load_detection_dataset(name: str) -> type[DetectionDataset]:
    """Import the class of one dataset of frames with boxes; raises UsageError for one of labelled clips."""
    from vpbench.data.boxes import DetectionDataset

    found = load_any_dataset(name)
    if not issubclass(found, DetectionDataset):
        raise UsageError(f"dataset {name!r} has one label per video, no boxes; use a backbone that classifies clips")
    return found


def load_any_dataset(name: str) -> type[Dataset | DetectionDataset]:
    """Import the class of one dataset of either kind."""
    from vpbench.api import Dataset
    from vpbench.data.boxes import DetectionDataset

    found: type[Dataset | DetectionDataset] = _only_class("datasets", name, (Dataset, DetectionDataset))
    return found


def _only_class(kind: Kind, name: str, bases: tuple[type, ...]) -> Any:
    check(kind, name)
    try:
        module = importlib.import_module(_modules(kind)[name])
    except Exception as error:
        raise VpbenchError(f"{kind}/{name} does not import: {type(error).__name__}: {error}") from error
    own = [
        c
        for c in vars(module).values()
        if inspect.isclass(c) and issubclass(c, bases) and c.__module__ == module.__name__
    ]
    if len(own) != 1:
        wanted = " or ".join(base.__name__ for base in bases)
        raise VpbenchError(f"{kind}/{name} must define exactly one {wanted}, it defines {len(own)}")
    return own[0]


def _modules(kind: Kind) -> dict[str, str]:
    """Map each name to its module: the built-in files, then what installed packages offer."""
    package = importlib.import_module(f"vpbench.{kind}")
    found = {m.name: f"vpbench.{kind}.{m.name}" for m in pkgutil.iter_modules(package.__path__)}
    for point in entry_points(group=f"vpbench.{kind}"):
        if point.name in found:
            raise VpbenchError(f"two {kind} are called {point.name!r}: {found[point.name]} and {point.value}")
        found[point.name] = point.value
    return found
