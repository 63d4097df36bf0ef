"""Something-Something V2 from small trees: both official layouts, lists, and wrong files."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
from ssv2_tree import LABELS, TRAIN, VAL, build, entries, lists

from vpbench.datasets.ssv2 import SomethingV2
from vpbench.errors import UsageError

FACTS = list(VAL.items())


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def facts(root: Path, split: str = "validation") -> list[tuple[str, int]]:
    return [(video.video_id, video.label) for video in SomethingV2(root).videos(split)]


@pytest.mark.parametrize("newer", [False, True])
def test_official_files(tmp_path: Path, newer: bool) -> None:
    lists(tmp_path, newer=newer)
    touch(*(tmp_path / "20bn-something-something-v2" / f"{video}.webm" for video in VAL))
    dataset = SomethingV2(tmp_path)
    videos = dataset.videos("validation")
    assert facts(tmp_path) == FACTS
    assert [video.path for video in videos] == [tmp_path / "20bn-something-something-v2" / f"{v}.webm" for v in VAL]
    assert all(video.path.is_file() for video in videos)
    assert dataset.classes == tuple(LABELS)
    assert dataset.contradictions("validation") == []
    assert facts(tmp_path, "train") == list(TRAIN.items())


@pytest.mark.parametrize("place", ["{}.mp4", "videos_mp4/{}.mp4", "20bn-something-something-v2/{}.mp4", "{}.webm"])
def test_copies_and_flat_folders(tmp_path: Path, place: str) -> None:
    lists(tmp_path)
    touch(*(tmp_path / place.format(video) for video in VAL))
    assert [video.path for video in SomethingV2(tmp_path).videos("validation")] == [
        tmp_path / place.format(video) for video in VAL
    ]


def test_missing_videos_stay(tmp_path: Path) -> None:
    lists(tmp_path)
    assert facts(tmp_path) == FACTS
    path = SomethingV2(tmp_path).videos("validation")[0].path
    assert path == tmp_path / "20bn-something-something-v2" / "74225.webm"


@pytest.mark.parametrize("name", ["val.csv", "test.csv", "validation.txt", "sthv2_val_list_videos.txt"])
def test_lists_of_paths_and_labels(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("".join(f"/data/ssv2/{video}.mp4 {label}\n" for video, label in FACTS))
    touch(*(tmp_path / "20bn-something-something-v2" / f"{video}.webm" for video in VAL))
    dataset = SomethingV2(tmp_path)
    assert facts(tmp_path) == FACTS
    assert all(video.path.is_file() for video in dataset.videos("validation"))
    assert dataset.classes == tuple(str(number) for number in range(174))


def test_protocol_and_splits(tmp_path: Path) -> None:
    assert SomethingV2.protocol == "spread_2x3"
    assert SomethingV2.splits == ("validation", "train")
    assert len(SomethingV2.classes) == len(SomethingV2(lists(tmp_path)).classes) == 174
    with pytest.raises(UsageError, match="test split has no labels"):
        SomethingV2(tmp_path).videos("test")
    with pytest.raises(UsageError, match=r"ssv2 has no split 'validatio'; did you mean 'validation'"):
        SomethingV2(tmp_path).videos("validatio")


def test_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VPBENCH_SSV2", raising=False)
    with pytest.raises(UsageError, match="give --root or set VPBENCH_SSV2: a folder with something"):
        SomethingV2().videos("validation")
    with pytest.raises(UsageError, match="no list of ssv2 validation"):
        facts(tmp_path)
    monkeypatch.setenv("VPBENCH_SSV2", str(lists(tmp_path)))
    assert len(SomethingV2().videos("validation")) == 3
    assert SomethingV2().classes == tuple(LABELS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{", "EOF while parsing"),
        ("{}", "Input should be a valid (array|list)"),
        ('[{"id": "1"}]', r"'0\.template': Field required"),
        ('[{"id": "../1", "template": "a"}]', r"'0\.id': String should match pattern"),
        ('[{"id": "1\\n", "template": "a"}]', r"'0\.id': String should match pattern"),
        ('[{"id": 1, "template": "a"}]', r"'0\.id': Input should be a valid string"),
        ('[{"id": "1", "template": "Flying [something]"}]', "id 1: 'Flying something' is none of the 174 classes"),
        ("[" * 100_000, "recursion limit|EOF"),
    ],
)
def test_wrong_entries(tmp_path: Path, text: str, said: str) -> None:
    (lists(tmp_path) / "something-something-v2-validation.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        facts(tmp_path)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"a": "0"}, "does not number 174 classes"),
        (LABELS | {"one more": "174"}, "does not number 174 classes"),
        (LABELS | {"Doing 000 to something": "1"}, "does not number 174 classes"),
        (LABELS | {"Doing 000 to something": "x"}, "should be a valid integer"),
        (LABELS | {"Doing\n000": "x"}, r"'Doing\\n000': Input should be a valid integer"),
        ({f"Doing\n{number}": number for number in range(174)}, "does not number 174 classes"),
        ([], "Input should be an object"),
    ],
)
def test_wrong_labels(tmp_path: Path, labels: object, said: str) -> None:
    (lists(tmp_path) / "something-something-v2-labels.json").write_text(json.dumps(labels))
    with pytest.raises(UsageError, match=said):
        SomethingV2(tmp_path)


def test_entries_without_labels(tmp_path: Path) -> None:
    (tmp_path / "validation.json").write_text(entries(VAL))
    with pytest.raises(UsageError, match="add something-something-v2-labels"):
        facts(tmp_path)


def test_binary_and_huge_files(tmp_path: Path) -> None:
    path = lists(tmp_path) / "something-something-v2-validation.json"
    path.write_bytes(b"\x1a\x45\xdf\xff" * 100)
    with pytest.raises(UsageError, match="not text in UTF-8"):
        facts(tmp_path)
    with path.open("wb") as stream:
        stream.truncate(200_000_000)
    with pytest.raises(UsageError, match="200 MB"):
        facts(tmp_path)


def test_contradictions(tmp_path: Path) -> None:
    path = lists(tmp_path) / "something-something-v2-validation.json"
    both = json.loads(entries(VAL)) + json.loads(entries({"74225": 2, "5": 5}))
    both.append({"id": "6", "template": "Flying [something]"})
    path.write_text(json.dumps(both))
    touch(tmp_path / "74225.webm")
    (tmp_path / "5.webm").symlink_to(tmp_path / "74225.webm")
    said = SomethingV2(tmp_path).contradictions("validation")
    assert len(said) == 3
    assert said[0].endswith("id 6: 'Flying something' is none of the 174 classes of the file of labels")
    assert said[1].endswith("74225 is listed twice with other labels (1 and 2); the first counts")
    assert said[2].endswith("one file for both 74225 and 5")
    (tmp_path / "something-something-v2-validation.json").unlink()
    (tmp_path / "val.csv").write_text("1.webm 174\n")
    assert SomethingV2(tmp_path).contradictions("validation")[0].endswith("label 174 is outside 0 to 173")


def test_calibration(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("1.webm 17\n")
    with pytest.raises(UsageError, match=r"no list of ssv2 train.* with --set instead of --keep"):
        SomethingV2(tmp_path).calibration()
    lists(tmp_path)
    touch(*(tmp_path / "20bn-something-something-v2" / f"{video}.webm" for video in list(TRAIN)[::2]))
    chosen = SomethingV2(tmp_path).calibration()
    assert len({video.video_id for video in chosen}) == 72
    assert all(video.path.is_file() for video in chosen)


def test_videos_decode(tmp_path: Path) -> None:
    dataset = SomethingV2(build(tmp_path))
    for video in [*dataset.videos("validation"), *dataset.calibration()]:
        with av.open(str(video.path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 24
