"""Read weight files that nobody vouches for: tensors come out, code never runs."""

from __future__ import annotations

import argparse
import hashlib
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from vpbench.errors import UsageError

# Where published files keep their tensors; `model` goes first where a file has several.
WRAPPERS = ("model", "module", "state_dict")


@dataclass(frozen=True)
class Contents:
    """What a weight file holds: its tensors by name, the key they were under ("" for none), and what else there is."""

    container: str
    wrapper: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...]
    metadata: Mapping[str, str]


def read(file: Path) -> Contents:
    """Read a safetensors file or a torch checkpoint (weights only).

    Raises UsageError in one line for files that are missing, cut, hold no tensors, or want code to be run.
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise UsageError(f"weights {file}: {error.strerror}") from error
    if not head:
        raise UsageError(f"weights {file}: the file is empty")
    if head[8:9] == b"{":
        return _read_safetensors(file)
    if zipfile.is_zipfile(file) or head[:1] == b"\x80":
        return _unwrap(file, _read_torch(file), "torch zip" if head[:2] == b"PK" else "torch pickle (before 1.6)")
    raise UsageError(f"weights {file}: neither a safetensors file nor a torch checkpoint, or cut short")


def digest(file: Path) -> str:
    """SHA-256 of a file; raises UsageError if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"weights {file}: {error.strerror}") from error


def _read_safetensors(file: Path) -> Contents:
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
        tensors = load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise UsageError(f"weights {file}: not a readable safetensors file ({_line(error)})") from error
    return Contents("safetensors", "", tensors, (), metadata)


def _read_torch(file: Path) -> Any:
    try:
        # training arguments are kept as a Namespace in many files: a bag of attributes without behaviour
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything; none of it is our own code
        if "Weights only load failed" in str(error):
            wanted = re.search(r"GLOBAL (\S+)", str(error))
            holds = f"code ({wanted[1]})" if wanted else "more than tensors"
            raise UsageError(
                f"weights {file}: refused, it holds {holds}; where you trust it, save its state dict as safetensors"
            ) from error
        raise UsageError(f"weights {file}: not a readable torch checkpoint, or cut short ({_line(error)})") from error


def _unwrap(file: Path, tree: Any, container: str) -> Contents:
    if not isinstance(tree, Mapping):
        raise UsageError(f"weights {file}: holds a {type(tree).__name__}, not a state dict")
    wrapper = next((key for key in WRAPPERS if isinstance(tree.get(key), Mapping)), "")
    state = tree[wrapper] if wrapper else tree
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise UsageError(f"weights {file}: no tensors at the top or under {', '.join(WRAPPERS)}")
    others = [str(key) for key in (tree if wrapper else ()) if key != wrapper]
    others += [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    return Contents(container, wrapper, tensors, tuple(others), {})


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
