"""What opening a video tells: its frames, rate, size and codec, or why it cannot be read. Imports no torch."""

from dataclasses import dataclass, replace
from pathlib import Path

from vpbench.data import Video
from vpbench.data.video import open_video
from vpbench.data.video.container import explained, opened, video_stream
from vpbench.data.video.reader import DecodeError, check_file


@dataclass(frozen=True)
class Task:
    """Videos out of one file, to be opened together."""

    videos: tuple[Video, ...]
    decoder: str


@dataclass(frozen=True)
class Probe:
    """One video as it was found; `error` says why it cannot be read, and then the rest may be unknown.

    `size` and `mtime_ns` are those of the file. `seconds` and `frames` are those of the part that the video is.
    """

    video_id: str
    path: str
    part: str
    decoder: str
    size: int
    mtime_ns: int
    error: str | None = None
    frames: int | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    codec: str | None = None


def part_of(video: Video) -> str:
    """Return the part of its file that a video is, as text; empty for all of it."""
    return "" if video.part is None else str(video.part)


def probe(task: Task) -> list[Probe]:
    """Open the videos of one file and decode the first, the middle and the last frame of each."""
    codec = codec_of(task.videos[0].path)
    return [_probe(video, task.decoder, codec) for video in task.videos]


def _probe(video: Video, decoder: str, codec: str | None) -> Probe:
    try:
        status = video.path.stat()
        found = Probe(
            video.video_id, str(video.path), part_of(video), decoder, status.st_size, status.st_mtime_ns, codec=codec
        )
    except OSError as error:
        return Probe(video.video_id, str(video.path), part_of(video), decoder, 0, 0, error.strerror or str(error))
    try:
        with open_video(video, decoder) as reader:
            frames = len(reader)
            if frames == 0:
                return replace(found, error="no frame is shown in this part of the file", frames=0)
            _, height, width, _ = reader.read(sorted({0, (frames - 1) // 2, frames - 1})).shape
            fps = reader.fps
    except DecodeError as error:
        return replace(found, error=str(error).removeprefix(f"{video.path}: "))
    seconds = frames / fps if fps else None
    return replace(found, frames=frames, fps=fps, width=width, height=height, seconds=seconds)


def codec_of(path: Path) -> str | None:
    """Return FFmpeg's name of a video file's codec, None where it has none or cannot be opened."""
    if path.is_dir():
        return "images"
    try:
        check_file(path)
        with explained(path), opened(path) as container:
            return str(video_stream(path, container).codec_context.name)
    except DecodeError:
        return None
