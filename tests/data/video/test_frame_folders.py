"""Folders of frames: order, numbers that are missing or come twice, files that are no pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numbered import numbers, picture
from PIL import Image

from vpbench.data import Numbers, Video
from vpbench.data.video import open_video
from vpbench.data.video import reader as video_reader
from vpbench.data.video.reader import DecodeError


def folder_of(folder: Path, pattern: str, wanted: range, *, size: tuple[int, int] = (64, 32)) -> Path:
    folder.mkdir(exist_ok=True)
    for number in wanted:
        Image.fromarray(picture(number, *size)).save(folder / pattern.format(number))
    return folder


def read(folder: Path, part: Numbers | None = None, indices: list[int] | None = None) -> list[int]:
    with open_video(Video("v", folder, 0, part), "pyav") as reader:
        assert reader.fps is None
        return numbers(reader.read(range(len(reader)) if indices is None else indices))


def refused(folder: Path, reason: str, part: Numbers | None = None) -> None:
    with pytest.raises(DecodeError, match=reason) as caught:
        read(folder, part)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["frame_{:010d}.jpg", "img_{:05d}.jpg", "{:05d}.png", "{}.JPEG", "v2_{}.jpg"])
def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path, pattern: str) -> None:
    """Without leading zeros the order of the names is another."""
    folder = folder_of(tmp_path, pattern, range(1, 13))
    for other in ("notes.txt", ".00003.jpg", "cover.jpg", "list.00001.txt"):
        (folder / other).write_bytes(b"no frame")
    assert read(folder) == list(range(1, 13))
    assert read(folder, indices=[11, 0, 4, 4]) == [12, 1, 5, 5]
    assert read(folder, Numbers(3, 6)) == [3, 4, 5, 6]
    assert read(folder, Numbers(3, 6), [3, 0]) == [6, 3]
    with pytest.raises(DecodeError, match="frame 4 asked for, the video has 4"):
        read(folder, Numbers(3, 6), [4])


def test_a_gap_is_refused_where_it_would_shift_frames(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "frame_{:04d}.jpg", range(1, 13))
    (folder / "frame_0007.jpg").unlink()
    refused(folder, "frame number 7 is missing")
    refused(folder, "frame number 7 is missing", Numbers(5, 9))
    refused(folder, "frame number 13 is missing", Numbers(9, 13))
    refused(folder, "no frame is in the part", Numbers(9, 8))
    assert read(folder, Numbers(8, 12)) == [8, 9, 10, 11, 12]


def test_a_number_that_comes_twice_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "img_{:05d}.jpg", range(1, 4))
    folder_of(tmp_path, "flow_x_{:05d}.jpg", range(2, 3))
    refused(folder, r"flow_x_00002\.jpg and img_00002\.jpg both are frame 2")


def test_what_was_added_since_the_last_look_is_seen(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{:03d}.png", range(1, 4))
    assert read(folder) == [1, 2, 3]
    folder_of(tmp_path, "{:03d}.png", range(4, 5))
    assert read(folder) == [1, 2, 3, 4]


def test_an_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, "no frames in it")


def test_files_that_are_no_sound_pictures_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "{:03d}.jpg", range(1, 4))
    whole = (folder / "002.jpg").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (folder / "002.jpg").write_bytes(content)
        refused(folder, r"002\.jpg: not a readable JPEG or PNG" if content else r"002\.jpg: the file is empty; fetch")
    Image.fromarray(np.zeros((32, 64), np.uint16)).save(folder / "002.jpg", format="PNG")
    refused(folder, r"002\.jpg: pixels of kind I;16")
    Image.new("RGB", (65, 32)).save(folder / "002.jpg")
    refused(folder, r"002\.jpg: 65x32 pixels, unlike")
    (folder / "002.jpg").unlink()
    (folder / "002.jpg").symlink_to(folder / "gone.jpg")
    refused(folder, r"002\.jpg: is missing")


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path, "{:03d}.jpg", range(1, 4))
    with monkeypatch.context() as patch:
        patch.setattr(video_reader, "MAX_READ_BYTES", 2 * 64 * 32 * 3)
        refused(folder, "3 frames of 64x32 .*--short-side")
    monkeypatch.setattr("vpbench.data.video.folder.MAX_PIXELS", 64 * 32 - 1)
    refused(folder, r"001\.jpg: 64x32 pixels, more than")


def test_grey_and_palette_files_are_made_rgb(tmp_path: Path) -> None:
    drawn = Image.fromarray(picture(5, 64, 32))
    drawn.convert("L").save(tmp_path / "1.png")
    drawn.convert("P").save(tmp_path / "2.png")
    drawn.save(tmp_path / "3.png")
    assert read(tmp_path) == [5, 5, 5]
