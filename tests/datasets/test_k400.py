"""Kinetics-400 from small trees: every form of list and folder that is in use, whole, partial and wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from k400_tree import LABELS, TRAIN, VAL, Row, build, class_folders, empty, flat, official, path_label

from vpbench.data import Video
from vpbench.datasets.k400 import CLASSES, Kinetics400
from vpbench.errors import UsageError

STEMS = [row.stem for row in VAL]
WANTED = [(row.stem, LABELS[row.label]) for row in VAL]


def facts(videos: list[Video]) -> list[tuple[str, int]]:
    return [(video.video_id, video.label) for video in videos]


def listed(root: Path, split: str = "val") -> list[Video]:
    videos = Kinetics400(root).videos(split)
    assert all(video.part is None and video.noun is None for video in videos)
    return videos


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_classes_are_numbered_by_rank() -> None:
    assert len(set(CLASSES)) == 400
    assert list(CLASSES) == sorted(CLASSES)
    assert {name: CLASSES.index(name) for name in LABELS} == LABELS
    assert Kinetics400.splits == ("val", "train")


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
@pytest.mark.parametrize("name", ["val.csv", "test.csv", "val.txt", "kinetics400_val_list_videos.txt"])
def test_lists_of_paths_and_labels(tmp_path: Path, separator: str, name: str) -> None:
    write(tmp_path, name, path_label(VAL, "val", separator))
    class_folders(tmp_path / "val")
    videos = listed(tmp_path)
    assert facts(videos) == WANTED
    assert [video.path for video in videos] == [tmp_path / "val" / row.label / f"{row.stem}.mp4" for row in VAL]
    assert Kinetics400(tmp_path).contradictions("val") == []


def test_lists_of_another_computer_find_the_videos_here(tmp_path: Path) -> None:
    write(tmp_path, "val.csv", path_label(VAL, "/their/disk/k400/val"))
    class_folders(tmp_path / "videos_val", blank="_", ending=".mkv")
    videos = listed(tmp_path)
    assert facts(videos) == WANTED
    assert all(video.path.is_file() for video in videos)


def test_absolute_paths_are_taken(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    class_folders(disk)
    write(tmp_path / "lists", "val.csv", path_label(VAL, str(disk)))
    assert all(video.path.is_file() for video in listed(tmp_path / "lists"))


def test_videomae_calls_val_test(tmp_path: Path) -> None:
    write(tmp_path, "test.csv", path_label(VAL, "val"))
    class_folders(tmp_path / "val")
    assert facts(listed(tmp_path, "test")) == facts(listed(tmp_path)) == WANTED
    write(tmp_path, "val.csv", path_label(VAL[:2], "val"))
    assert facts(listed(tmp_path)) == WANTED[:2]
    assert facts(listed(tmp_path, "test")) == WANTED


def test_the_official_test_split_is_not_val(tmp_path: Path) -> None:
    write(tmp_path, "annotations/test.csv", official(VAL, "test"))
    flat(tmp_path / "test")
    assert facts(listed(tmp_path, "test")) == WANTED
    with pytest.raises(UsageError, match="neither a list nor class folders of k400 val"):
        listed(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["val.csv", "validate.csv", "kinetics_val.csv", "annotations/val.csv", "kinetics400/validate.csv",
     "annotations/kinetics-400_val.csv"],
)  # fmt: skip
@pytest.mark.parametrize("licence", [True, False])
def test_official_tables(tmp_path: Path, name: str, licence: bool) -> None:
    write(tmp_path, name, official(VAL, licence=licence))
    flat(tmp_path / "val")
    videos = listed(tmp_path)
    assert facts(videos) == WANTED
    assert [video.path for video in videos] == [tmp_path / "val" / f"{stem}.mp4" for stem in STEMS]


def replaced(root: Path) -> None:
    flat(root / "val", VAL[:3])
    flat(root / "replacement" / "replacement_for_corrupted_k400", VAL[3:])


FOLDERS: list[Callable[[Path], object]] = [
    lambda root: class_folders(root / "val"),
    lambda root: class_folders(root / "val", blank="_"),
    lambda root: class_folders(root / "videos_val", ending=".mkv"),
    lambda root: class_folders(root / "val_256", ending=".webm"),
    lambda root: class_folders(root / "videos" / "val", ending=".avi"),
    lambda root: flat(root / "val_256", ending=".MP4"),
    lambda root: flat(root),
    replaced,
]


@pytest.mark.parametrize("make", FOLDERS)
def test_official_tables_find_files_in_any_folder(tmp_path: Path, make: Callable[[Path], object]) -> None:
    write(tmp_path, "annotations/val.csv", official(VAL))
    make(tmp_path)
    videos = listed(tmp_path)
    assert facts(videos) == WANTED
    assert all(video.path.is_file() for video in videos)


def test_a_replacement_takes_the_place_of_the_broken_file(tmp_path: Path) -> None:
    write(tmp_path, "annotations/val.csv", official(VAL))
    flat(tmp_path / "val")
    flat(tmp_path / "replacement" / "replacement_for_corrupted_k400", VAL[1:2])
    assert [video.path.parent.name for video in listed(tmp_path)][:3] == [
        "val", "replacement_for_corrupted_k400", "val",
    ]  # fmt: skip


def test_videos_of_train_are_not_taken_for_val(tmp_path: Path) -> None:
    write(tmp_path, "annotations/val.csv", official(VAL))
    flat(tmp_path / "train_256")
    flat(tmp_path / "rawframes_val")
    assert not any(video.path.exists() for video in listed(tmp_path))


def test_missing_videos_stay_where_they_should_be(tmp_path: Path) -> None:
    write(tmp_path, "annotations/val.csv", official(VAL))
    flat(tmp_path / "val", VAL[::2])
    videos = listed(tmp_path)
    assert facts(videos) == WANTED
    assert [video.path.exists() for video in videos] == [True, False, True, False, True]
    assert videos[1].path == tmp_path / "val" / "air drumming" / f"{STEMS[1]}.mp4"


@pytest.mark.parametrize("folder", ["val", "videos_val", "val_256", "videos/val", "validation"])
@pytest.mark.parametrize("blank", [" ", "_"])
def test_class_folders_without_a_list(tmp_path: Path, folder: str, blank: str) -> None:
    class_folders(tmp_path / folder, blank=blank)
    empty(tmp_path / folder / "zumba" / "._hidden.mp4", tmp_path / folder / "zumba" / "notes.txt")
    assert facts(listed(tmp_path)) == sorted(WANTED, key=lambda fact: fact[1])
    assert [video.path.is_file() for video in listed(tmp_path)] == [True] * 5


def test_a_tree_with_few_classes_has_the_right_numbers(tmp_path: Path) -> None:
    class_folders(tmp_path / "val", VAL[-1:])
    assert facts(listed(tmp_path)) == [(STEMS[-1], 399)]


def test_brackets_and_apostrophes_may_be_gone(tmp_path: Path) -> None:
    empty(
        tmp_path / "val" / "massaging_persons_head" / "a.mp4",
        tmp_path / "val" / "passing_american_football_in_game" / "b.mp4",
        tmp_path / "val" / "passing_american_football_not_in_game" / "c.mp4",
    )
    assert facts(listed(tmp_path)) == [("a", 196), ("b", 208), ("c", 209)]


def test_class_folders_of_another_dataset_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "val")
    empty(tmp_path / "val" / "archrey" / "x.mp4")
    with pytest.raises(UsageError, match=r"archrey: not named after a class of Kinetics-400; did you mean 'archery'"):
        listed(tmp_path)
    (tmp_path / "val" / "archrey" / "x.mp4").unlink()
    empty(tmp_path / "val" / "loose.mp4")
    assert len(listed(tmp_path)) == 5
    assert "1 videos lie in no class folder" in Kinetics400(tmp_path).contradictions("val")[0]


def test_contradictions(tmp_path: Path) -> None:
    a, b, c, d, e = VAL
    wrong = d._replace(label="zumba")
    write(tmp_path, "val.csv", path_label([a, a, b, c, wrong, e], "val") + f"val/zumba/{b.stem}.mp4 399\n")
    class_folders(tmp_path / "val", [a, wrong, e])
    empty(tmp_path / "val" / "yoga" / f"{c.stem}.mp4")
    (tmp_path / "val" / "air drumming").mkdir()
    (tmp_path / "val" / "air drumming" / f"{b.stem}.mp4").symlink_to(tmp_path / "val" / a.label / f"{a.stem}.mp4")
    dataset = Kinetics400(tmp_path)
    assert [video.video_id for video in dataset.videos("val")] == [row.stem for row in (a, b, c, d, e)]
    said = dataset.contradictions("val")
    assert len(said) == 4
    assert said[0].endswith(f"line 2: {a.stem} is listed twice; the first counts")
    assert said[1].endswith(f"line 7: {b.stem} is listed twice with other labels (1 and 399); the first counts")
    assert "yoga" in said[2]
    assert said[2].endswith("lies in the folder of class 398, but is listed as 196 (massaging person's head)")
    assert said[3].endswith(f"one file for both {a.stem} and {b.stem}")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("val.csv", "val/x.mp4 400\nval/y.mp4 401\n", r"line 1: label 400 is outside 0 to 399 \(and 1 more faults\)"),
        ("val.csv", "val/x.mp4 3\n../y.mp4 3\n", r"line 2: '\.\./y\.mp4' leaves the folder"),
        ("val.csv", "val/x.mp4\n", r"line 1: 'val/x\.mp4' is no video; lines look like"),
        ("val.csv", "youtube_id,time_start,time_end\n", "no column 'label'"),
        ("val.csv", official([Row("brick laying by robots", "-" * 11, 0, 10)]), "line 2: 'brick .*none of the 400"),
        ("val.csv", official([Row("zumba", "../../etc/pw", 0, 10)]), r"line 2: '\.\./\.\./etc/pw' is no YouTube id"),
        ("val.csv", official([Row("zumba", "#NAME?", 0, 10)]), r"line 2: '#NAME\?' is no YouTube id"),
        ("val.csv", official([Row("zumba", "-" * 11, -1, 10)]), "line 2: time_start is '-1', not a whole number"),
        ("val.csv", official([Row("", "-" * 11, 1, 10)]), "line 2: '' is none of the 400 classes"),
    ],
)
def test_wrong_lists(tmp_path: Path, name: str, text: str, said: str) -> None:
    write(tmp_path, name, text)
    with pytest.raises(UsageError, match=said):
        listed(tmp_path)


def test_a_wrong_label_is_also_a_contradiction(tmp_path: Path) -> None:
    write(tmp_path, "val.csv", "val/x.mp4 400\nval/zumba/y.mp4 3\n")
    empty(tmp_path / "val" / "zumba" / "y.mp4", tmp_path / "val" / "yoga" / "x.mp4")
    said = Kinetics400(tmp_path).contradictions("val")
    assert [re.sub(r"^.*?(line 1|lies)", r"\1", line) for line in said] == [
        "line 1: label 400 is outside 0 to 399",
        "lies in the folder of class 398, but is listed as 400 (no class)",
        "lies in the folder of class 399, but is listed as 3 (applauding)",
    ]


def test_binary_and_huge_lists(tmp_path: Path) -> None:
    path = tmp_path / "val.csv"
    path.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(UsageError, match="not text in UTF-8"):
        listed(tmp_path)
    with path.open("wb") as stream:
        stream.truncate(200_000_000)
    with pytest.raises(UsageError, match="200 MB"):
        listed(tmp_path)


def test_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VPBENCH_K400", raising=False)
    with pytest.raises(UsageError, match="give --root or set VPBENCH_K400: a folder with val"):
        Kinetics400().videos("val")
    with pytest.raises(UsageError, match="neither a list nor class folders of k400 val; --root is to be a folder with"):
        listed(tmp_path)
    with pytest.raises(UsageError, match=r"k400 has no split 'vall'; did you mean 'val'\?"):
        listed(tmp_path, "vall")
    class_folders(tmp_path / "val")
    monkeypatch.setenv("VPBENCH_K400", str(tmp_path))
    assert len(Kinetics400().videos("val")) == 5


def test_calibration_is_spread_over_the_train_videos_that_are_there(tmp_path: Path) -> None:
    class_folders(tmp_path / "val")
    with pytest.raises(UsageError, match=r"k400 train.* set the native parameters of a method with --set"):
        Kinetics400(tmp_path).calibration()
    write(tmp_path, "annotations/train.csv", official(TRAIN, "train"))
    with pytest.raises(UsageError, match="none of k400's train videos is there"):
        Kinetics400(tmp_path).calibration()
    flat(tmp_path / "train", TRAIN[:80])
    chosen = [video.video_id for video in Kinetics400(tmp_path).calibration()]
    assert len(set(chosen)) == 72
    assert chosen[0] == TRAIN[0].stem
    assert chosen[-1] == TRAIN[78].stem
    assert chosen == sorted(chosen)


def test_videos_decode(tmp_path: Path) -> None:
    dataset = Kinetics400(build(tmp_path / "k400"))
    for video in [*dataset.videos("val"), *dataset.calibration()]:
        with av.open(str(video.path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 24
