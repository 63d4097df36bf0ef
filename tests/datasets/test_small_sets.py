"""UCF101, HMDB51 and Diving48 from small trees with official lists, as they come and as frames; wrong lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from vpbench.data import Dataset
from vpbench.data.lists.listing import NoList
from vpbench.datasets.diving48 import Diving48
from vpbench.datasets.hmdb51 import Hmdb51
from vpbench.datasets.ucf101 import Ucf101
from vpbench.errors import UsageError

UCF = ["ApplyEyeMakeup", "HandstandPushups", *(f"Class{number:03d}" for number in range(99))]
HMDB = ["brush_hair", *(f"class_{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(50))]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))


def facts(dataset: Dataset, split: str) -> list[tuple[str, int, bool]]:
    return [(video.video_id, video.label, video.path.exists()) for video in dataset.videos(split)]


def clip(name: str, group: int, ending: str = ".avi") -> str:
    return f"{name}/v_{name.replace('HandstandPushups', 'HandStandPushups')}_g{group:02d}_c01{ending}"


def ucf(root: Path, folder: str = "ucfTrainTestlist") -> Path:
    lists = root / folder
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "classInd.txt").write_text("".join(f"{n} {name}\r\n" for n, name in enumerate(UCF, start=1)))
    for number, groups in ((1, (1, 7)), (2, (8, 14)), (3, (15, 21))):
        test = [clip(name, group) for name in UCF[:2] for group in groups]
        train = [(clip(name, g), label) for label, name in enumerate(UCF[:2], 1) for g in (1, 8, 15, 22, 25)]
        (lists / f"testlist0{number}.txt").write_text("".join(f"{path}\n" for path in test))
        text = "".join(f"{path} {label}\n" for path, label in train if path not in test)
        (lists / f"trainlist0{number}.txt").write_text(text)
    return lists


@pytest.mark.parametrize("place", ["UCF-101", "", "videos"])
@pytest.mark.parametrize("folder", ["ucfTrainTestlist", "."])
def test_ucf101(tmp_path: Path, place: str, folder: str) -> None:
    ucf(tmp_path, folder)
    touch(*(tmp_path / place / clip(name, group) for name in UCF[:2] for group in (1, 7, 22)))
    dataset = Ucf101(tmp_path)
    assert (dataset.classes[:2], len(dataset.classes)) == (tuple(UCF[:2]), 101)
    assert dataset.splits == ("test1", "test2", "test3", "train1", "train2", "train3")
    assert facts(dataset, "test1") == [
        ("v_ApplyEyeMakeup_g01_c01", 0, True), ("v_ApplyEyeMakeup_g07_c01", 0, True),
        ("v_HandStandPushups_g01_c01", 1, True), ("v_HandStandPushups_g07_c01", 1, True),
    ]  # fmt: skip
    assert not any(there for _, _, there in facts(dataset, "test2"))
    assert dataset.contradictions("train1") == []


def test_ucf101_calibrates_on_what_no_split_tests(tmp_path: Path) -> None:
    lists = ucf(tmp_path)
    touch(*(tmp_path / "UCF-101" / clip(name, group) for name in UCF[:2] for group in (1, 8, 15, 22, 25)))
    ids = {video.video_id for video in Ucf101(tmp_path).calibration()}
    assert ids == {clip(name, group).split("/")[1][:-4] for name in UCF[:2] for group in (22, 25)}
    (lists / "testlist02.txt").unlink()
    assert len(Ucf101(tmp_path).calibration()) == 6
    (lists / "trainlist01.txt").unlink()
    with pytest.raises(UsageError, match=r"no trainlist01.txt.* with --set instead of --keep"):
        Ucf101(tmp_path).calibration()


def test_ucf101_as_copies_and_as_frames(tmp_path: Path) -> None:
    ucf(tmp_path)
    touch(tmp_path / "small" / clip(UCF[0], 1, ".mp4"))
    assert facts(Ucf101(tmp_path), "test1")[0][2]
    (tmp_path / "small" / clip(UCF[0], 1, ".mp4")).unlink()
    folder = tmp_path / "rawframes" / clip(UCF[1], 7, "")
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "img_00001.jpg")
    assert [video.path for video in Ucf101(tmp_path).videos("test1") if video.path.exists()] == [folder]


def test_wrong_lists_of_ucf101(tmp_path: Path) -> None:
    with pytest.raises(NoList, match=r"no testlist01.txt; --root is to be a folder with ucfTrainTestlist"):
        Ucf101(tmp_path).videos("test1")
    lists = ucf(tmp_path)
    (lists / "testlist01.txt").write_text("Juggling/v_Juggling_g01_c01.avi\n")
    with pytest.raises(UsageError, match=r"line 1: 'Juggling/.*' is no video of a class of classInd.txt"):
        Ucf101(tmp_path).videos("test1")
    (lists / "trainlist01.txt").write_text(f"{clip(UCF[0], 9)} 2\n")
    assert Ucf101(tmp_path).problems("train1") == {"listed with the number of another class": 1}
    with pytest.raises(UsageError, match=r"ucf101 has no split 'test'; did you mean 'test3'"):
        Ucf101(tmp_path).videos("test")
    (lists / "classInd.txt").write_text("1 One\n2 Two\n")
    with pytest.raises(UsageError, match="does not number 101 classes from 1 to 101"):
        Ucf101(tmp_path)
    (lists / "classInd.txt").unlink()
    with pytest.raises(UsageError, match=r"add classInd.txt"):
        Ucf101(tmp_path).videos("test1")


ODD = "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi"


def hmdb(root: Path, folder: str = "testTrainMulti_7030_splits") -> Path:
    lists = root / folder
    lists.mkdir(parents=True, exist_ok=True)
    for name in HMDB:
        for number in (1, 2, 3):
            marks = {f"{name}_{n}.avi": 2 if n == number else 0 if n == 9 else 1 for n in (1, 2, 3, 4, 9)}
            marks |= {ODD: 2} if name == "brush_hair" else {}
            text = "".join(f"{video} {mark} \n" for video, mark in marks.items())
            (lists / f"{name}_test_split{number}.txt").write_text(text)
    return lists


@pytest.mark.parametrize("place", ["hmdb51_org", "", "videos"])
def test_hmdb51(tmp_path: Path, place: str) -> None:
    hmdb(tmp_path, "splits" if place == "" else "testTrainMulti_7030_splits")
    touch(*(tmp_path / place / name / f"{name}_{n}.avi" for name in HMDB for n in (1, 4)))
    touch(tmp_path / place / "brush_hair" / ODD)
    dataset = Hmdb51(tmp_path)
    assert dataset.classes == tuple(sorted(HMDB))
    test = facts(dataset, "test1")
    assert len(test) == 52
    assert test[:3] == [("brush_hair_1", 0, True), (ODD[:-4], 0, True), ("class_aa_1", 1, True)]
    assert {video_id.rsplit("_", 1)[1] for video_id, _, _ in facts(dataset, "train1")} == {"2", "3", "4"}
    assert {video.video_id.rsplit("_", 1)[1] for video in dataset.calibration()} == {"4"}


def test_wrong_lists_of_hmdb51(tmp_path: Path) -> None:
    with pytest.raises(NoList, match=r"no lists like brush_hair_test_split1.txt"):
        Hmdb51(tmp_path).videos("test1")
    lists = hmdb(tmp_path)
    (lists / "brush_hair_test_split1.txt").write_text("../x.avi 2\n")
    with pytest.raises(UsageError, match=r"line 1: '../x.avi 2' is no video and 0, 1 or 2"):
        Hmdb51(tmp_path).videos("test1")
    (lists / "brush_hair_test_split1.txt").unlink()
    with pytest.raises(UsageError, match=r"lists of 50 classes of split 1 \(class_aa, .* not of 51"):
        Hmdb51(tmp_path).videos("test1")


def diving(root: Path, version: str = "V2_") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split, names in (("test", ("_8Vy3dlHg2w_00000", "b_00001")), ("train", ("c_00002",))):
        dives = [{"vid_name": n, "label": 47 - k, "start_frame": 0, "end_frame": 9} for k, n in enumerate(names)]
        (root / f"Diving48_{version}{split}.json").write_text(json.dumps(dives))
    vocabulary = [["Back", "15som", f"{n:02d}Twis", "FREE"] for n in range(48)]
    (root / "Diving48_vocab.json").write_text(json.dumps(vocabulary))
    return root


@pytest.mark.parametrize("place", ["rgb", "", "videos/deep"])
def test_diving48(tmp_path: Path, place: str) -> None:
    diving(tmp_path)
    touch(tmp_path / place / "_8Vy3dlHg2w_00000.mp4", tmp_path / place / "c_00002.mp4")
    dataset = Diving48(tmp_path)
    assert (dataset.classes[47], len(dataset.classes)) == ("Back 15som 47Twis FREE", 48)
    assert facts(dataset, "test") == [("_8Vy3dlHg2w_00000", 47, True), ("b_00001", 46, False)]
    assert [video.video_id for video in dataset.calibration()] == ["c_00002"]
    assert dataset.remarks("test") == []


def test_diving48_takes_the_corrected_lists(tmp_path: Path) -> None:
    diving(tmp_path, "")
    assert "1 list of the first version, whose labels were corrected" in Diving48(tmp_path).remarks("test")[0]
    diving(tmp_path)
    assert Diving48(tmp_path).remarks("test") == []


def test_wrong_lists_of_diving48(tmp_path: Path) -> None:
    with pytest.raises(NoList, match=r"no Diving48_V2_test.json"):
        Diving48(tmp_path).videos("test")
    diving(tmp_path)
    wrong = [
        ({"vid_name": "a", "label": 48}, "0.label.: Input should be less than 48"),
        ({"vid_name": "../a", "label": 4}, "0.vid_name.: String should match"),
        ({}, "Field required"),
    ]
    for entry, says in wrong:
        (tmp_path / "Diving48_V2_test.json").write_text(json.dumps([entry]))
        with pytest.raises(UsageError, match=says):
            Diving48(tmp_path).videos("test")
    (tmp_path / "Diving48_vocab.json").write_text("[[]]")
    with pytest.raises(UsageError, match="does not name 48 classes"):
        Diving48(tmp_path)
