"""Read weight files that nobody vouches for: tensors come out, code never runs."""

import argparse
import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vpbench.backbones.checkpoints import arrays
from vpbench.backbones.checkpoints.classes import class_names
from vpbench.errors import UsageError

# Where published files keep their tensors; `model` goes first where a file has several.
WRAPPERS = ("model", "module", "model_state", "state_dict")


@dataclass(frozen=True)
class Contents:
    """What a weight file holds: its tensors by name, the key they were under ("" for none), and what else there is.

    `settings`: the text of the training run's settings, "" for none. `classes`: what the outputs are called, in their
    order; empty where the file does not say.
    """

    container: str
    wrapper: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...]
    metadata: Mapping[str, str]
    settings: str = ""
    classes: tuple[str, ...] = ()


def read(file: Path) -> Contents:
    """Read a safetensors file, a torch checkpoint (weights only) or a pickle of NumPy arrays.

    Raises UsageError in one line for files that are missing, cut, hold no tensors, want code to be run, or hold
    tensors without numbers of their own in the file.
    """
    with _opened(file) as stream:
        head = stream.read(16)
    if not head:
        raise UsageError(f"weights {file}: the file is empty")
    if head[8:9] == b"{":
        contents = _read_safetensors(file)
    elif head[:1] == b"\x80" and not head.startswith(arrays.TORCH):
        contents = _unwrap(file, _read_arrays(file), "pickle of arrays")
    elif head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        container = "torch zip" if head[:2] == b"PK" else "torch pickle (before 1.6)"
        contents = _unwrap(file, _read_torch(file), container)
    else:
        raise UsageError(f"weights {file}: neither a safetensors file nor a torch checkpoint, or cut short")
    _refuse_odd_names(file, (*contents.tensors, *contents.others))
    _refuse_hollow_tensors(file, contents.tensors)
    return contents


def digest(file: Path) -> str:
    """SHA-256 of a file; raises UsageError if it cannot be read."""
    with _opened(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    try:
        if file.exists() and not file.is_file() and not file.is_dir():  # a pipe or a device might never end
            raise UsageError(f"weights {file}: not a regular file")
        with file.open("rb") as stream:
            yield stream
    except OSError as error:
        raise UsageError(f"weights {file}: {error.strerror or error}") from error


def _refuse_odd_names(file: Path, names: Iterable[str]) -> None:
    """Names are shown to the user, in messages of one line."""
    for name in names:
        if not name.isprintable() or len(name) > 200:
            raise UsageError(f"weights {file}: {name[:40]!r} is no name of a tensor")


def _refuse_hollow_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not plain arrays, or that claim more numbers than the file holds for them."""
    for name, tensor in tensors.items():
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or tensor.is_nested:
            raise UsageError(f"weights {file}: tensor {name!r} is sparse, quantized or empty of data; save it dense")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UsageError(f"weights {file}: tensor {name!r} claims {tensor.numel()} numbers, more than are there")


def _read_safetensors(file: Path) -> Contents:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
        tensors = load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"weights {file}: not a readable safetensors file ({_line(error)})") from error
    return Contents("safetensors", "", tensors, (), metadata, classes=class_names(metadata))


def _read_arrays(file: Path) -> Any:
    try:
        with _opened(file) as stream:
            return arrays.read(stream)
    except arrays.ForeignNameError as error:
        raise _refused(file, f"code ({error})") from error
    except Exception as error:  # a damaged pickle can raise anything; none of it is our own code
        raise UsageError(f"weights {file}: not a readable pickle of arrays, or cut short ({_line(error)})") from error


def _refused(file: Path, holds: str) -> UsageError:
    return UsageError(
        f"weights {file}: refused, it holds {holds}; where you trust it, save its state dict as safetensors"
    )


def _read_torch(file: Path) -> Any:
    try:
        # Training arguments are kept as a Namespace in many files: a bag of attributes without behaviour. NumPy's
        # scalars stay forbidden: a forged dtype turns the bytes of one into a pointer and crashes the interpreter.
        # torch warns about a pickle's protocol, which says nothing to the user and would precede our one line.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything; none of it is our own code
        if "Weights only load failed" in str(error):
            wanted = re.search(r"GLOBAL (\S+)", str(error))
            holds = f"code ({wanted[1]})" if wanted else "more than tensors"
            raise _refused(file, holds) from error
        raise UsageError(f"weights {file}: not a readable torch checkpoint, or cut short ({_line(error)})") from error


def _unwrap(file: Path, tree: Any, container: str) -> Contents:
    if not isinstance(tree, Mapping):
        raise UsageError(f"weights {file}: holds a {type(tree).__name__}, not a state dict")
    wrapper = next((key for key in WRAPPERS if _tensors(tree.get(key))), "")
    state = tree[wrapper] if wrapper else tree
    tensors = _tensors(state)
    if not tensors:
        raise UsageError(f"weights {file}: no tensors at the top or under {', '.join(WRAPPERS)}")
    others = [str(key) for key in (tree if wrapper else ()) if key != wrapper]
    others += [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    return Contents(container, wrapper, tensors, tuple(others), {}, _settings(tree), class_names(tree))


def _settings(tree: Mapping[Any, Any]) -> str:
    """Return the text of the run's settings from where SlowFast (YAML) and mmaction (Python) put it."""
    meta = tree.get("meta")
    found = (tree.get("cfg"), meta.get("config") if isinstance(meta, Mapping) else None)
    return next((text for text in found if isinstance(text, str)), "")


def _tensors(state: Any) -> dict[str, Tensor]:
    if not isinstance(state, Mapping):
        return {}
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
