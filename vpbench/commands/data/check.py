"""Look through a dataset of labelled videos: what is missing, what cannot be read, what contradicts itself."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from vpbench import processes, registry
from vpbench.commands.data.index import Index
from vpbench.commands.data.probe import Probe, Task, part_of, probe
from vpbench.commands.data.report import Report, summary
from vpbench.data import Dataset, Video, manifest_digest
from vpbench.errors import UsageError
from vpbench.progress import task

#: files whose size is asked at once: on a network drive each answer takes its time, but not the processor
ASKED_AT_ONCE = 16
Stat = os.stat_result


@dataclass(frozen=True)
class How:
    """How thorough a look is. `quick`: files are not opened."""

    decoder: str
    workers: int
    quick: bool


def check(name: str, dataset: Dataset, split: str, how: How, index: Index) -> Report:
    """Look through one split; raises UsageError where there is no list, or `how` names no decoder."""
    report = Report(name, split, str(dataset.root or "the package"), "videos")
    report.contradictions = dataset.contradictions(split)
    try:
        videos = dataset.videos(split)
    except UsageError:
        if not report.contradictions:
            raise
        return report  # they say why the list cannot be used
    report.expected, report.list_digest = len(videos), manifest_digest(videos)
    report.contradictions += _odd_labels(dataset, videos)
    stats = stat_all({video.path for video in videos})
    present = [video for video in videos if video.path in stats]
    report.found = len(present)
    report.missing = [f"{video.video_id} ({video.path})" for video in videos if video.path not in stats]
    if not how.quick:
        _open_all(report, present, stats, how, index)
        _compare(report, present, stats)
    report.summary["protocol"] = "; ".join(f"{family}: {name}" for family, name in protocols_of(dataset).items())
    return report


def protocols_of(dataset: Dataset) -> dict[str, str]:
    """Return the name of the default protocol for each family of backbones."""
    entries = registry.backbones().values()
    return {each.family: dataset.protocol or each.protocol for each in entries if each.protocol is not None}


def stat_all(paths: set[Path]) -> dict[Path, Stat]:
    """Return what is known of those that are there, size and time above all."""
    ordered = sorted(paths)
    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        found = zip(ordered, threads.map(_stat, ordered), strict=True)
        return {path: stat for path, stat in found if stat is not None}


def open_all(
    videos: Sequence[Video], stats: dict[Path, Stat], how: How, index: Index, take: Callable[[list[Probe]], None]
) -> int:
    """Let `take` have what the videos tell, those of one file at a time; returns of how many the index knew it."""
    unknown: dict[Path, list[Video]] = defaultdict(list)
    for video in videos:
        known = _known(video, stats[video.path], how.decoder, index)
        if known is None:
            unknown[video.path].append(video)
        else:
            take([replace(known, video_id=video.video_id)])
    by_index = len(videos) - sum(map(len, unknown.values()))
    jobs = [Task(tuple(group), how.decoder) for group in unknown.values()]
    with task("opening", len(videos) - by_index, "videos") as progress:
        for job, found in processes.each(probe, jobs, how.workers):
            take(_lost(job, found.reason) if isinstance(found, processes.Lost) else found)
            progress.advance(len(job.videos))
    return by_index


def _known(video: Video, stat: Stat, decoder: str, index: Index) -> Probe | None:
    if video.path.is_dir():  # its time says nothing about the files in it
        return None
    return index.find(video.path, part_of(video), decoder, stat.st_size, stat.st_mtime_ns)


def _lost(job: Task, reason: str) -> list[Probe]:
    """Say so of each video; size 0 keeps it out of any index."""
    return [Probe(each.video_id, str(each.path), part_of(each), job.decoder, 0, 0, reason) for each in job.videos]


def _open_all(report: Report, present: list[Video], stats: dict[Path, Stat], how: How, index: Index) -> None:
    probes: list[Probe] = []
    try:
        report.from_index = open_all(present, stats, how, index, probes.extend)
    except KeyboardInterrupt:
        report.stopped = True
    report.readable = sum(probe.error is None for probe in probes)
    place = {video.video_id: number for number, video in enumerate(present)}
    probes.sort(key=lambda probe: place[probe.video_id])
    report.unreadable = [f"{probe.path}{_in(probe)}: {probe.error}" for probe in probes if probe.error is not None]
    report.summary |= summary(probes)


def _in(probe: Probe) -> str:
    return f" ({probe.video_id})" if probe.part else ""


def _compare(report: Report, present: list[Video], stats: dict[Path, Stat]) -> None:
    """Name the copies of one file under two names: a fault where their labels differ, else remarkable."""
    labels: dict[Path, set[int]] = defaultdict(set)
    for video in present:
        if video.part is None:
            labels[video.path].add(video.label)
    if report.stopped:
        return
    files = {path: stats[path].st_size for path in labels if path.is_file()}
    for group in equal_files(files):
        text = f"the same content: {', '.join(map(str, group))}"
        differs = len(set().union(*(labels[path] for path in group))) > 1
        (report.contradictions if differs else report.remarks).append(
            f"{text}, with different labels" if differs else text
        )


def _odd_labels(dataset: Dataset, videos: Sequence[Video]) -> list[str]:
    """Say what no dataset may do; those of this package see to it themselves, those of others may not."""
    classes = len(dataset.classes)
    outside = [
        f"{video.video_id}: label {video.label} is outside 0 to {classes - 1}"
        for video in videos
        if not 0 <= video.label < classes
    ]
    counts = Counter(video.video_id for video in videos)
    return outside + [f"{name}: the id of {count} videos" for name, count in counts.items() if count > 1]


def _stat(path: Path) -> Stat | None:
    try:
        return path.stat()
    except OSError:
        return None


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
