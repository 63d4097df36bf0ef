"""Files of equal content: found among those of equal size."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

#: tells nearly all files of equal size apart, at the price of one read each
HEAD_BYTES = 65_536


def equal_files(sizes: Mapping[Path, int]) -> list[list[Path]]:
    """Group the files that hold the same bytes; files that cannot be read, and empty ones, are left out."""
    by_size: dict[object, list[Path]] = defaultdict(list)
    for path, size in sizes.items():
        if size:
            by_size[size].append(path)
    groups = _several(by_size.values())
    for limit in (HEAD_BYTES, None):
        groups = [part for group in groups for part in _by_digest(group, limit)]
    return [sorted(group) for group in groups]


def _by_digest(paths: Iterable[Path], limit: int | None) -> list[list[Path]]:
    by_digest: dict[object, list[Path]] = defaultdict(list)
    for path in paths:
        if (found := _digest(path, limit)) is not None:
            by_digest[found].append(path)
    return _several(by_digest.values())


def _several(groups: Iterable[list[Path]]) -> list[list[Path]]:
    return [group for group in groups if len(group) > 1]


def _digest(path: Path, limit: int | None) -> bytes | None:
    """Return the digest of a file, or of its first `limit` bytes; None if it cannot be read."""
    try:
        with path.open("rb") as stream:
            if limit is None:
                return hashlib.file_digest(stream, "sha256").digest()
            return hashlib.sha256(stream.read(limit)).digest()
    except OSError:
        return None
