"""Outputs of a pruned spatial encoder on disk, so that what follows it can be trained without running it again.

A folder of safetensors parts of `PART` videos each, `features [videos, views, steps, D]` and `labels`, and `parts.json`
with the digest of every part that is whole. A killed run goes on after the last of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vpbench.errors import UsageError, VpbenchError
from vpbench.progress import task

#: videos per file: what a killed run loses at most
PART = 64
LIST = "parts.json"
#: one video: its id, its label, and its views `[views, T, H, W, 3]`, uint8 or normalised
Labelled = tuple[str, int, Tensor]


@dataclass(frozen=True)
class Videos:
    """Labelled videos by number; `read` returns None, and has said why, for those that cannot be read."""

    count: int
    read: Callable[[int], Labelled | None]


def build(folder: Path, identity: str, videos: Videos, encode: Callable[[Tensor], Tensor]) -> Path:
    """Write the encoder's outputs for all videos; parts that are there, whole and of the same run are kept.

    `identity` names everything the outputs depend on. encode: views `[views, T, H, W, 3]` to `[views, steps, D]`.
    Raises UsageError if the folder is another run's, VpbenchError if it cannot be written or no video can be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = _known(folder, identity)
    with task(f"spatial outputs, {folder.name}", videos.count, "videos") as progress:
        for start in range(0, videos.count, PART):
            name = f"{start:07d}.safetensors"
            numbers = range(start, min(start + PART, videos.count))
            if not _whole(folder / name, known.get(name)):
                digest = _write(folder / name, [videos.read(number) for number in numbers], encode)
                known[name] = digest
                _list(folder, identity, known)
            progress.advance(len(numbers))
    if not any(known.values()):
        raise VpbenchError(f"none of the {videos.count} videos of {folder.name} can be read; see the messages above")
    return folder


def load(folder: Path) -> tuple[Tensor, Tensor]:
    """Return all outputs `[videos, views, steps, D]` (float32) and labels `[videos]`.

    Raises UsageError for a part that is missing or is not what was written.
    """
    names = json.loads((folder / LIST).read_text(encoding="utf-8"))["parts"]
    parts = []
    for name, digest in sorted(names.items()):
        if digest and not _whole(folder / name, digest):
            raise UsageError(f"{folder / name} is missing or damaged; the command that made it makes it again")
        parts += [load_file(folder / name)] if digest else []
    return torch.cat([part["features"] for part in parts]), torch.cat([part["labels"] for part in parts])


def _known(folder: Path, identity: str) -> dict[str, str]:
    file = folder / LIST
    if not file.exists():
        return {}
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        theirs, parts = content["identity"], dict(content["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is not readable; remove the folder, or give another --out") from error
    if theirs != identity:
        raise UsageError(f"{folder} holds outputs of another encoder or other videos; give another --out")
    return parts


def _whole(path: Path, digest: str | None) -> bool:
    """Whether a part need not be made: it is as listed, or listed as empty because none of its videos can be read."""
    if digest == "":
        return True
    return digest is not None and path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _write(path: Path, found: Sequence[Labelled | None], encode: Callable[[Tensor], Tensor]) -> str:
    """Encode and write one part, whole or not at all; returns its digest, "" where none of its videos can be read."""
    readable = [video for video in found if video is not None]
    if not readable:
        return ""
    features = torch.stack([encode(views).float().cpu() for _, _, views in readable])
    temporary = path.with_suffix(".tmp")
    try:
        save_file({"features": features, "labels": torch.tensor([label for _, label, _ in readable])}, temporary)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise VpbenchError(f"{path} cannot be written: {error}") from error
    return digest


def _list(folder: Path, identity: str, parts: dict[str, str]) -> None:
    temporary = folder / f"{LIST}.tmp"
    try:
        temporary.write_text(json.dumps({"identity": identity, "parts": parts}, indent=1), encoding="utf-8")
        temporary.replace(folder / LIST)
    except OSError as error:
        raise VpbenchError(f"{folder / LIST} cannot be written: {error.strerror}") from error


def batches(count: int, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield the numbers of an epoch's batches, shuffled."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1000 + epoch))
    yield from order.split(size)
