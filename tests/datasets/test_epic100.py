"""EPIC-Kitchens-100 from small trees: whole videos, frames, trimmed videos; released and draft tables, wrong ones."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from epic_tree import HEADER, TRAIN, VAL, build, classes, frames, table, tables

from vpbench.data import Numbers, Seconds, manifest_digest
from vpbench.datasets.epic100 import EpicKitchens100
from vpbench.errors import UsageError

IDS = ["P01_11_0", "P01_11_3", "P04_101_7"]
SECONDS = [Seconds(0.0, 1.5), Seconds(1.36, 2.0), Seconds(0.25, 1.75)]
NUMBERS = [Numbers(1, 18), Numbers(17, 24), Numbers(4, 21)]
ROW = VAL[0]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize("folder", [".", "annotations", "epic-kitchens-100-annotations"])
def test_tables(tmp_path: Path, draft: bool, folder: str) -> None:
    tables(tmp_path / folder, draft=draft)
    dataset = EpicKitchens100(tmp_path)
    videos = dataset.videos("validation")
    assert [(video.video_id, video.label, video.noun) for video in videos] == [
        ("P01_11_0", 0, 2), ("P01_11_3", 1, 91), ("P04_101_7", 96, 299),
    ]  # fmt: skip
    assert (dataset.classes[96], dataset.nouns[299]) == ("verb-96", "noun-299")
    assert (len(dataset.classes), len(dataset.nouns)) == (97, 300)
    assert dataset.splits == ("validation", "train")
    assert len(dataset.videos("train")) == 100


def test_numbers_as_names(tmp_path: Path) -> None:
    (tmp_path / "EPIC_100_validation.csv").write_text(table())
    dataset = EpicKitchens100(tmp_path)
    assert (dataset.classes[96], dataset.nouns[299]) == ("96", "299")
    assert len(dataset.videos("validation")) == 3


@pytest.mark.parametrize(
    "place",
    ["{person}/videos/{video}.MP4", "EPIC-KITCHENS/{person}/videos/{video}.MP4", "videos/{person}/{video}.mp4",
     "videos/{video}.mp4", "{person}/{video}.mp4", "{video}.mp4", "{video}.mkv"],
)  # fmt: skip
def test_whole_videos(tmp_path: Path, place: str) -> None:
    tables(tmp_path)
    paths = [tmp_path / place.format(person=video[:3], video=video) for video in ("P01_11", "P01_11", "P04_101")]
    touch(*paths)
    videos = EpicKitchens100(tmp_path).videos("validation")
    assert [video.path for video in videos] == paths
    assert [video.part for video in videos] == SECONDS
    assert EpicKitchens100(tmp_path).contradictions("validation") == []


@pytest.mark.parametrize(
    "place",
    ["{person}/rgb_frames/{video}", "EPIC-KITCHENS/{person}/rgb_frames/{video}", "rgb_frames/{person}/{video}",
     "rgb_frames/{video}", "{person}/{video}", "{video}"],
)  # fmt: skip
def test_folders_of_frames(tmp_path: Path, place: str) -> None:
    tables(tmp_path)
    for video in ("P01_11", "P04_101"):
        frames(tmp_path / place.format(person=video[:3], video=video), count=2)
    videos = EpicKitchens100(tmp_path).videos("validation")
    assert [video.part for video in videos] == NUMBERS
    assert all((video.path / "frame_0000000001.jpg").is_file() for video in videos)


@pytest.mark.parametrize("place", ["{}.mp4", "clips/{}.mp4", "videos/{}.MP4", "P01/videos/{}.mp4"])
def test_trimmed_videos(tmp_path: Path, place: str) -> None:
    tables(tmp_path)
    touch(*(tmp_path / place.format(narration) for narration in IDS[:2]))
    videos = EpicKitchens100(tmp_path).videos("validation")
    assert [video.path for video in videos[:2]] == [tmp_path / place.format(narration) for narration in IDS[:2]]
    assert [video.part for video in videos[:2]] == [None, None]
    assert (videos[2].path, videos[2].part) == (tmp_path / "P04" / "videos" / "P04_101.MP4", SECONDS[2])


def test_missing_videos_stay(tmp_path: Path) -> None:
    tables(tmp_path)
    frames(tmp_path / "P04_101", count=1)
    videos = EpicKitchens100(tmp_path).videos("validation")
    assert [video.video_id for video in videos] == IDS
    assert [video.path.exists() for video in videos] == [False, False, True]
    assert [video.part for video in videos] == [*SECONDS[:2], NUMBERS[2]]


def test_digest_tells_videos_from_frames(tmp_path: Path) -> None:
    tables(tmp_path)
    whole = manifest_digest(EpicKitchens100(tmp_path).videos("validation"))
    frames(tmp_path / "P04_101", count=1)
    assert manifest_digest(EpicKitchens100(tmp_path).videos("validation")) != whole


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("take,0,plate", "take,97,plate", r"line 2: verb_class 97 is outside 0 to 96"),
        ("plate,2,", "plate,300,", r"line 2: noun_class 300 is outside 0 to 299"),
        ("take,0,plate", "take,-1,plate", "verb_class is '-1', not a whole number"),
        ("take,0,plate", "take,,plate", "verb_class is '', not a whole number"),
        ("P01_11_0", "../../x", "narration_id is '../../x', not like"),
        ("P01,P01_11,", "P01,../P01_11,", "video_id is '../P01_11', not like"),
        ("P01,P01_11,", "P02,P01_11,", "P01_11_0 is not of P01_11, or that not of P02"),
        ("P01,P01_11,", "P01,P01_12,", "P01_11_0 is not of P01_12"),
        ("00:00:01.50", "00:61:01.50", "stop_timestamp is '00:61:01.50', not a time like 00:01:02.34"),
        ("00:00:01.50", "1.50", "not a time like"),
        ("00:00:01.50", "nan", "not a time like"),
        (",1,18,", ",18,1,", "P01_11_0 stops before it starts"),
        ("00:00:00.00,00:00:01.50", "00:00:02.00,00:00:01.50", "P01_11_0 stops before it starts"),
        (HEADER, HEADER.replace("verb_class", "verb_id"), "no column 'verb_class'"),
        (ROW, "P01_11_0,P01", "line 2: 2 columns instead of 15"),
    ],
)
def test_wrong_tables(tmp_path: Path, old: str, new: str, said: str) -> None:
    tables(tmp_path)
    text = table()
    assert old in text
    (tmp_path / "EPIC_100_validation.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=said):
        EpicKitchens100(tmp_path).videos("validation")


def test_lists_in_cells_are_not_evaluated(tmp_path: Path) -> None:
    tables(tmp_path)
    evil = ROW.replace("['plate']", f"__import__('pathlib').Path('{tmp_path}/run').touch()")
    (tmp_path / "EPIC_100_validation.csv").write_text(table((evil,)))
    assert len(EpicKitchens100(tmp_path).videos("validation")) == 1
    assert not (tmp_path / "run").exists()


def test_binary_and_huge_tables(tmp_path: Path) -> None:
    path = tables(tmp_path) / "EPIC_100_validation.csv"
    path.write_bytes(b"\x80\x04\x95" * 100)
    with pytest.raises(UsageError, match="not text in UTF-8"):
        EpicKitchens100(tmp_path).videos("validation")
    with path.open("wb") as stream:
        stream.truncate(200_000_000)
    with pytest.raises(UsageError, match="200 MB"):
        EpicKitchens100(tmp_path).videos("validation")


@pytest.mark.parametrize(
    "text", [classes(96, "verb"), classes(98, "verb"), "id,key\n" + "0,a\n" * 97, classes(97, "\x1b[31m")]
)
def test_wrong_tables_of_classes(tmp_path: Path, text: str) -> None:
    (tables(tmp_path) / "EPIC_100_verb_classes.csv").write_text(text)
    with pytest.raises(UsageError, match="does not name 97 classes from 0 to 96"):
        EpicKitchens100(tmp_path)


def test_contradictions(tmp_path: Path) -> None:
    tables(tmp_path)
    touch(tmp_path / "P01_11.mp4")
    again = ROW.replace("take,0", "put,1")
    other = ROW.replace("P01_11_0", "P01_11_9").replace("plate,2,", "plate,999,").replace("00:00:01.50", "00:00:00.00")
    (tmp_path / "EPIC_100_validation.csv").write_text(table((*VAL, again, other)))
    said = EpicKitchens100(tmp_path).contradictions("validation")
    assert len(said) == 3
    assert said[0].endswith("line 6: noun_class 999 is outside 0 to 299")
    assert said[1].endswith("line 5: P01_11_0 is listed twice with other labels (0 and 1); the first counts")
    assert said[2].endswith("line 6: P01_11_9 lasts no time")


def test_one_file_for_two_trimmed_narrations(tmp_path: Path) -> None:
    tables(tmp_path)
    touch(tmp_path / "P01_11_0.mp4")
    (tmp_path / "P01_11_3.mp4").hardlink_to(tmp_path / "P01_11_0.mp4")
    said = EpicKitchens100(tmp_path).contradictions("validation")
    assert len(said) == 1
    assert said[0].endswith("one file for both P01_11_0 and P01_11_3")


def test_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VPBENCH_EPIC100", raising=False)
    with pytest.raises(UsageError, match="give --root or set VPBENCH_EPIC100: a folder with EPIC_100_validation"):
        EpicKitchens100().videos("validation")
    with pytest.raises(UsageError, match="no EPIC_100_validation"):
        EpicKitchens100(tmp_path).videos("validation")
    with pytest.raises(UsageError, match="labels of the test split are not published"):
        EpicKitchens100(tmp_path).videos("test")
    with pytest.raises(UsageError, match=r"epic100 has no split 'val' \(known: train, validation\)"):
        EpicKitchens100(tmp_path).videos("val")
    monkeypatch.setenv("VPBENCH_EPIC100", str(tables(tmp_path)))
    assert len(EpicKitchens100().videos("validation")) == 3
    assert EpicKitchens100().classes[0] == "verb-0"


def test_calibration(tmp_path: Path) -> None:
    (tmp_path / "EPIC_100_validation.csv").write_text(table())
    with pytest.raises(UsageError, match=r"no EPIC_100_train.* with --set instead of --keep"):
        EpicKitchens100(tmp_path).calibration()
    (tmp_path / "EPIC_100_train.csv").write_text(table(TRAIN))
    with pytest.raises(UsageError, match="none of epic100's train videos is there"):
        EpicKitchens100(tmp_path).calibration()
    touch(tmp_path / "P02_01.mp4")
    chosen = EpicKitchens100(tmp_path).calibration()
    assert len({video.video_id for video in chosen}) == 72
    assert chosen[-1].video_id == "P02_01_98"


def test_videos_decode(tmp_path: Path) -> None:
    for video in EpicKitchens100(build(tmp_path)).videos("validation"):
        with av.open(str(video.path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 24
