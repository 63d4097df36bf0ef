"""Copies against originals whose every frame carries its number."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from bit_videos import FRAMES, numbers, trimmed, write

from vpbench.commands.data.encode import Recipe, encode, upright_size
from vpbench.data import Seconds, Video
from vpbench.data.video import open_reader, open_video
from vpbench.data.video.container import opened
from vpbench.data.video.index import index_of
from vpbench.data.video.reader import DecodeError, Frames

SAME = Recipe(None, (96, 64), 18, key_frames=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("originals")
    gaps = np.random.default_rng(0).integers(10, 90, FRAMES).cumsum().tolist()
    b_frames = write(folder / "b.mp4", b_frames=3, gop=24)
    return {
        "b_frames": b_frames,
        "one_gop": write(folder / "gop.mp4", b_frames=2, gop=1000),
        "variable": write(folder / "vfr.mp4", pts=gaps),
        "matroska": write(folder / "clip.mkv", b_frames=2, container="matroska"),
        "transport_stream": write(folder / "clip.ts", b_frames=2, container="mpegts"),
        "avi_dropped": write(folder / "drop.avi", pts=[n + n // 20 for n in range(48)], container="avi"),
        "edit_list": trimmed(b_frames, folder / "cut.mp4", 5),
    }


def everything(video: Video) -> Frames:
    with open_video(video, "pyav") as reader:
        return reader.read(range(len(reader)))


def seconds(path: Path) -> np.ndarray:
    with opened(path) as container:
        return index_of(path, container).seconds()


CLIPS = ("b_frames", "one_gop", "variable", "matroska", "transport_stream", "avi_dropped", "edit_list")


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("part", [None, Seconds(0.4, 1.2), Seconds(0.0, 0.5)])
def test_copies_have_the_same_frames_at_the_same_times(
    tmp_path: Path, clips: dict[str, Path], name: str, part: Seconds | None
) -> None:
    original = Video("x", clips[name], 0, part)
    count = encode(original, tmp_path / "copy.mp4", SAME)
    copy = everything(Video("x", tmp_path / "copy.mp4", 0))
    shown = everything(original)
    assert len(copy) == len(shown) == count
    assert numbers(copy) == numbers(shown)
    times = seconds(clips[name])
    if part is not None:
        times = times[(times >= part.start) & (times < part.stop)]
    assert np.allclose(seconds(tmp_path / "copy.mp4"), times - times[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("recipe", "size", "copy"),
    [
        (Recipe(320, None, 18, False), (340, 256), (340, 256)),
        (Recipe(320, None, 18, False), (1280, 720), (568, 320)),
        (Recipe(320, None, 18, False), (720, 1280), (320, 568)),
        (Recipe(256, None, 18, False), (455, 341), (342, 256)),
        (Recipe(320, None, 18, True), (227, 129), (228, 128)),
        (Recipe(None, (340, 256), 18, False), (227, 129), (340, 256)),
    ],
)
def test_sizes_are_even_and_nothing_grows_but_on_request(
    recipe: Recipe, size: tuple[int, int], copy: tuple[int, int]
) -> None:
    assert recipe.size_of(*size) == copy


def test_a_copy_has_the_size_asked_for(tmp_path: Path, clips: dict[str, Path]) -> None:
    encode(Video("x", clips["variable"], 0), tmp_path / "copy.mp4", Recipe(32, None, 18, False))
    assert upright_size(tmp_path / "copy.mp4") == (48, 32)


def test_one_key_frame_per_second(tmp_path: Path, clips: dict[str, Path]) -> None:
    encode(Video("x", clips["one_gop"], 0), tmp_path / "copy.mp4", Recipe(None, (96, 64), 18, key_frames=True))
    with opened(tmp_path / "copy.mp4") as container:
        index = index_of(tmp_path / "copy.mp4", container)
    assert {0.0, 1.0} <= set((index.keys * index.tick[0] / index.tick[1]).tolist())


def flat(path: Path, pixel_format: str, space: int, value_range: int) -> Path:
    """One colour; YUV of half resolution, so that nothing but its reading can change it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixel_format
        stream.codec_context.colorspace, stream.codec_context.color_range = space, value_range
        for _ in range(5):
            frame = av.VideoFrame(128, 96, pixel_format)
            for plane, value in zip(frame.planes, (150, 90, 180), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.colorspace, frame.color_range = space, value_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turned(source: Path, target: Path) -> Path:
    """Write the display matrix of a quarter turn into the header of an MP4."""
    content = bytearray(source.read_bytes())
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("pixel_format", "space", "value_range"),
    [("yuv420p", 1, 1), ("yuv420p", 5, 1), ("yuv420p", 1, 2), ("yuvj420p", 5, 2)],
)
@pytest.mark.parametrize("upright", [True, False])
def test_colours_stay(tmp_path: Path, pixel_format: str, space: int, value_range: int, upright: bool) -> None:
    path = flat(tmp_path / "flat.mp4", pixel_format, space, value_range)
    if not upright:
        path = turned(path, tmp_path / "turned.mp4")
    encode(Video("x", path, 0), tmp_path / "copy.mp4", Recipe(48, None, 18, False))
    with open_reader(path, "pyav") as original, open_reader(tmp_path / "copy.mp4", "pyav") as copy:
        before, after = original.read([2])[0], copy.read([2])[0]
    assert after.shape == ((48, 64, 3) if upright else (64, 48, 3))
    assert np.abs(before.mean((0, 1)) - after.mean((0, 1))).max() <= 2


def test_sound_is_left_out(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=16000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        samples.sample_rate = 16000
        container.mux([*sound.encode(samples), *sound.encode(), *video.encode()])
    encode(Video("x", tmp_path / "a.mp4", 0), tmp_path / "b.mp4", Recipe(32, None, 18, False))
    with av.open(str(tmp_path / "b.mp4")) as copy:
        assert [stream.type for stream in copy.streams] == ["video"]


def test_what_cannot_be_read_is_not_copied(tmp_path: Path, clips: dict[str, Path]) -> None:
    content = clips["b_frames"].read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(DecodeError):
        encode(Video("x", tmp_path / "cut.mp4", 0), tmp_path / "copy.mp4", SAME)
    damaged = bytearray(content)
    place = content.index(b"mdat") + 4
    for start in range(place + 1500, place + len(content) // 2, 7):
        damaged[start] ^= 0x5A
    (tmp_path / "noise.mp4").write_bytes(damaged)
    with pytest.raises(DecodeError):
        encode(Video("x", tmp_path / "noise.mp4", 0), tmp_path / "copy.mp4", SAME)
