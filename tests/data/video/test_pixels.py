"""The colours of every kind of pixels: as they were drawn, and as an ffmpeg shows them where there is one."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vpbench.data.video import decode, open_reader
from vpbench.data.video.pixels import through
from vpbench.data.video.reader import DecodeError

#: one bar each; they move on by one with every frame
COLOURS = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
    (255, 255, 0),
    (128, 128, 128),
    (220, 60, 20),
)
FRAMES, WIDTH, HEIGHT = 8, 128, 48
#: levels that a colour may be off: in 8 bits of YUV without loss, in 5 bits of RGB (dithered), and in lossy codecs
EXACT, ROUNDED, FIVE_BITS, LOSSY = 0, 3, 12, 14


@dataclass(frozen=True)
class Kind:
    codec: str
    pixels: str
    tolerance: int = ROUNDED
    options: dict[str, str] = field(default_factory=dict)
    matrix: str | None = None
    full: bool = False

    @property
    def grey(self) -> bool:
        return self.pixels.startswith(("gray", "ya"))


def ffv1(*pixels: str) -> dict[str, Kind]:
    return {f"ffv1_{name}.mkv": Kind("ffv1", name, options={"g": "4", "strict": "-2"}) for name in pixels}


KINDS = {
    # a palette comes with the first packet, and never again
    "palette.avi": Kind("rawvideo", "pal8", EXACT),
    "palette.mov": Kind("rawvideo", "pal8", EXACT),
    "grey_as_palette.mov": Kind("rawvideo", "gray"),
    "animation_grey.mov": Kind("qtrle", "gray", options={"g": "4"}),
    "rle_palette.avi": Kind("msrle", "pal8", EXACT, {"g": "4"}),
    "screen_palette.avi": Kind("zmbv", "pal8", EXACT, {"g": "4"}),
    "graphics_palette.mov": Kind("smc", "pal8", EXACT, {"g": "4"}),
    "picture_palette.mov": Kind("png", "pal8", EXACT),
    # key frames that are none
    "road_pizza.mov": Kind("rpza", "rgb555le", FIVE_BITS),
    "animation.mov": Kind("qtrle", "rgb24", EXACT, {"g": "4"}),
    "animation_16.mov": Kind("qtrle", "rgb555be", FIVE_BITS, {"g": "4"}),
    "animation_alpha.mov": Kind("qtrle", "argb", EXACT, {"g": "4"}),
    "cinepak.avi": Kind("cinepak", "rgb24", LOSSY, {"g": "4"}),
    # bytes in the other order
    "raw_16.mov": Kind("rawvideo", "rgb555be", FIVE_BITS),
    # side data that PyAV has no name for
    "tiff.mov": Kind("tiff", "rgb24", EXACT),
    **ffv1(
        "yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuva420p", "yuva444p", "yuv420p10le",
        "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv422p12le", "yuv444p12le", "yuv420p16le", "yuva444p16le",
        "gray", "gray10le", "gray16le", "bgr0", "bgra", "gbrp10le", "gbrp12le", "gbrp16le",
    ),
    "raw_nv12.avi": Kind("rawvideo", "nv12"),
    "raw_bgr24.avi": Kind("rawvideo", "bgr24", EXACT),
    "raw_rgba.mov": Kind("rawvideo", "rgba", EXACT),
    "raw_uyvy.mov": Kind("rawvideo", "uyvy422"),
    "picture_rgba.mov": Kind("png", "rgba", EXACT),
    "picture_ya8.mov": Kind("png", "ya8"),
    "picture_48.mov": Kind("png", "rgb48be", EXACT),
    "huffyuv.avi": Kind("huffyuv", "yuv422p"),
    "huffyuv_rgb.avi": Kind("huffyuv", "rgb24", EXACT),
    "ffvhuff_gbrp.avi": Kind("ffvhuff", "gbrp", EXACT),
    "utvideo.avi": Kind("utvideo", "gbrap", EXACT),
    "mjpeg.avi": Kind("mjpeg", "yuvj420p", LOSSY, {"qscale": "2"}, full=True),
    "mjpeg_444.mov": Kind("mjpeg", "yuvj444p", LOSSY, {"qscale": "2"}, full=True),
    "prores.mov": Kind("prores_ks", "yuva444p10le"),
    "vp9_alpha.webm": Kind("libvpx-vp9", "yuva420p", LOSSY, {"crf": "4", "cpu-used": "8", "auto-alt-ref": "0"}),
    "vp9_gbr.mkv": Kind("libvpx-vp9", "gbrp", LOSSY, {"crf": "4", "cpu-used": "8"}),
    "h264_rgb.mkv": Kind("libx264rgb", "bgr24", EXACT, {"qp": "0"}),
    "h264_422_10.mp4": Kind("libx264", "yuv422p10le", LOSSY, {"crf": "4", "g": "4"}),
    "h264_420_10.mkv": Kind("libx264", "yuv420p10le", LOSSY, {"crf": "4", "g": "4"}),
    "hevc_12.mp4": Kind("libx265", "yuv420p12le", LOSSY, {"crf": "4", "x265-params": "log-level=none:keyint=4"}),
    # matrices and ranges, as they are tagged
    "bt709.mkv": Kind("ffv1", "yuv444p", matrix="bt709"),
    "bt709_full.mkv": Kind("ffv1", "yuv420p", matrix="bt709", full=True),
    "bt2020.mkv": Kind("ffv1", "yuv420p10le", matrix="bt2020"),
    "bt2020_full.mkv": Kind("ffv1", "yuv444p", matrix="bt2020", full=True),
    "smpte240m.mkv": Kind("ffv1", "yuv422p", matrix="smpte240m"),
    "full.mkv": Kind("ffv1", "yuv422p10le", full=True),
}  # fmt: skip

#: of these all frames before a frame have to be decoded
FROM_THE_START = frozenset(
    name for name, kind in KINDS.items() if "palette" in name or kind.codec in ("qtrle", "rpza", "cinepak")
)


def drawn(number: int) -> np.ndarray:
    bars = np.roll(np.array(COLOURS, np.uint8), number, axis=0)
    return np.broadcast_to(bars.repeat(WIDTH // len(bars), 0), (HEIGHT, WIDTH, 3)).copy()


def expected(kind: Kind) -> np.ndarray:
    """Return the colours of the bars of each frame, `[FRAMES, bars, 3]`."""
    bars = np.stack([np.roll(np.array(COLOURS, float), number, axis=0) for number in range(FRAMES)])
    if kind.grey:
        return (bars @ (0.299, 0.587, 0.114))[..., None].repeat(3, -1)
    return bars


def bars_of(frames: np.ndarray) -> np.ndarray:
    """Return what is in the middle of each bar; it has to be alike from top to bottom."""
    step = WIDTH // len(COLOURS)
    middle = frames[:, :, step // 2 :: step].astype(float)
    return np.asarray(middle[:, HEIGHT // 2])


def frame_of(kind: Kind, number: int) -> av.VideoFrame:
    rgb = drawn(number)
    if kind.pixels == "pal8":
        known = np.array(COLOURS, np.uint8)
        places = (rgb[:, :, None] == known).all(-1).argmax(-1).astype(np.uint8)
        palette = np.zeros((256, 4), np.uint8)
        palette[: len(known)] = np.concatenate([np.full((len(known), 1), 255, np.uint8), known], 1)
        return av.VideoFrame.from_ndarray((places, palette), format="pal8")  # type: ignore[arg-type]
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    if kind.matrix is None and not kind.full:
        return frame.reformat(format=kind.pixels)
    frame.time_base = Fraction(1, 25)
    how = f"out_color_matrix={kind.matrix or 'bt601'}:out_range={'full' if kind.full else 'limited'}"
    return through(frame, ("scale", how), ("format", kind.pixels))


def written(path: Path, kind: Kind) -> Path:
    with av.open(str(path), "w") as target:
        stream = target.add_stream(kind.codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, kind.pixels
        stream.options = {**kind.options}
        first = frame_of(kind, 0)
        stream.codec_context.color_range = first.color_range
        if kind.matrix is not None:
            stream.codec_context.colorspace = first.colorspace
        for number in range(FRAMES):
            frame = frame_of(kind, number)
            frame.pts = number
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", KINDS)
def test_colours_are_those_that_were_drawn(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = written(tmp_path / name, kind)
    with open_reader(path, "pyav") as reader:
        frames = reader.read(range(len(reader)))
        assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
        assert np.abs(bars_of(frames) - expected(kind)).max() <= kind.tolerance
        for wanted in ([7], [3], [6, 1, 5], [0]):
            assert np.array_equal(reader.read(wanted), frames[wanted]), wanted


@pytest.mark.parametrize("name", KINDS)
def test_decord_shows_the_same_colours_or_is_refused(tmp_path: Path, name: str) -> None:
    pytest.importorskip("decord", reason="decord has no build for this platform")
    kind = KINDS[name]
    path = written(tmp_path / name, kind)
    if name in FROM_THE_START:
        with pytest.raises(DecodeError, match=f"{name}: decord loses what {kind.codec} .*; use --decoder pyav$"):
            decode(path, [7, 2, 5], "decord")
    else:
        assert np.abs(bars_of(decode(path, [7, 2, 5], "decord")) - expected(kind)[[7, 2, 5]]).max() <= kind.tolerance


def ffmpeg() -> str | None:
    """Return an ffmpeg of version 8 or later: before, it interpolated colours in other ways."""
    program = shutil.which("ffmpeg")
    if program is None and importlib.util.find_spec("imageio_ffmpeg") is not None:
        program = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    if program is None:
        return None
    said = subprocess.run([program, "-version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"ffmpeg version n?(\d+)\.", said)
    return program if version and int(version[1]) >= 8 else None


def test_every_frame_is_that_of_ffmpeg(tmp_path: Path) -> None:
    program = ffmpeg()
    if program is None:
        pytest.skip("no ffmpeg 8 here; pip install imageio-ffmpeg")
    for name, kind in KINDS.items():
        path = written(tmp_path / name, kind)
        command = [program, "-v", "error", "-i", str(path), "-fps_mode", "passthrough", "-sws_flags", "bilinear"]
        found = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
        theirs = np.frombuffer(found.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
        assert np.array_equal(decode(path, range(len(theirs)), "pyav"), theirs), path


@pytest.mark.parametrize("name", ["moving.gif", "moving.apng"])
def test_moving_pictures_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, Kind(name.partition(".")[2], "gray"))
    with pytest.raises(DecodeError, match=rf"{name}: not an MP4, .*; convert it$"):
        decode(path, [0], "pyav")


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_colours_that_nobody_can_convert_are_refused(tmp_path: Path, decoder: str) -> None:
    """FFmpeg refuses the matrix YCgCo; older ones, as decord's, took it for another."""
    path = tmp_path / "ycgco.mkv"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("ffv1", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        stream.codec_context.colorspace = 8
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv444p")
        frame.colorspace = 8
        target.mux(stream.encode(frame))
        target.mux(stream.encode())
    with pytest.raises(DecodeError, match=r"ycgco\.mkv: .*yuv444p, colour matrix 8 of H\.273; encode it again"):
        decode(path, [0], decoder)
