"""Weights by their name on a hub of Hugging Face's kind, fetched with its own client into its own cache."""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vpbench.backbones.checkpoints.places import CARD, CONFIG, INDEX, PROCESSORS, SUFFIXES, WHOLE
from vpbench.errors import UsageError

_NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,120}))?")

#: what a hub's client raises, by name, since its classes are known only where it is installed
_SAID = {
    "GatedRepoError": "is gated: ask for access on its page, then log in (`hf auth login`, or HF_TOKEN)",
    "RevisionNotFoundError": "has no such revision",
    "RepositoryNotFoundError": "is no file here, and no model on the hub, or a private one (log in with HF_TOKEN)",
    "HFValidationError": "is no name of a model",
    **dict.fromkeys(
        ("LocalEntryNotFoundError", "IncompleteSnapshotError"),
        "is no file here, and not in the hub's cache, which is all there is offline (HF_HUB_OFFLINE)",
    ),
}


def is_name(weights: str) -> bool:
    """Whether weights that are no file here may be a name on a hub, `org/name` or `org/name@revision`."""
    return _NAME.fullmatch(weights) is not None and not weights.endswith((*SUFFIXES, INDEX, ".json", ".h5"))


def fetch(weights: str) -> Path:
    """Return the folder with a model's files, fetching those that are needed and not there yet.

    The client's environment counts: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE; it shows progress. Raises
    UsageError in one line where it is not installed, or there is no such model.
    """
    match = _NAME.fullmatch(weights)
    assert match is not None
    name, revision = match.groups()
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UsageError(
            f"weights {weights}: no such file or folder; names on a hub need huggingface_hub: pip install 'vpbench[hf]'"
        )
    import huggingface_hub as hub
    from huggingface_hub import constants

    with _explained(weights, constants.ENDPOINT):
        if constants.HF_HUB_OFFLINE:
            return Path(hub.snapshot_download(name, revision=revision, allow_patterns=[CONFIG]))
        files = [each.rfilename for each in hub.HfApi().model_info(name, revision=revision).siblings or ()]
    wanted = needed(files, weights)
    with _explained(weights, constants.ENDPOINT):
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=wanted))


def needed(files: list[str], weights: str) -> list[str]:
    """Pick the files that say what the network is out of a model's; raises UsageError where it has no weights."""
    top = [name for name in files if "/" not in name]
    beside = [name for name in (CONFIG, CARD, *PROCESSORS) if name in top]
    for whole in WHOLE:
        if whole in top:
            return [whole, *beside]
        if whole + INDEX in top:
            stem, _, suffix = whole.rpartition(".")
            return [whole + INDEX, f"{stem}-*-of-*.{suffix}", *beside]
    others = [name for name in top if name.endswith(SUFFIXES) and not name.startswith(("optimizer", "training_args"))]
    if len(others) == 1:
        return [others[0], *beside]
    said = f"several files of weights ({', '.join(others[:3])}); fetch one and name it" if others else "no weights"
    raise UsageError(f"weights {weights}: the model on the hub has {said}")


@contextmanager
def _explained(weights: str, endpoint: str) -> Iterator[None]:
    """Say in one line what a hub's client raises, and what its HTTP library does where nobody answers."""
    try:
        yield
    except Exception as error:
        unreachable = (
            f"is no file here, and {endpoint} cannot be reached ({_line(error)}); with HF_HUB_OFFLINE=1 what was "
            "fetched before is used"
        )
        said = _SAID.get(type(error).__name__, unreachable)
        raise UsageError(f"weights {weights}: {said}") from error


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
