"""Parts of video files, by the seconds at which their frames are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numbered import cut_numbered, numbers, write_numbered

from vpbench.data import Numbers, Seconds, Video
from vpbench.data.video import open_video
from vpbench.data.video.reader import DecodeError
from vpbench.errors import UsageError


def frames_of(path: Path, start: float, stop: float, decoder: str = "pyav") -> list[int]:
    with open_video(Video("v", path, 0, Seconds(start, stop)), decoder) as reader:
        return numbers(reader.read(range(len(reader))))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames, 25 per second, so 4 seconds."""
    return write_numbered(tmp_path_factory.mktemp("parts") / "clip.mp4", frames=100, options={"bf": "2"})


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize(
    ("start", "stop", "first", "last"),
    [
        (0, 4, 0, 99),
        (1.0, 2.0, 25, 49),  # a frame shown at the start is in, one shown at the end is not
        (1.001, 2.001, 26, 50),
        (0.12, 0.16, 3, 3),
        (2.52, 3.88, 63, 96),
        (3.9, 4.3, 98, 99),  # annotations may end a little after the video does
    ],
)
def test_frames_shown_from_start_until_stop(
    clip: Path, decoder: str, start: float, stop: float, first: int, last: int
) -> None:
    if decoder == "decord":
        pytest.importorskip("decord", reason="decord has no build for this platform")
    assert frames_of(clip, start, stop, decoder) == list(range(first, last + 1))


def test_every_start_at_a_frame_begins_with_that_frame(clip: Path) -> None:
    """Times are decimal fractions that binary numbers round: no frame may be lost or gained by that."""
    for number in range(98):
        assert frames_of(clip, number / 25, (number + 2) / 25) == [number, number + 1]


def test_indices_count_from_the_start_of_the_part(clip: Path) -> None:
    with open_video(Video("v", clip, 0, Seconds(2, 3)), "pyav") as reader:
        assert (len(reader), reader.fps) == (25, 25)
        assert numbers(reader.read([24, 0, 3, 3])) == [74, 50, 53, 53]
        with pytest.raises(DecodeError, match=r"frame 25 asked for, the video has 25"):
            reader.read([25])


@pytest.mark.parametrize(
    ("start", "stop", "reason"),
    [
        (3.0, 4.6, "ends after the video, which has 4.00 s"),
        (9.0, 10.0, "ends after the video"),
        (1.01, 1.02, "no frame is shown"),
        (2.0, 1.0, "no frame is shown"),
        (2.0, 2.0, "no frame is shown"),
        (-1.0, 1.0, "no frame is shown"),
        (float("nan"), float("nan"), "no frame is shown"),
    ],
)
def test_parts_that_are_not_there_are_refused(clip: Path, start: float, stop: float, reason: str) -> None:
    with pytest.raises(DecodeError, match=rf"clip\.mp4: .*{reason}"):
        frames_of(clip, start, stop)


def test_times_count_from_the_first_frame_shown(tmp_path: Path, clip: Path) -> None:
    """MPEG-TS starts its clock at more than a second, an edit list before zero."""
    stream = write_numbered(tmp_path / "clip.ts", frames=100)
    cut = cut_numbered(clip, tmp_path / "cut.mp4", 30)
    assert frames_of(stream, 1, 2) == list(range(25, 50))
    assert frames_of(cut, 1, 2) == list(range(55, 80))


def test_a_variable_frame_rate_goes_by_the_time_not_by_the_number(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "vfr.mp4", frames=20, pts=[n * 20 if n < 10 else n * 100 for n in range(20)])
    assert frames_of(path, 0.1, 1.5) == [*range(5, 10), *range(10, 15)]


def test_a_whole_video_without_a_part(clip: Path) -> None:
    with open_video(Video("v", clip, 0), "pyav") as reader:
        assert len(reader) == 100
        assert np.array_equal(reader.read([7]), reader.read([8])) is False


def test_numbers_are_for_folders_and_seconds_for_files(tmp_path: Path, clip: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"clip\.mp4: .*in seconds"),
        open_video(Video("v", clip, 0, Numbers(1, 5)), "pyav"),
    ):
        pass
    with (
        pytest.raises(UsageError, match="by frame numbers"),
        open_video(Video("v", tmp_path, 0, Seconds(1, 5)), "pyav"),
    ):
        pass
    with (
        pytest.raises(DecodeError, match=r"none\.mp4: No such file"),
        open_video(Video("v", tmp_path / "none.mp4", 0, Numbers(1, 5)), "pyav"),
    ):
        pass
    with pytest.raises(UsageError, match="pyav, decord"), open_video(Video("v", clip, 0), "opencv"):
        pass
