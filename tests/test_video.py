"""Readers against clips whose every frame carries its number."""

from __future__ import annotations

import time
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path

import av
import numpy as np
import pytest

from vpbench import video
from vpbench.datasets.synthmotion import HERE
from vpbench.errors import UsageError
from vpbench.video import DecodeError, frame_indices, open_reader

FRAMES = 48


def write(
    path: Path, *, b_frames: int = 0, gop: int = 16, pts: list[int] | None = None, container: str = "mp4"
) -> Path:
    """Write frames whose six blocks are the bits of the frame number."""
    with av.open(str(path), "w", format=container) as target:
        stream = target.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"crf": "18", "bf": str(b_frames), "g": str(gop), "preset": "medium"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(FRAMES):
            picture = np.full((64, 96, 3), 40, np.uint8)
            for bit in range(6):
                picture[:, bit * 16 : bit * 16 + 16] = 220 if number >> bit & 1 else 40
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = pts[number] if pts else number * 40
            frame.time_base = Fraction(1, 1000)
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return path


def numbers(frames: np.ndarray) -> list[int]:
    """Read the frame numbers back."""
    bits = frames[:, 20:44, 8::16].mean(axis=(1, 3)) > 130
    return [sum(int(on) << bit for bit, on in enumerate(row)) for row in bits]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("video")
    gaps = np.random.default_rng(0).integers(10, 90, FRAMES).cumsum().tolist()
    return {
        "plain": write(folder / "plain.mp4"),
        "b_frames": write(folder / "b.mp4", b_frames=3, gop=24),
        "one_gop": write(folder / "gop.mp4", b_frames=2, gop=1000),
        "variable": write(folder / "vfr.mp4", pts=gaps),
        "matroska": write(folder / "clip.mkv", b_frames=2, container="matroska"),
        "wrong_extension": write(folder / "really_mp4.avi"),
    }


@pytest.mark.parametrize("name", ["plain", "b_frames", "one_gop", "variable", "matroska", "wrong_extension"])
def test_pyav_gives_exactly_the_frames_asked_for(clips: dict[str, Path], name: str) -> None:
    with open_reader(clips[name], "pyav") as reader:
        assert len(reader) == FRAMES
        assert numbers(reader.read(range(FRAMES))) == list(range(FRAMES))
        for wanted in ([0], [47], [30, 31], [5, 40, 5, 12], list(range(0, 48, 7))):
            assert numbers(reader.read(wanted)) == wanted
        with pytest.raises(DecodeError, match="48"):
            reader.read([48])


@pytest.mark.parametrize("name", ["plain", "b_frames", "one_gop"])
def test_both_decoders_give_the_same_pixels(clips: dict[str, Path], name: str) -> None:
    pytest.importorskip("decord", reason="decord has no build for this platform")
    found = []
    for decoder in ("pyav", "decord"):
        with open_reader(clips[name], decoder) as reader:
            found.append(reader.read([3, 20, 40]))
    assert np.array_equal(found[0], found[1])


def test_both_decoders_agree_on_the_embedded_clips() -> None:
    pytest.importorskip("decord", reason="decord has no build for this platform")
    for path in sorted((HERE / "clips").glob("*.mp4"))[::100]:
        found = []
        for decoder in ("pyav", "decord"):
            with open_reader(path, decoder) as reader:
                found.append(reader.read(frame_indices(len(reader), 16, 2)))
        assert np.array_equal(found[0], found[1]), path


def broken(folder: Path, clips: dict[str, Path]) -> dict[str, Path]:
    """Make files that are not the video they claim to be."""
    whole = clips["plain"].read_bytes()
    content = {
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"not a video at all\n" * 100,
        "noise": np.random.default_rng(0).bytes(5000),
    }
    paths = {name: folder / f"{name}.mp4" for name in content}
    for name, path in paths.items():
        path.write_bytes(content[name])
    with av.open(str(folder / "audio.mp4"), "w") as target:
        stream = target.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return paths | {"audio": folder / "audio.mp4", "missing": folder / "missing.mp4"}


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_broken_files_are_one_line_with_the_name(tmp_path: Path, clips: dict[str, Path], decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord", reason="decord has no build for this platform")
    for name, path in broken(tmp_path, clips).items():
        with pytest.raises(DecodeError) as caught, open_reader(path, decoder) as reader:
            reader.read(frame_indices(len(reader), 16, 2))
        assert str(path) in str(caught.value), name
        assert "\n" not in str(caught.value)


def test_a_file_cut_in_its_data_is_truncated_not_shortened(tmp_path: Path) -> None:
    """With the index in front the file still opens, and a careless reader gives the frames that are left."""
    whole = tmp_path / "whole.mp4"
    with (
        av.open(str(write(tmp_path / "plain.mp4"))) as source,
        av.open(str(whole), "w", options={"movflags": "faststart"}) as to,
    ):
        stream = to.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    with pytest.raises(DecodeError, match=r"truncated|damaged|cannot be decoded"), open_reader(cut, "pyav") as reader:
        reader.read([0, 1])


def test_too_short_says_what_is_there_and_what_is_needed(clips: dict[str, Path]) -> None:
    with (
        pytest.raises(DecodeError, match=r"plain\.mp4.*48 frames.*61") as caught,
        open_reader(clips["plain"], "pyav") as reader,
    ):
        frame_indices(len(reader), 16, 4)
    assert "\n" not in str(caught.value)
    assert frame_indices(48, 16, 3) == list(range(0, 48, 3))


def _hangs(pipe: Connection) -> None:
    """A worker that hangs on one file and answers for every other."""
    while True:
        path, _ = pipe.recv()
        if path == "hang":
            time.sleep(1000)
        if path == "die":
            return
        pipe.send((True, 7))


def test_a_hanging_decoder_is_killed_and_the_next_request_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "DEADLINE_S", 3.0)
    worker = video._Worker(_hangs)
    try:
        assert worker.ask(Path("good"), None) == 7
        for bad in ("hang", "die"):
            with pytest.raises(DecodeError, match=bad):
                worker.ask(Path(bad), None)
            assert worker.ask(Path("good"), None) == 7
    finally:
        worker.stop()
    assert worker.process is None


def test_unknown_decoder() -> None:
    with pytest.raises(UsageError, match="pyav, decord"), open_reader(Path("x"), "opencv"):
        pass
