"""A video is the one it was, or another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vpbench.data import Numbers, Video
from vpbench.data.state import SAMPLE, FileState, changed, state_of


def known(video: Video) -> FileState:
    state = state_of(video, content=True)
    assert state is not None
    return state


def test_a_copy_with_another_date_is_the_same_and_other_content_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(range(256)) * 2048)
    video = Video("a", path, 0)
    was = known(video)
    assert not changed(video, was)
    os.utime(path, ns=(1, 1))
    assert not changed(video, was)
    assert changed(video, FileState(was.size, was.changed_ns)), "nothing is known of its content"
    for place in (0, path.stat().st_size // 2, path.stat().st_size - 1):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        assert changed(video, was), place
        content[place] ^= 1
        path.write_bytes(content)
        assert not changed(video, was)
    path.write_bytes(path.read_bytes() + b"\0")
    assert changed(video, was)
    path.unlink()
    assert state_of(video) is None
    assert not changed(video, was), "what is missing is measured as it was"


@pytest.mark.parametrize("size", [0, 1, SAMPLE - 1, SAMPLE + 1])
def test_small_files_are_read_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "small.mp4"
    path.write_bytes(b"\1" * size)
    was = known(Video("a", path, 0))
    path.write_bytes(b"\1" * max(0, size - 1) + b"\2" * min(size, 1))
    os.utime(path, ns=(1, 1))
    assert changed(Video("a", path, 0), was) == (size > 0)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(1, 10):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"img_{number:05d}.png")
    return folder


def test_frames_that_are_written_over_in_place_are_other_frames(frames: Path) -> None:
    whole, part = Video("a", frames, 0), Video("b", frames, 0, Numbers(1, 3))
    was, part_was = known(whole), known(part)
    folder_changed = frames.stat().st_mtime_ns
    last = frames / "img_00009.png"
    Image.new("RGB", (8, 8), (200, 0, 0)).save(frames / "new.png")
    last.write_bytes((frames / "new.png").read_bytes())
    (frames / "new.png").unlink()
    os.utime(frames, ns=(folder_changed, folder_changed))
    assert changed(whole, was)
    assert not changed(part, part_was)


def test_a_copied_folder_of_frames_is_the_same_and_one_frame_less_is_not(frames: Path, tmp_path: Path) -> None:
    was = known(Video("a", frames, 0))
    copy = Path(shutil.copytree(frames, tmp_path / "copy"))
    for path in copy.iterdir():
        os.utime(path, ns=(5, 5))
    assert not changed(Video("a", copy, 0), was)
    (copy / "img_00009.png").unlink()
    assert changed(Video("a", copy, 0), was)
