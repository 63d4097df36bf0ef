"""Opening video files with FFmpeg (through PyAV), with the limits that files of unknown origin need."""

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vpbench.data.video.reader import MAX_PIXELS, DecodeError, check_size
from vpbench.errors import UsageError, not_fetched

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


#: containers of video; FFmpeg also opens pictures, and playlists that make it read other files
FORMATS = "mov,matroska,avi,mpegts,mpeg"
#: decoders whose key frames are such in every container, beside those of codecs where each frame is one
KEYED = frozenset({
    "h264", "hevc", "vp8", "vp9", "av1", "libvpx", "libvpx-vp9", "libdav1d", "libaom-av1", "mpeg1video", "mpeg2video",
    "mpeg4", "h263", "flv", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "wmv1", "wmv2", "wmv3", "vc1", "theora", "ffv1", "png",
})  # fmt: skip


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
        other = "not an MP4, Matroska, WebM, AVI, MPEG-TS or MPEG-PS file; convert it"
        raise DecodeError(f"{path}: {in_place_of(path) or other}") from error


def video_stream(path: Path, container: "InputContainer") -> "VideoStream":
    """Return the first video stream that moves, to be decoded on one core.

    Raises DecodeError if there is none, or it is huge.
    """
    streams = [stream for stream in container.streams.video if stream.codec_context is not None]
    moving = [stream for stream in streams if not _is_picture(stream)]
    if not moving:
        raise DecodeError(f"{path}: no video stream in it" + (", only a still picture (artwork)" if streams else ""))
    stream = moving[0]
    if len(moving) > 1:
        status = path.stat()
        place = _first_moving(path, tuple(s.index for s in moving), status.st_mtime_ns, status.st_size)
        stream = next(each for each in moving if each.index == place)
    context = stream.codec_context
    check_size(path, 1, context.width, context.height)
    if not context.width:
        raise DecodeError(f"{path}: no frame in it can be read, or they have more than {MAX_PIXELS / 1e6:g} Mpixel")
    stream.thread_count = 1  # one core per reader: decoding must not disturb what is being timed
    context.options = {"max_pixels": str(MAX_PIXELS)}  # the size may change on the way
    return stream


def jumps(stream: "VideoStream") -> bool:
    """Tell whether decoding may start at any key frame that the container names, and not only with the first packet.

    A palette comes with the first packet alone, and old codecs are written with key frames that need those before.
    """
    context = stream.codec_context
    return context.pix_fmt != "pal8" and (context.codec.intra_only or context.codec.name in KEYED)


def _is_picture(stream: "VideoStream") -> bool:
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    return bool(stream.disposition & pictures)


@lru_cache(maxsize=8)
def _first_moving(path: Path, places: Sequence[int], changed_ns: int, size: int) -> int:
    """Return which of several streams is the first with more than one frame; the first one where none has."""
    seen: Counter[int] = Counter()
    with opened(path) as container:
        for packet in container.demux([container.streams[place] for place in places]):
            seen[packet.stream.index] += bool(packet.size)
            if seen[places[0]] > 1:
                break
    return next((place for place in places if seen[place] > 1), places[0])


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
        again = "; fetch it again" if isinstance(error, av.error.InvalidDataError) else ""
        raise DecodeError(f"{path}: {in_place_of(path) or f'{error.strerror or error}{again}'}") from error


def in_place_of(path: Path) -> str:
    """Say what a file that cannot be read is instead of a video or a picture, and what to do; empty if unknown."""
    try:
        with path.open("rb") as stream:
            return not_fetched(stream.read(64))
    except OSError:
        return ""
