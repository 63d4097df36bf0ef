"""Readers against clips whose every frame carries its number."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import hanging_decoder
import numpy as np
import pytest
from bit_videos import FRAMES, copied, numbers, trimmed, write

from vpbench.data import decord_worker
from vpbench.data.decord_worker import DecordFailed, Worker
from vpbench.data.lists.text import read_text
from vpbench.data.video import decode, open_reader
from vpbench.data.video.folder import picture
from vpbench.data.video.reader import DecodeError, frame_indices
from vpbench.datasets.synthmotion import HERE
from vpbench.errors import UsageError
from vpbench.processes import Server

READABLE = [
    "plain",
    "b_frames",
    "one_gop",
    "variable",
    "matroska",
    "transport_stream",
    "avi",
    "avi_dropped",
    "wrong_extension",
]


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
        "transport_stream": write(folder / "clip.ts", b_frames=2, container="mpegts"),
        "avi": write(folder / "clip.avi", container="avi"),
        "avi_dropped": write(folder / "drop.avi", pts=[n + n // 20 for n in range(48)], container="avi"),
        "wrong_extension": write(folder / "really_mp4.avi"),
    }


@pytest.mark.parametrize("name", READABLE)
def test_pyav_gives_exactly_the_frames_asked_for(clips: dict[str, Path], name: str) -> None:
    with open_reader(clips[name], "pyav") as reader:
        assert len(reader) == FRAMES
        assert numbers(reader.read(range(FRAMES))) == list(range(FRAMES))
        for wanted in ([0], [47], [30, 31], [5, 40, 5, 12], list(range(0, 48, 7))):
            assert numbers(reader.read(wanted)) == wanted
            assert np.array_equal(decode(clips[name], wanted, "pyav"), reader.read(wanted))


@pytest.mark.parametrize(("name", "hidden"), [("one_gop", 13), ("b_frames", 5), ("plain", 37)])
def test_an_edit_list_hides_frames_but_neither_shifts_nor_truncates(
    tmp_path: Path, clips: dict[str, Path], name: str, hidden: int
) -> None:
    """In the last case whole groups of frames are hidden, whose packets the demuxer leaves out."""
    with open_reader(trimmed(clips[name], tmp_path / "cut.mp4", hidden), "pyav") as reader:
        shown = list(range(hidden, FRAMES))
        assert numbers(reader.read(range(len(reader)))) == shown
        for wanted in ([0], [len(reader) - 1], [7, 2, 7]):
            assert numbers(reader.read(wanted)) == [shown[i] for i in wanted]


def test_frames_whose_order_is_not_in_the_file_are_refused(tmp_path: Path) -> None:
    """AVI holds no presentation times, and those FFmpeg makes up put H.264 B-frames in the wrong order."""
    path = write(tmp_path / "b.avi", b_frames=2, container="avi")
    with pytest.raises(DecodeError, match="order"):
        decode(path, [2], "pyav")


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_frames_that_do_not_exist_are_refused(clips: dict[str, Path], decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord", reason="decord has no build for this platform")
    for outside in (48, -1):
        with pytest.raises(DecodeError, match=f"frame {outside} .*has 48"):
            decode(clips["plain"], [0, outside], decoder)


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:7\nsize 3456\n",
            "a pointer of Git LFS.*; run git lfs",
        ),
        (b"<!DOCTYPE html><title>Quota exceeded</title>", "a web page, not the file; download it again"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page, not the file; download it"),
        (b"", "empty.*; fetch it again"),
    ],
)
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_what_was_not_fetched_is_told(tmp_path: Path, content: bytes, said: str, decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord", reason="decord has no build for this platform")
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DecodeError, match=said), open_reader(tmp_path / "a.mp4", decoder) as reader:
        reader.read([0])
    (tmp_path / "frame_1.jpg").write_bytes(content)
    with pytest.raises(DecodeError, match=said):
        picture(tmp_path / "frame_1.jpg", ("JPEG",))
    if content:
        with pytest.raises(UsageError, match=said):
            read_text(tmp_path / "a.mp4")


def test_a_file_cut_in_its_data_is_truncated_not_shortened(tmp_path: Path) -> None:
    """With the index in front the file still opens, and a careless reader gives the frames that are left."""
    whole = copied(write(tmp_path / "plain.mp4"), tmp_path / "whole.mp4", movflags="faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    with pytest.raises(DecodeError, match=r"truncated"):
        decode(cut, [0, 1], "pyav")


def test_a_cut_avi_is_truncated(tmp_path: Path) -> None:
    whole, cut = write(tmp_path / "whole.avi", container="avi"), tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with pytest.raises(DecodeError, match="truncated"):
        decode(cut, [0, 1], "pyav")


def test_an_error_of_another_kind_inside_the_block_passes_unchanged(clips: dict[str, Path]) -> None:
    with pytest.raises(OSError, match="disk full"), open_reader(clips["plain"], "pyav"):
        raise OSError("disk full")


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_too_short_says_what_is_there_and_what_is_needed(clips: dict[str, Path], decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord", reason="decord has no build for this platform")
    with (
        pytest.raises(DecodeError, match=r"plain\.mp4.*48 frames.*61") as caught,
        open_reader(clips["plain"], decoder) as reader,
    ):
        frame_indices(len(reader), 16, 4)
    assert "\n" not in str(caught.value)
    assert frame_indices(48, 16, 3) == list(range(0, 48, 3))


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker(hanging_decoder.hangs, hanging_decoder.ready, deadline_s=1.0)
    yield made
    made.close()


def test_a_hanging_decoder_is_killed_and_the_next_request_works(worker: Worker) -> None:
    assert worker.length("good1")[0] == 1
    for number, (bad, reason) in enumerate((("hang", "within 1 s"), ("die", "died")), start=2):
        began = time.monotonic()
        assert worker._server.alive
        with pytest.raises(DecordFailed, match=reason):
            worker.length(bad)
        assert time.monotonic() - began < 5
        assert not worker._server.alive
        assert worker.length(f"good{number}")[0] == number


def test_an_interrupted_request_leaves_no_answer_for_the_next_one(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> tuple[bool, object]:
        raise KeyboardInterrupt

    assert worker.length("good1")[0] == 1
    with monkeypatch.context() as patch:
        patch.setattr(Server, "_receive", staticmethod(interrupted))
        with pytest.raises(KeyboardInterrupt):
            worker.length("good2")
    assert worker.length("good3")[0] == 3


def test_the_real_decord_is_killed_at_its_deadline(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord", reason="decord has no build for this platform")
    decode(clips["plain"], [0], "decord")
    with monkeypatch.context() as patch:
        patch.setattr(decord_worker.shared(), "deadline_s", 0.0)
        with pytest.raises(DecodeError, match=r"plain\.mp4: no answer .*pyav"):
            decode(clips["plain"], [0], "decord")
    assert numbers(decode(clips["b_frames"], [9, 4], "decord")) == [9, 4]


def test_where_decord_does_not_work_it_says_so() -> None:
    with pytest.raises(UsageError, match=r"no module named decord.*--decoder pyav"):
        Worker(hanging_decoder.hangs, hanging_decoder.has_no_decord).length("any.mp4")
    with pytest.raises(UsageError, match=r"ended while starting.*--decoder pyav.*__main__"):
        Worker(hanging_decoder.hangs, hanging_decoder.dies).length("any.mp4")


def test_the_worker_starts_without_torch() -> None:
    code = "import sys, vpbench.data.decord_worker; sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_unknown_decoder() -> None:
    with pytest.raises(UsageError, match="pyav, decord"), open_reader(Path("x"), "opencv"):
        pass
