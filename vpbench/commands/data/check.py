"""Look through a dataset of labelled videos: what is missing, what cannot be read, what contradicts itself."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vpbench import processes, registry
from vpbench.commands.data.index import Index
from vpbench.commands.data.probe import Probe, Task, part_of, probe
from vpbench.commands.data.report import Report, summary
from vpbench.data import Dataset, Video, manifest_digest
from vpbench.data.lists.copies import Stat, equal_videos, stat_all
from vpbench.errors import UsageError
from vpbench.progress import task


@dataclass(frozen=True)
class How:
    """How thorough a look is. `quick`: files are not opened."""

    decoder: str
    workers: int
    quick: bool


def check(name: str, dataset: Dataset, split: str, how: How, index: Index) -> Report:
    """Look through one split; raises UsageError where there is no list, or `how` names no decoder."""
    report = Report(name, split, str(dataset.root or "the package"), "videos")
    report.contradictions, report.remarks = dataset.contradictions(split), dataset.remarks(split)
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
    if report.stopped:
        return
    for group, differs in equal_videos(present, stats):
        text = f"the same content: {', '.join(map(str, group))}"
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
