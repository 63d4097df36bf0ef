"""Read weight files that nobody vouches for: tensors come out, code never runs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vpbench.backbones.checkpoints import pickles, places, wrappers
from vpbench.backbones.checkpoints.classes import class_names
from vpbench.backbones.checkpoints.pickles import Pickled, Thing
from vpbench.errors import UsageError, not_fetched

#: what else may stand where a model was expected, by its first bytes, and what to do about it
_NO_WEIGHTS = (
    (b"\x1f\x8b", "compressed (gzip); unpack it first"),
    (b"\x89HDF", "an HDF5 file of another framework; save the weights from PyTorch"),
)

#: how often an average was taken, which torch's and mmengine's keep among its tensors
_COUNTERS = ("n_averaged", "steps")


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds: its tensors by name, the key they were under ("" for none), and what else there is."""

    container: str
    wrapper: str
    tensors: dict[str, Tensor]
    #: names of what is beside the tensors
    others: tuple[str, ...]
    metadata: Mapping[str, str]
    #: the text of the training run's settings, "" for none
    settings: str = ""
    #: other keys under which there are weights, and why this one of them was taken
    keys: tuple[str, ...] = ()
    why: str = ""
    #: what `config.json` and a processor's settings beside it state, and the licence of its model card
    config: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    #: what the outputs are called, in their order; empty where nothing says
    classes: tuple[str, ...] = ()
    #: what wrapped the modules
    around: str = ""


def read(path: Path, key: str | None = None, numbers: bool = True) -> Contents:
    """Read a checkpoint: a file, a folder or an index of shards; `key`: where in the file its weights are.

    Without `numbers` only what lies beside the tensors is read, which is soon done. Raises UsageError in one line for
    what is missing, cut, holds no tensors, names what runs commands, or holds tensors without numbers of their own.
    """
    place = places.find(path)
    parts = [_read(file, key, numbers) for file in place.files[: None if numbers else 1]]
    first, tensors = parts[0], dict(parts[0].tensors)
    if place.index is not None and numbers:
        tensors = _joined(place, parts)
    _refuse_odd_names(place.said, (*tensors, *first.others))
    _refuse_hollow_tensors(place.said, tensors)
    config = {} if place.config is None else places.read_json(place.config)
    processor = {} if place.processor is None else places.read_json(place.processor)
    nested = processor.get("video_processor")
    container = first.container if place.index is None else f"{len(place.files)} shards, {first.container}"
    return Contents(
        **vars(first)
        | {"tensors": tensors, "container": container, "config": config, "licence": places.licence(place)}
        | {"classes": class_names(config) or first.classes}
        | {"processor": nested if isinstance(nested, Mapping) else processor}
    )


def _joined(place: places.Place, parts: Iterable[Contents]) -> dict[str, Tensor]:
    """Put together the shards of an index; raises UsageError for tensors that are not where it says."""
    held = {file.name: part.tensors for file, part in zip(place.files, parts, strict=True)}
    missing = [name for name, file in place.shards.items() if name not in held[file]]
    if missing:
        raise UsageError(
            f"{place.said}: {len(missing)} tensors are not in the shards of the index ({missing[0][:80]!r})"
        )
    return {name: held[file][name] for name, file in place.shards.items()}


def _read(file: Path, key: str | None, numbers: bool) -> Contents:
    pickled = _pickled(file)
    if pickled is not None:
        return _unwrap(f"weights {file}", pickled, key, numbers)
    if key is not None:
        raise UsageError(f"weights {file}: safetensors hold one set of weights; leave --weights-key out")
    return _read_safetensors(file, numbers)


