"""What thresholds are derived from is not evaluated, under no other name either."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpbench.data import Given
from vpbench.data.lists.listing import CALIBRATION_VIDEOS
from vpbench.datasets.folder import Folder
from vpbench.errors import UsageError


def put(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def calibrated(root: Path, split: str, listed: Path | None = None) -> list[str]:
    return [video.video_id for video in Folder.opened(root, Given(list=listed, split=split)).calibration()]


def test_train_videos_with_the_content_of_evaluated_ones_are_left_out(tmp_path: Path) -> None:
    put(tmp_path / "train" / "jump" / "a.mp4", "one")
    put(tmp_path / "train" / "jump" / "b.mp4", "two")
    put(tmp_path / "train" / "jump" / "twin.mp4", "two")
    put(tmp_path / "train" / "jump" / "c.mp4", "six")
    put(tmp_path / "val" / "jump" / "other.mp4", "one")
    put(tmp_path / "test" / "jump" / "another.mp4", "six")
    put(tmp_path / "val" / "jump" / "longer.mp4", "two and more")
    assert calibrated(tmp_path, "val") == ["b", "twin"]
    put(tmp_path / "val" / "jump" / "b2.mp4", "two")
    with pytest.raises(UsageError, match="no video is there that is only trained on"):
        calibrated(tmp_path, "val")


def test_others_take_the_places_of_copies(tmp_path: Path) -> None:
    for number in range(2 * CALIBRATION_VIDEOS):
        put(tmp_path / "train" / "jump" / f"{number:03}.mp4", f"{number:03}")
    put(tmp_path / "val" / "jump" / "new.mp4", "new")
    before = calibrated(tmp_path, "val")
    assert before == [f"{number:03}" for number in range(0, 2 * CALIBRATION_VIDEOS, 2)]
    for name in before[:10]:
        put(tmp_path / "val" / "jump" / f"copy_{name}.mp4", name)
    after = calibrated(tmp_path, "val")
    assert len(after) == CALIBRATION_VIDEOS
    assert not set(after) & set(before[:10])


def test_copies_in_a_list_to_train_on_are_left_out(tmp_path: Path) -> None:
    for name, content in (("a", "one"), ("b", "two"), ("c", "one")):
        put(tmp_path / f"{name}.mp4", content)
    put(tmp_path / "val.csv", "a.mp4 0\n")
    put(tmp_path / "train.csv", "b.mp4 0\nc.mp4 0\n")
    assert calibrated(tmp_path, "all", tmp_path / "val.csv") == ["b"]


def test_of_the_share_that_is_held_back_copies_of_the_rest_are_left_out(tmp_path: Path) -> None:
    for number in range(10):
        put(tmp_path / "jump" / f"{number}.mp4", str(number))
    first, second = calibrated(tmp_path, "rest")
    rest = next(str(number) for number in range(10) if str(number) not in (first, second))
    put(tmp_path / "jump" / f"{first}.mp4", rest)
    assert calibrated(tmp_path, "rest") == [second]
    put(tmp_path / "jump" / f"{second}.mp4", rest)
    with pytest.raises(UsageError, match="all videos that are held back are copies of evaluated ones"):
        calibrated(tmp_path, "rest")
