"""Write pictures: PNG, and moving ones as GIF and MP4."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from vpbench.commands.options import named
from vpbench.errors import UsageError, VpbenchError, near_matches
from vpbench.render.pictures.draw import Pixels

FORMATS = ("png", "gif", "mp4")


def formats(text: str) -> tuple[str, ...]:
    """Read a list of formats; raises UsageError for one that is unknown, and for none."""
    asked = named(text.lower())
    for name in asked:
        if name not in FORMATS:
            raise UsageError(f"cannot write {name!r}{near_matches(name, FORMATS)}")
    if not asked:
        raise UsageError(f"--format is one or several of {', '.join(FORMATS)}")
    return asked


def write_png(path: Path, picture: Pixels) -> Path:
    """Write a picture; raises VpbenchError where the disk refuses."""
    from PIL import Image

    with _explained(path):
        Image.fromarray(picture).save(path, "PNG", compress_level=6)
    return path


def write_gif(path: Path, frames: Sequence[Pixels], fps: float) -> Path:
    """Write frames of one size as an endless GIF; raises VpbenchError where the disk refuses."""
    from PIL import Image

    first, *rest = (Image.fromarray(frame).quantize(256) for frame in frames)
    with _explained(path):
        first.save(path, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return path


def write_mp4(path: Path, frames: Sequence[Pixels], fps: float) -> Path:
    """Write frames of one size, with even sides, as H.264; raises VpbenchError where disk or encoder refuse."""
    import av

    with _explained(path):
        try:
            with av.open(str(path), "w", format="mp4") as container:
                stream: Any = container.add_stream(
                    "libx264", rate=Fraction(fps).limit_denominator(100), options={"crf": "18"}
                )
                stream.height, stream.width = frames[0].shape[:2]
                stream.pix_fmt = "yuv420p"
                for frame in frames:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                container.mux(stream.encode(None))
        except (ValueError, av.error.FFmpegError) as error:
            if isinstance(error, OSError) and error.strerror:
                raise
            raise VpbenchError(f"{path}: no MP4 can be written here ({error}); leave mp4 out of --format") from error
    return path


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Make the folder of a file that is written now, and turn an error of the disk into one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise VpbenchError(
            f"{path}: cannot write ({error.strerror or error}); name another folder with --out"
        ) from error
