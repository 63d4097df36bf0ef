"""Codecs and containers of real data sets: the frames asked for, and the same pixels from both decoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numbered import cut_numbered, numbers, write_numbered

from vpbench.data import decord_worker
from vpbench.data.decord_worker import DecordFailed
from vpbench.data.video import decode, open_reader
from vpbench.data.video.reader import DecodeError

FRAMES = 48
QUIET = {"x265-params": "log-level=none:keyint=16:bframes=3"}
GAPS = [40 * n + (n * 7 % 30) for n in range(FRAMES)]
#: name -> how it is written
SAME: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"options": {"bf": "3"}},
    "open_gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1"}},
    "one_gop.mp4": {"options": {"g": "1000"}},
    "variable.mp4": {"pts": GAPS},
    "h264.mkv": {"options": {"bf": "2"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime", "g": "16"}},
    "vp8.webm": {"codec": "libvpx", "options": {"cpu-used": "8", "deadline": "realtime", "auto-alt-ref": "1"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "asp.avi": {"codec": "mpeg4", "options": {"qscale": "3"}},
    "mp4_named.avi": {"container": "mp4"},
    "odd_width.webm": {"codec": "libvpx-vp9", "size": (341, 256), "options": {"cpu-used": "8", "deadline": "realtime"}},
    "fields.mp4": {"options": {"x264-params": "tff=1"}},
    "fields_b.mkv": {"options": {"x264-params": "bff=1", "bf": "3"}},
    "full_range.mp4": {"pixels": "yuvj420p"},
    "bt709.mp4": {"options": {"x264-params": "colormatrix=bt709:colorprim=bt709:transfer=bt709"}},
    "one_frame.mp4": {"frames": 1},
}
#: decord miscounts these, or FFmpeg has changed how it makes RGB of them since decord was built
OURS: dict[str, dict[str, Any]] = {
    "stream.ts": {"options": {"bf": "2"}},
    "open_gop.ts": {"options": {"bf": "2", "x264-params": "open-gop=1"}},
    "refresh.mp4": {"options": {"x264-params": "intra-refresh=1"}},
    "odd.webm": {"codec": "libvpx-vp9", "size": (341, 257), "options": {"cpu-used": "8", "deadline": "realtime"}},
    "odd.avi": {"codec": "mjpeg", "size": (341, 257), "pixels": "yuvj420p"},
    "ten_bits.mp4": {"pixels": "yuv420p10le"},
}
#: of these decord makes other frames without a word, some of them or all, and is refused: what is wrong with them
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "hevc.mp4": ("open", {"codec": "libx265", "options": QUIET}),
    "asp.mp4": ("open", {"codec": "mpeg4", "options": {"bf": "2", "qscale": "3"}}),
    "asp_b.avi": ("reordered", {"codec": "mpeg4", "options": {"bf": "2", "qscale": "3"}}),
    "mpeg2.mkv": ("open", {"codec": "mpeg2video", "options": {"bf": "2"}}),
    "mpeg2.mpg": ("open", {"codec": "mpeg2video", "options": {"bf": "2"}}),
    "b.ts": ("B-frames", {"options": {"bf": "2"}}),
    "av1.mp4": ("AV1", {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "keyint=16"}}),
}


@pytest.mark.parametrize("name", [*SAME, *OURS, *REFUSED])
def test_exactly_the_frames_asked_for(tmp_path: Path, name: str) -> None:
    how = {"frames": FRAMES} | (SAME | OURS | {other: kind for other, (_, kind) in REFUSED.items()})[name]
    path = write_numbered(tmp_path / name, **how)
    width, height = how.get("size", (128, 64))
    with open_reader(path, "pyav") as reader:
        everything = reader.read(range(len(reader)))
        assert everything.shape == (how["frames"], height, width, 3)
        assert numbers(everything) == list(range(how["frames"]))
        assert reader.fps == pytest.approx(25, rel=0.05)
        for wanted in ([0], [47, 3, 3, 20], [31, 32], list(range(0, 48, 5)), [46]):
            if max(wanted) < len(reader):
                assert np.array_equal(reader.read(wanted), everything[wanted]), wanted


@pytest.mark.parametrize("name", SAME)
def test_both_decoders_give_the_same_pixels_and_rate(tmp_path: Path, name: str) -> None:
    pytest.importorskip("decord", reason="decord has no build for this platform")
    path = write_numbered(tmp_path / name, **SAME[name])
    with open_reader(path, "pyav") as ours, open_reader(path, "decord") as theirs:
        wanted = [n for n in (40, 3, 20, 0) if n < len(ours)]
        assert len(ours) == len(theirs)
        assert ours.fps == pytest.approx(theirs.fps)
        assert np.array_equal(ours.read(wanted), theirs.read(wanted))


@pytest.mark.parametrize("name", REFUSED)
def test_what_decord_shows_wrongly_is_refused(tmp_path: Path, name: str) -> None:
    reason, how = REFUSED[name]
    path = write_numbered(tmp_path / name, **how)
    with pytest.raises(DecodeError, match=rf"{name}: .*{reason}.*; use --decoder pyav$"):
        decode(path, [0], "decord")


@pytest.mark.parametrize(("hidden", "options"), [(7, {"bf": "2"}), (21, {"g": "16"}), (100, {"g": "1000", "bf": "2"})])
def test_stream_copied_clips_are_exact(tmp_path: Path, hidden: int, options: dict[str, str]) -> None:
    whole = write_numbered(tmp_path / "whole.mp4", frames=150, options=options)
    with open_reader(cut_numbered(whole, tmp_path / "cut.mp4", hidden), "pyav") as reader:
        shown = list(range(hidden, 150))
        assert numbers(reader.read(range(len(reader)))) == shown
        for wanted in ([0], [len(reader) - 1, 4], list(range(0, len(reader), 9))):
            assert numbers(reader.read(wanted)) == [shown[i] for i in wanted]
    pytest.importorskip("decord", reason="decord has no build for this platform")
    with pytest.raises(DecodeError, match=f"{150 - hidden} frames are shown, .*--decoder pyav"):
        decode(tmp_path / "cut.mp4", [0], "decord")


def test_decord_is_killed_where_it_hangs_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this kind of clip decord 0.6.0 never answers; the next request must find a new process."""
    pytest.importorskip("decord", reason="decord has no build for this platform")
    whole = write_numbered(tmp_path / "whole.mp4", frames=250, options={"g": "1000", "bf": "2", "sc_threshold": "0"})
    cut = cut_numbered(whole, tmp_path / "cut.mp4", 165)
    with monkeypatch.context() as patch:
        patch.setattr(decord_worker.shared(), "deadline_s", 3.0)
        with pytest.raises(DecordFailed, match=r"no answer from decord within 3 s"):
            decord_worker.shared().frames(str(cut), [0, 249])
    assert numbers(decode(whole, [5, 200], "decord")) == [5, 200]
    assert numbers(decode(cut, [0, 84], "pyav")) == [165, 249]
