"""Files with more than one video stream: artwork, stills, two cameras; and streams whose times are odd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from numbered import numbers, write_numbered

from vpbench.data.video import decode, open_reader
from vpbench.data.video.reader import DecodeError

FRAMES = 48


def still(path: Path, size: tuple[int, int] = (300, 300)) -> Path:
    return write_numbered(path, frames=1, codec="mjpeg", size=size, pixels="yuvj420p")


def together(target: Path, *parts: tuple[Path, str | None], late: float = 0.0) -> Path:
    """Copy the first streams of files into one file, in this order; `late`: seconds before the first frame."""
    with av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as to:
        sources = [av.open(str(path)) for path, _ in parts]
        streams = [to.add_stream_from_template(source.streams.video[0]) for source in sources]
        for stream, (_, disposition) in zip(streams, parts, strict=True):
            if disposition is not None:
                stream.disposition = Disposition[disposition]
        for source, stream in zip(sources, streams, strict=True):
            for packet in source.demux(video=0):
                if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                    shift = round(late / packet.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    to.mux(packet)
            source.close()
    return target


def shown(path: Path, decoder: str, wanted: Sequence[int] = (40, 3, 9)) -> list[int]:
    with open_reader(path, decoder) as reader:
        assert len(reader) == FRAMES
        return numbers(reader.read(wanted))


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize(
    ("name", "disposition"),
    [("cover.mp4", "attached_pic"), ("cover.mov", "attached_pic"), ("still.mkv", None), ("flagged.mkv", "still_image")],
)  # fmt: skip
@pytest.mark.parametrize("first", [True, False])
def test_artwork_and_stills_are_not_the_video(
    tmp_path: Path, decoder: str, name: str, disposition: str | None, first: bool
) -> None:
    if decoder == "decord":
        pytest.importorskip("decord", reason="decord has no build for this platform")
    parts = [(still(tmp_path / "still.avi"), disposition), (write_numbered(tmp_path / "moves.mp4"), None)]
    path = together(tmp_path / name, *(parts if first else parts[::-1]))
    assert shown(path, decoder) == [40, 3, 9]


def test_a_still_that_is_not_marked_as_one_is_not_the_video(tmp_path: Path) -> None:
    """FFmpeg takes the larger one, and decord with it, which is then refused."""
    path = together(
        tmp_path / "still.mp4", (still(tmp_path / "still.avi"), None), (write_numbered(tmp_path / "moves.mp4"), None)
    )
    assert shown(path, "pyav") == [40, 3, 9]
    pytest.importorskip("decord", reason="decord has no build for this platform")
    with pytest.raises(DecodeError, match=r"still\.mp4: several video streams, .*; use --decoder pyav"):
        decode(path, [0], "decord")


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_a_file_with_artwork_alone_holds_no_video(tmp_path: Path, decoder: str) -> None:
    path = together(tmp_path / "song.mp4", (still(tmp_path / "still.avi"), "attached_pic"))
    with pytest.raises(DecodeError, match=r"song\.mp4: no video stream in it, only a still picture \(artwork\)"):
        decode(path, [0], decoder)


def test_the_first_of_two_cameras_is_read_and_decord_refused_where_it_takes_the_other(tmp_path: Path) -> None:
    small = write_numbered(tmp_path / "small.mp4", size=(64, 32))
    large = write_numbered(tmp_path / "large.mp4", size=(320, 160), frames=60)
    two = together(tmp_path / "two.mkv", (small, "comment"), (large, "default"))
    with open_reader(two, "pyav") as reader:
        assert reader.read([5]).shape == (1, 32, 64, 3)
    assert shown(two, "pyav") == [40, 3, 9]
    pytest.importorskip("decord", reason="decord has no build for this platform")
    with pytest.raises(DecodeError, match=r"two\.mkv: several video streams, .*; use --decoder pyav"):
        decode(two, [0], "decord")


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
def test_videos_that_begin_late_begin_with_their_first_frame(tmp_path: Path, decoder: str, name: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord", reason="decord has no build for this platform")
    whole = write_numbered(tmp_path / "whole.mp4", options={"bf": "0"})
    path = together(tmp_path / name, (whole, None), late=3.3)
    assert shown(path, decoder) == [40, 3, 9]
    with open_reader(path, decoder) as reader:
        assert reader.seconds()[[0, 25]] == pytest.approx([0, 1], abs=0.002)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_frames_without_time_stamps_are_refused(tmp_path: Path, decoder: str) -> None:
    """Matroska has no times below zero; of frames that have none, nothing tells the order."""
    whole = write_numbered(tmp_path / "whole.mp4", options={"bf": "2"})
    path = together(tmp_path / "early.mkv", (whole, None), late=-1.0)
    with pytest.raises(DecodeError, match=r"early\.mkv: .*time stamps?.*"):
        decode(path, [0], decoder)


def test_time_slots_that_are_finer_than_frames_are_no_truncation(tmp_path: Path) -> None:
    """A copy from MP4 into AVI keeps the fine clock, so that most slots are empty, and some behind the last frame."""
    whole = write_numbered(tmp_path / "whole.mp4", codec="mpeg4", pts=[40 * n for n in range(FRAMES)])
    path = together(tmp_path / "copied.avi", (whole, None))
    assert shown(path, "pyav") == [40, 3, 9]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.4)])
    with pytest.raises(DecodeError, match=r"copied\.avi: truncated"):
        decode(path, [0], "pyav")


def test_decord_gives_no_times_that_it_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="decord has no build for this platform")
    path = write_numbered(tmp_path / "plain.avi", codec="mpeg4")
    with open_reader(path, "decord") as reader:
        assert np.array_equal(numbers(reader.read([7, 30])), [7, 30])
        times = reader.seconds()
    assert times == pytest.approx(np.arange(FRAMES) / 25, abs=1e-3)
