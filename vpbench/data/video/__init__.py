"""Read frames out of videos: exactly the frames asked for, or an error that names the file and the reason."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vpbench.data import Numbers, Seconds, Video
from vpbench.data.video.decord_reader import open_decord
from vpbench.data.video.folder import open_folder
from vpbench.data.video.part import within
from vpbench.data.video.pyav import open_pyav
from vpbench.data.video.reader import DecodeError, Frames, Reader, TimedReader, check_file, frame_indices, named
from vpbench.errors import UsageError

__all__ = ["DecodeError", "Frames", "Reader", "decode", "frame_indices", "open_reader", "open_video"]
_OPENERS = {"pyav": open_pyav, "decord": open_decord}


@contextmanager
def open_video(video: Video, decoder: str) -> Iterator[Reader]:
    """Open what a line of an annotation file names: a video file, a folder of frames, or a part of either.

    Index 0 is the first frame of the part. `Seconds(start, stop)` has the frames shown in `[start, stop)`, counted from
    the first frame shown (`ffmpeg -ss start -to stop`); `Numbers(first, last)` those of a folder with these numbers. A
    part may end up to `part.END_SLACK_S` after the video does, and has fewer frames then. Raises what `open_reader`
    raises; UsageError for seconds of a folder and numbers of a file.
    """
    _check_decoder(decoder)
    part = video.part
    if video.path.is_dir():
        if isinstance(part, Seconds):
            raise UsageError(f"{video.path}: a folder of frames has no seconds; list its parts by frame numbers")
        with named(video.path), open_folder(video.path, part) as reader:
            yield reader
        return
    if isinstance(part, Numbers) and video.path.exists():
        raise UsageError(f"{video.path}: parts of a video file are listed in seconds, not by frame numbers")
    with open_reader(video.path, decoder) as whole:
        yield within(video.path, whole, part) if isinstance(part, Seconds) else whole


@contextmanager
def open_reader(path: Path, decoder: str) -> Iterator[TimedReader]:
    """Open a video file with `pyav` (in this process) or `decord` (in a worker that is killed when it hangs).

    On sound files both give the same pixels, but for frames of odd height or of more than 8 bits, where FFmpeg has come
    to interpolate colours in another way. decord is there to repeat published pipelines; where it would make other
    frames without a word (clips cut by stream copy, open groups of frames, B-frames in AVI and MPEG-TS, palettes) it
    is refused. Damage that FFmpeg conceals is noticed by neither.

    Raises DecodeError for files that cannot be read, here or while reading (one raised in the `with` block gets the
    path in front); UsageError for a decoder that is unknown or does not work here.
    """
    _check_decoder(decoder)
    with named(path):
        check_file(path)
        with _OPENERS[decoder](path) as reader:
            yield reader


def decode(path: Path, indices: Sequence[int], decoder: str) -> Frames:
    """Open a video, read frames `[n, H, W, 3]`, uint8 RGB, and close it; raises what `open_reader` raises."""
    with open_reader(path, decoder) as reader:
        return reader.read(indices)


def _check_decoder(decoder: str) -> None:
    if decoder not in _OPENERS:
        raise UsageError(f"unknown decoder {decoder!r} (known: {', '.join(_OPENERS)})")
