"""Look through a dataset of frames with boxes: every annotation read, every image decoded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from vpbench import processes
from vpbench.commands.data.check import How
from vpbench.commands.data.report import Report, spread
from vpbench.data.boxes import DetectionDataset, Frame, oddities
from vpbench.data.sources import load_detection_dataset
from vpbench.data.video.reader import DecodeError
from vpbench.errors import UsageError
from vpbench.progress import task


@dataclass(frozen=True)
class Request:
    """One video of a dataset; of a `quick` look only its first, middle and last image are decoded."""

    dataset: str
    root: Path | None
    split: str
    video_id: str
    quick: bool


@dataclass
class Seen:
    """What one video holds, and its faults."""

    video_id: str
    frames: int = 0
    boxes: int = 0
    decoded: int = 0
    segments: int = 0
    odd: dict[str, int] = field(default_factory=dict)
    sizes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)


def check(name: str, dataset: DetectionDataset, split: str, how: How) -> Report:
    """Look through one split; raises UsageError where there is no list."""
    report = Report(name, split, str(dataset.root or "the package"), "frames")
    videos = dataset.videos(split)
    requests = [Request(name, dataset.root, split, video, how.quick) for video in videos]
    seen: list[Seen] = []
    try:
        with task("reading", len(videos), "videos") as progress:
            for request, found in processes.each(look, requests, how.workers):
                seen.append(_lost(request, found.reason) if isinstance(found, processes.Lost) else found)
                progress.advance()
    except KeyboardInterrupt:
        report.stopped = True
    _fill(report, sorted(seen, key=lambda each: each.video_id), len(videos))
    if how.quick:
        report.advice.append("only three images of each video were decoded (--quick)")
    return report


def look(request: Request) -> Seen:
    """Read one video's annotations and images, in a worker."""
    dataset = _opened(request.dataset, request.root)
    seen = Seen(request.video_id)
    try:
        segments = dataset.segments(request.split, request.video_id)
    except UsageError as error:  # a file of annotations that is missing or wrong
        seen.contradictions.append(str(error))
        return seen
    frames = [frame for segment in segments for frame in segment.frames]
    seen.frames, seen.segments, seen.odd = len(frames), len(segments), oddities(segments)
    seen.boxes = sum(len(frame.boxes.labels) for frame in frames)
    for frame in _three(frames) if request.quick else frames:
        _decode(dataset, frame, seen)
    return seen


@cache
def _opened(name: str, root: Path | None) -> DetectionDataset:
    """Open a dataset once per worker: its list is long."""
    return load_detection_dataset(name)(root)


def _three(frames: Sequence[Frame]) -> list[Frame]:
    return [frames[place] for place in sorted({0, (len(frames) - 1) // 2, len(frames) - 1})] if frames else []


def _decode(dataset: DetectionDataset, frame: Frame, seen: Seen) -> None:
    try:
        height, width, _ = dataset.pixels(frame).shape
    except DecodeError as error:
        gone = isinstance(error.__cause__, FileNotFoundError)
        (seen.missing if gone else seen.unreadable).append(str(error))
        return
    seen.decoded += 1
    if (size := f"{width}x{height}") not in seen.sizes:
        seen.sizes.append(size)
    if frame.height is not None and frame.width is not None and (frame.height, frame.width) != (height, width):
        seen.contradictions.append(
            f"video {frame.video_id} frame {frame.number}: the image has {size} pixels, its annotation says "
            f"{frame.width}x{frame.height}"
        )


def _lost(request: Request, reason: str) -> Seen:
    return Seen(request.video_id, unreadable=[f"video {request.video_id}: {reason}"])


def _fill(report: Report, seen: Sequence[Seen], videos: int) -> None:
    for each in seen:
        report.missing += each.missing
        report.unreadable += each.unreadable
        report.contradictions += each.contradictions
        if len(each.sizes) > 1:
            report.remarks.append(f"video {each.video_id}: images of several sizes ({', '.join(each.sizes)})")
    report.expected = sum(each.frames for each in seen)
    report.found = report.expected - len(report.missing)
    report.readable = sum(each.decoded for each in seen)
    sizes = Counter(size for each in seen for size in each.sizes)
    odd = sum((Counter(each.odd) for each in seen), Counter[str]())
    report.summary = {
        "videos": f"{videos}, of {spread([float(each.frames) for each in seen], ' frames')}",
        "boxes": str(sum(each.boxes for each in seen)),
        "segments": f"{sum(each.segments for each in seen)} without gaps in their numbers",
        "size": ", ".join(f"{size} ({count} videos)" for size, count in sizes.most_common(5)) or "unknown",
    } | {name: f"{count}, kept as they are" for name, count in odd.items()}
