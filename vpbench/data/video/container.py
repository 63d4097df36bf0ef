"""Opening video files with FFmpeg (through PyAV), with the limits that files of unknown origin need."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vpbench.data.video.reader import MAX_PIXELS, DecodeError, check_size
from vpbench.errors import UsageError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


#: containers of video; FFmpeg also opens pictures, and playlists that make it read other files
FORMATS = "mov,matroska,avi,mpegts,mpeg"


def opened(path: Path, **options: str) -> "InputContainer":
    """Open a container; raises DecodeError for those not in `FORMATS`, else what FFmpeg raises: see `explained`."""
    import av
    import av.logging

    av.logging.set_level(av.logging.PANIC)  # ours is the one line; FFmpeg would add several
    limits = {"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
    # titles in unknown encodings must not make a video unreadable
    try:
        return av.open(f"file:{path}", options=limits | options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if error.errno != errno.EINVAL:
            raise
        raise DecodeError(f"{path}: not an MP4, Matroska, WebM, AVI, MPEG-TS or MPEG-PS file; convert it") from error


def video_stream(path: Path, container: "InputContainer") -> "VideoStream":
    """Return the first video stream, to be decoded on one core; raises DecodeError if there is none or it is huge."""
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    if not streams:
        raise DecodeError(f"{path}: no video stream in it")
    stream = streams[0]
    context = stream.codec_context
    check_size(path, 1, context.width, context.height)
    if not context.width:
        raise DecodeError(f"{path}: no frame in it can be read, or they have more than {MAX_PIXELS / 1e6:g} Mpixel")
    stream.thread_count = 1  # one core per reader: decoding must not disturb what is being timed
    context.options = {"max_pixels": str(MAX_PIXELS)}  # the size may change on the way
    return stream


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what FFmpeg raises into a DecodeError; raises UsageError where there is no FFmpeg."""
    try:
        import av
    except ImportError as error:  # no build for this platform, or its libraries do not load
        raise UsageError(f"no video can be read: {error}; pip install --force-reinstall av") from error
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise DecodeError(f"{path}: {error.strerror or error}") from error
