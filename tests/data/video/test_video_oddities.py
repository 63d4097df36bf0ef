"""Files that are not what they seem: rotated, huge, playlists, pictures, changed on the way."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numbered import numbers, write_numbered
from PIL import Image

from vpbench.data.video import decode, open_reader
from vpbench.data.video import reader as video_reader
from vpbench.data.video.reader import DecodeError
from vpbench.errors import UsageError

DECODERS = ["pyav", "decord"]


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> str:
    if request.param == "decord":
        pytest.importorskip("decord", reason="decord has no build for this platform")
    return str(request.param)


@pytest.mark.parametrize("degrees", [90, -90, 180])
@pytest.mark.parametrize("name", ["phone.mp4", "phone.mkv"])
def test_rotated_frames_come_upright_or_not_at_all(tmp_path: Path, decoder: str, degrees: int, name: str) -> None:
    """What is to be turned by 90 degrees to the left comes as `np.rot90` gives it; decord forgets to in Matroska."""
    stored = decode(write_numbered(tmp_path / "stored.mp4", frames=4), range(4), "pyav")
    turned = write_numbered(tmp_path / name, frames=4, rotation=degrees)
    if (decoder, name) == ("decord", "phone.mkv"):
        with pytest.raises(DecodeError, match=r"phone\.mkv: .*--decoder pyav"):
            decode(turned, [3, 1], decoder)
        return
    shown = decode(turned, [3, 1], decoder)
    assert np.array_equal(shown, np.rot90(stored[[3, 1]], degrees // 90, axes=(1, 2)))


def test_frames_turned_by_other_angles_are_refused(tmp_path: Path, decoder: str) -> None:
    path = write_numbered(tmp_path / "slanted.mp4", frames=4, rotation=45)
    with pytest.raises(DecodeError, match=r"slanted\.mp4: .*encode it again upright"):
        decode(path, [0], decoder)


def test_huge_frames_are_refused_before_they_are_decoded(
    tmp_path: Path, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "huge.mp4", frames=4)
    monkeypatch.setattr(video_reader, "MAX_PIXELS", 128 * 64 - 1)
    with pytest.raises(DecodeError, match=r"huge\.mp4: 128x64 pixels.*--short-side"):
        decode(path, [0], decoder)


def test_more_frames_than_memory_should_hold_are_refused(
    tmp_path: Path, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "long.mp4")
    monkeypatch.setattr(video_reader, "MAX_READ_BYTES", 40 * 128 * 64 * 3)
    with open_reader(path, decoder) as reader:
        assert numbers(reader.read(range(40))) == list(range(40))
        with pytest.raises(DecodeError, match=r"long\.mp4: 41 frames of 128x64 .*--short-side"):
            reader.read(range(41))


def test_frames_larger_than_their_header_says_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder itself holds the limit: VP9 tells the size in its frames, whatever the container says."""
    path = write_numbered(tmp_path / "liar.webm", codec="libvpx-vp9", frames=4, options={"cpu-used": "8"})
    monkeypatch.setattr("vpbench.data.video.container.MAX_PIXELS", 128 * 64 // 4)
    with pytest.raises(DecodeError, match=r"liar\.webm: "):
        decode(path, [0], "pyav")


@pytest.mark.parametrize("kind", ["playlist", "concat", "picture", "text", "subtitles"])
def test_files_that_are_no_video_are_refused_by_name(tmp_path: Path, decoder: str, kind: str) -> None:
    """FFmpeg would follow playlists to other files, and show a picture as a video of one frame."""
    write_numbered(tmp_path / "other.mp4", frames=4)
    path = tmp_path / f"{kind}.mp4"
    texts = {
        "playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.mp4\n#EXT-X-ENDLIST\n",
        "concat": "ffconcat version 1.0\nfile other.mp4\n",
        "text": "not a video at all\n" * 100,
        "subtitles": "WEBVTT\n\n00:01.000 --> 00:04.000\nhello\n",
    }
    if kind == "picture":
        Image.new("RGB", (64, 64)).save(path, format="PNG")
    else:
        path.write_text(texts[kind])
    with pytest.raises(DecodeError) as caught:
        decode(path, [0], decoder)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def frames_or_none(path: Path) -> list[int] | None:
    """Read the numbers of all frames; None if the file is refused, by name."""
    with contextlib.suppress(DecodeError), open_reader(path, "pyav") as reader:
        return numbers(reader.read(range(len(reader))))
    with pytest.raises(DecodeError, match=re.escape(str(path))), open_reader(path, "pyav") as reader:
        reader.read(range(len(reader)))
    return None


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.webm", "cut.avi", "fragments.mp4"])
@pytest.mark.parametrize("options", [{}, {"bf": "2"}])
def test_truncated_files_are_not_shorter_videos(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    codec = {"cut.webm": "libvpx", "cut.avi": "mpeg4"}.get(name, "libx264")
    movflags = {"fragments.mp4": "frag_keyframe+empty_moov", "cut.mp4": "faststart"}.get(name, "")
    whole = write_numbered(tmp_path / f"whole_{name}", codec=codec, options=options, movflags=movflags)
    everything = list(range(48))
    assert frames_or_none(whole) == everything
    content = whole.read_bytes()
    for share in (0.3, 0.5, 0.62, 0.7, 0.8, 0.9, 0.97):
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        assert frames_or_none(tmp_path / name) in (None, everything), share  # an AVI may lose its index only


@pytest.mark.parametrize("options", [{}, {"bf": "2"}, {"bf": "3", "b_strategy": "0"}])
def test_a_cut_transport_stream_gives_true_frames_or_none(tmp_path: Path, options: dict[str, str]) -> None:
    """It says nowhere how many frames there were: what is whole is read, a cut or missing packet is refused."""
    whole, cut = write_numbered(tmp_path / "whole.ts", options=options).read_bytes(), tmp_path / "cut.ts"
    for share in np.linspace(0.2, 1, 40):
        cut.write_bytes(whole[: int(len(whole) * share) // 188 * 188])
        found = frames_or_none(cut)
        assert found is None or found == list(range(len(found))), share


@pytest.mark.parametrize("options", [{}, {"bf": "2"}])
def test_packets_lost_from_a_transport_stream_shift_no_frame(tmp_path: Path, options: dict[str, str]) -> None:
    """Here most frames are one packet, and nothing else tells that it is gone."""
    whole, lossy = write_numbered(tmp_path / "whole.ts", options=options).read_bytes(), tmp_path / "lossy.ts"
    for start in range(188 * 4, len(whole) - 188 * 2, 188 * 5):
        lossy.write_bytes(whole[:start] + whole[start + 188 :])
        with contextlib.suppress(DecodeError), open_reader(lossy, "pyav") as reader:
            assert len(reader) == 48


def test_variable_rates_in_a_transport_stream_are_refused(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "vfr.ts", frames=20, pts=[n * 20 if n < 10 else n * 100 for n in range(20)])
    with pytest.raises(DecodeError, match=r"vfr\.ts: .*variable rate.*MP4"):
        decode(path, [0], "pyav")


def test_a_transport_stream_that_starts_between_key_frames(tmp_path: Path) -> None:
    """Recordings do: frames before the first key frame cannot be decoded, and must not be passed off as others."""
    whole = write_numbered(tmp_path / "whole.ts", frames=64).read_bytes()
    late = tmp_path / "late.ts"
    late.write_bytes(whole[len(whole) // 3 // 188 * 188 :])
    found = frames_or_none(late)
    assert found is None or found == list(range(64 - len(found), 64))


def test_a_size_that_changes_on_the_way_is_refused(tmp_path: Path) -> None:
    """Two transport streams after one another are one file."""
    small = write_numbered(tmp_path / "small.ts", frames=20, size=(64, 32))
    large = write_numbered(tmp_path / "large.ts", frames=20, pts=[1000 + 40 * n for n in range(20)])
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(DecodeError, match=r"both\.ts: "), open_reader(both, "pyav") as reader:
        reader.read(range(len(reader)))


def test_sound_beside_the_video_changes_nothing(tmp_path: Path, decoder: str) -> None:
    silent = write_numbered(tmp_path / "silent.mp4")
    path = tmp_path / "sound.mp4"
    with av.open(str(silent)) as source, av.open(str(path), "w") as target:
        sound = target.add_stream("aac", rate=16000)
        assert isinstance(sound, av.AudioStream)
        picture = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                target.mux(packet)
        for number in range(30):
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            noise.sample_rate, noise.pts = 16000, number * 1024
            target.mux(sound.encode(noise))
        target.mux(sound.encode())
    assert numbers(decode(path, [9, 40, 0], decoder)) == [9, 40, 0]


def test_without_ffmpeg_one_line_says_what_to_install(
    tmp_path: Path, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "sound.mp4", frames=4)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"^no video can be read: .*pip install --force-reinstall av$"):
        decode(path, [0], decoder)
