"""Files on the disk: what is known of many at once, and which of them hold the same bytes."""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vpbench.data import Video

#: files whose size is asked at once: on a network drive each answer takes its time, but not the processor
ASKED_AT_ONCE = 16
#: tells nearly all files of equal size apart, at the price of one read each
HEAD_BYTES = 65_536
Stat = os.stat_result


def stat_all(paths: set[Path]) -> dict[Path, Stat]:
    """Return what is known of those that are there, size and time above all."""
    ordered = sorted(paths)
    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        found = zip(ordered, threads.map(_stat, ordered), strict=True)
        return {path: stat for path, stat in found if stat is not None}


def equal_videos(videos: Sequence[Video], stats: Mapping[Path, Stat]) -> list[tuple[list[Path], bool]]:
    """Group the video files that hold the same bytes, each group with whether its labels differ; parts are left out."""
    labels: dict[Path, set[int]] = defaultdict(set)
    for video in videos:
        if video.part is None:
            labels[video.path].add(video.label)
    files = {path: stats[path].st_size for path in labels if path in stats and path.is_file()}
    return [(group, len(set().union(*(labels[path] for path in group))) > 1) for group in equal_files(files)]


def copied(videos: Sequence[Video], others: Iterable[Path]) -> set[Path]:
    """Return the files of those videos that hold the same bytes as one of the others; only equal sizes are opened."""
    sizes = _sizes({video.path for video in videos})
    known = set(sizes.values())
    there = {path: size for path, size in _sizes(set(others)).items() if size in known}
    return {
        path for group in equal_files(sizes | there) if not there.keys().isdisjoint(group) for path in group
    } & sizes.keys()


def _sizes(paths: set[Path]) -> dict[Path, int]:
    return {path: found.st_size for path, found in stat_all(paths).items() if stat.S_ISREG(found.st_mode)}


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


def _stat(path: Path) -> Stat | None:
    try:
        return path.stat()
    except OSError:
        return None