def _pickled(file: Path) -> Pickled | None:
    """Read the tree of a pickle, None for safetensors; raises UsageError for files of other kinds."""
    with places.opened(file) as stream:
        head = stream.read(64)
    if head[8:9] == b"{":
        return None
    zipped = head[:4] == b"PK\x03\x04"
    if not zipped and head[:1] != b"\x80":
        known = not_fetched(head) or next((said for mark, said in _NO_WEIGHTS if head.startswith(mark)), "")
        said = known or "neither a safetensors file nor a torch checkpoint, or cut short"
        raise UsageError(f"weights {file}: {said}")
    try:
        if zipped:
            return pickles.read_zip(file)
        with places.opened(file) as stream:
            return pickles.read(stream)
    except pickles.ForeignNameError as error:
        raise UsageError(
            f"weights {file}: refused, it holds code ({error}); where you trust it, save its state dict as safetensors"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything; none of it is our own code
        kind = "torch checkpoint" if zipped else "pickle of arrays or torch checkpoint"
        raise UsageError(f"weights {file}: not a readable {kind}, or cut short ({_line(error)})") from error


def _refuse_odd_names(where: str, names: Iterable[str]) -> None:
    """Names are shown to the user, in messages of one line."""
    for name in names:
        if not name.isprintable() or len(name) > 200:
            raise UsageError(f"{where}: {name[:40]!r} is no name of a tensor")


def _refuse_hollow_tensors(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that claim more numbers than the file holds for them."""
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UsageError(f"{where}: tensor {name!r} claims {tensor.numel()} numbers, more than are there")


def _read_safetensors(file: Path, numbers: bool) -> Contents:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
        tensors = load_file(file) if numbers else {}
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"weights {file}: not a readable safetensors file ({_line(error)})") from error
    return Contents("safetensors", "", tensors, (), metadata, classes=class_names(metadata))


def _unwrap(where: str, pickled: Pickled, key: str | None, numbers: bool) -> Contents:
    found = wrappers.choose(pickled, key, where)
    tensors, beside = {}, []
    for name, value in found.state.items() if numbers else ():
        tensor = _tensor(pickled, value, str(name), where)
        if tensor is None:
            beside.append(str(name))
        else:
            tensors[str(name)] = tensor
    counters = [name for name in tensors if name.rpartition(".")[2] in _COUNTERS and not tensors[name].ndim]
    tensors, beside = {k: v for k, v in tensors.items() if k not in counters}, [*beside, *counters]
    if numbers and not tensors:
        raise UsageError(f"{where}: no tensors of plain numbers at the top or under {found.key or 'a key'}")
    if tensors and not any(tensor.numel() for tensor in tensors.values()):
        raise UsageError(f"{where}: its tensors are empty, as DeepSpeed's ZeRO-3 leaves them; run its zero_to_fp32.py")
    top = found.key.partition(".")[0]
    others = [str(each) for each in (pickled.tree if found.key else ()) if str(each) != top] + beside
    settings, classes = _settings(pickled.tree), class_names(pickled.tree)
    return Contents(
        pickled.container, found.key, tensors, tuple(others), {}, settings, found.others, found.why, classes=classes
    )


def _tensor(pickled: Pickled, value: Any, name: str, where: str) -> Tensor | None:
    if not isinstance(value, Thing):
        return None
    try:
        return pickled.tensor(value)
    except pickles.OddTensorError as error:
        raise UsageError(f"{where}: tensor {name[:200]!r} {error}") from error
    except Exception as error:  # made of what a damaged pickle says
        raise UsageError(f"{where}: tensor {name[:200]!r} cannot be read ({_line(error)})") from error


def _settings(tree: Mapping[Any, Any]) -> str:
    """Return the text of the run's settings from where SlowFast (YAML) and mmaction (Python) put it."""
    meta = tree.get("meta")
    found = [tree.get("cfg"), *(meta.get(key) for key in ("config", "cfg") if isinstance(meta, Mapping))]
    return next((text for text in found if isinstance(text, str)), "")


def _line(error: Exception) -> str:
    return re.sub(r"\s+", " ", (str(error).strip().splitlines() or [type(error).__name__])[0])[:120]
