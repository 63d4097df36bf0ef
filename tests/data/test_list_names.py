"""Which file a line of a list means, and what a video is called: names numbered anew, other systems, other endings."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest
from helpers import vpbench
from tiny_videos import write_video

from vpbench.data import Dataset, Video, manifest_digest
from vpbench.data.lists.files import VideoFiles
from vpbench.data.lists.listing import listed_videos
from vpbench.data.lists.paths import below, loose, parts_of, same
from vpbench.datasets.k400 import Kinetics400
from vpbench.datasets.ssv2 import SomethingV2


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode())  # of unequal content


def write(root: Path, lines: Iterable[str]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "val.csv").write_bytes("".join(f"{line}\n" for line in lines).encode())


def k400(root: Path) -> Dataset:
    return Kinetics400(root)


def ssv2(root: Path) -> Dataset:
    return SomethingV2(root)


BOTH = pytest.mark.parametrize("dataset", [k400, ssv2])


def videos(dataset: Dataset) -> list[Video]:
    return dataset.videos(dataset.splits[0])


def said(dataset: Dataset) -> str:
    return "\n".join(dataset.remarks(dataset.splits[0]))


@BOTH
def test_names_that_are_numbered_anew_in_each_folder(tmp_path: Path, dataset: type[Dataset]) -> None:
    names = [f"clips/{folder}/{video}.avi" for folder in range(3) for video in range(2)]
    touch(*(tmp_path / name for name in names))
    write(tmp_path, [f"{name} {label}" for label, name in enumerate(names)])
    found = videos(dataset(tmp_path))
    assert [video.video_id for video in found] == [name.removesuffix(".avi") for name in names]
    assert [video.path for video in found] == [tmp_path / name for name in names]
    assert [video.label for video in found] == list(range(6))
    assert dataset(tmp_path).problems(dataset(tmp_path).splits[0]) == {}


def test_class_folders_with_the_same_names(tmp_path: Path) -> None:
    touch(*(tmp_path / "val" / name / "video1.mp4" for name in ("abseiling", "archery")), tmp_path / "val/zumba/a.mp4")
    assert [(video.video_id, video.label) for video in videos(k400(tmp_path))] == [
        ("val/abseiling/video1", 0), ("val/archery/video1", 5), ("a", 399),
    ]  # fmt: skip


def test_two_videos_that_differ_in_their_endings_alone(tmp_path: Path) -> None:
    touch(tmp_path / "val" / "zumba" / "a.mp4", tmp_path / "val" / "zumba" / "a.mov")
    assert [video.video_id for video in videos(k400(tmp_path))] == ["val/zumba/a.mov", "val/zumba/a.mp4"]


@BOTH
def test_names_that_are_alone_stay_what_they_are(tmp_path: Path, dataset: type[Dataset]) -> None:
    names = ["val/a/x.mp4", "val/b/y.mp4"]
    touch(*(tmp_path / name for name in names))
    write(tmp_path, [f"{name} 0" for name in names])
    here = videos(dataset(tmp_path))
    assert [video.video_id for video in here] == ["x", "y"]
    write(tmp_path, [f"/their/disk/{name} 0" for name in names])
    assert manifest_digest(videos(dataset(tmp_path))) == manifest_digest(here)


@BOTH
@pytest.mark.parametrize("there", [False, True])
def test_a_namesake_does_not_stand_in_for_a_missing_file(
    tmp_path: Path, dataset: type[Dataset], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a" / "video1.mp4", tmp_path / "b" / "video2.mp4")
    write(tmp_path, ["a/video1.mp4 0", "b/video1.mp4 1", "a/video2.mp4 0"])
    monkeypatch.chdir(tmp_path)
    found = videos(dataset(Path() if there else tmp_path))
    assert [(video.video_id, video.path.exists()) for video in found] == [
        ("a/video1", True), ("b/video1", False), ("video2", False),
    ]  # fmt: skip
    assert "1 are missing, though a file elsewhere has the same name (a/video2.mp4: not b/video2.mp4)" in said(
        dataset(tmp_path)
    )


@BOTH
def test_lists_of_another_computer_are_told_apart_by_their_folders(tmp_path: Path, dataset: type[Dataset]) -> None:
    names = ["17/0/0.avi", "17/1/0.avi", "18/0/0.avi"]
    touch(*(tmp_path / "deep" / name for name in names))
    write(tmp_path, [f"/data/{name} {label}" for label, name in enumerate(names)])
    found = videos(dataset(tmp_path))
    assert [video.path for video in found] == [tmp_path / "deep" / name for name in names]
    assert [video.video_id for video in found] == ["17/0/0", "17/1/0", "18/0/0"]


def test_what_could_be_several_files_is_missing_and_said(tmp_path: Path) -> None:
    touch(tmp_path / "small" / "x.mp4", tmp_path / "large" / "x.mp4")
    write(tmp_path, ["x.mp4 0"])
    assert not videos(ssv2(tmp_path))[0].path.exists()
    assert "1 could be one of several files, and count as missing (x.mp4: large/x.mp4 and others)" in said(
        ssv2(tmp_path)
    )


def test_official_names_are_one_video_in_whatever_folder(tmp_path: Path) -> None:
    stem = "--07WQ2iBlw_000001_000011"
    touch(tmp_path / "val" / "abseiling" / "other.mp4", tmp_path / "val_256" / f"{stem}.mp4")
    write(tmp_path, [f"val/abseiling/{stem}.mp4 0"])
    [video] = videos(k400(tmp_path))
    assert (video.video_id, video.path) == (stem, tmp_path / "val_256" / f"{stem}.mp4")


@pytest.mark.parametrize("ending", [".mov", ".MOV", ".m4v", ".3gp", ".mpg", ".ts", ".m2ts"])
def test_endings_of_all_containers_that_are_read(tmp_path: Path, ending: str) -> None:
    touch(tmp_path / "val" / "archery" / f"a{ending}", tmp_path / "l" / "videos" / f"b{ending}")
    assert [video.video_id for video in videos(k400(tmp_path))] == ["a"]
    write(tmp_path / "l", [f"/elsewhere/b{ending} 1"])
    assert videos(ssv2(tmp_path / "l"))[0].path == tmp_path / "l" / "videos" / f"b{ending}"


@pytest.mark.parametrize("name", ["a.mov", "b.m4v", "c.ts", "d.3gp"])
def test_files_of_these_endings_decode(tmp_path: Path, name: str) -> None:
    from vpbench.data.video import decode

    assert decode(write_video(tmp_path / name), [0, 9], "pyav").max() > 150


def test_files_of_other_endings_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "val" / "archery"
    touch(folder / "a.mp4", folder / "b.wmv", folder / "c.wmv", folder / "d", folder / "notes.txt", folder / ".e.wmv")
    assert k400(tmp_path).contradictions("val") == [
        f"{tmp_path / 'val'}: 3 files with endings that are not read (.wmv 2, none 1); convert them to MP4"
    ]
    assert k400(tmp_path).problems("val") == {"with an ending that is not read": 3}


@BOTH
@pytest.mark.parametrize(
    "form", [r"val\{}.mp4", r"D:\data\val\{}.mp4", "D:/data/val/{}.mp4", r"\\nas\share\val\{}.mp4"]
)
def test_lists_of_windows(tmp_path: Path, dataset: type[Dataset], form: str) -> None:
    touch(*(tmp_path / "val" / f"{number}.mp4" for number in range(3)))
    write(tmp_path, [f"{form.format(number)} {number}\r" for number in range(3)])
    found = videos(dataset(tmp_path))
    assert [video.path for video in found] == [tmp_path / "val" / f"{number}.mp4" for number in range(3)]
    assert [video.video_id for video in found] == ["0", "1", "2"]
    assert "\\" not in form or r"3 paths are written with \, which is read as /" in said(dataset(tmp_path))


@BOTH
def test_capitals_do_not_count_on_windows(tmp_path: Path, dataset: type[Dataset]) -> None:
    touch(
        tmp_path / "val" / "Clip.mp4",
        tmp_path / "val" / "b.mp4",
        tmp_path / "val" / "B2.mp4",
        tmp_path / "x" / "b2.mp4",
    )
    write(tmp_path, [r"VAL\CLIP.MP4 0", r"Val\B.mp4 1", r"nowhere\B2.MP4 2"])
    assert [video.path.exists() and video.path.name for video in videos(dataset(tmp_path))] == [
        "Clip.mp4", "b.mp4", "B2.mp4",
    ]  # fmt: skip


def test_capitals_count_in_official_names(tmp_path: Path) -> None:
    touch(tmp_path / "val" / "--07wq2iblw_000001_000011.mp4")
    write(tmp_path, ["val/--07WQ2iBlw_000001_000011.mp4 0"])
    assert not videos(k400(tmp_path))[0].path.exists()


def test_a_backslash_in_a_name_is_taken_as_it_is(tmp_path: Path) -> None:
    touch(tmp_path / r"a\b.mp4")
    write(tmp_path, [r"a\b.mp4 0"])
    assert videos(ssv2(tmp_path))[0].path == tmp_path / r"a\b.mp4"
    assert said(ssv2(tmp_path)) == ""


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_ends_of_lines_of_other_systems(tmp_path: Path, encoding: str, end: str) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    text = f"a.mp4 0{end}{end}b.mp4 1{end}"
    content = b"\xff\xfe" + text.encode("utf-16-le") if encoding == "utf-16-le-mark" else text.encode(encoding)
    (tmp_path / "val.csv").write_bytes(content)
    assert [(video.path.name, video.path.exists()) for video in videos(k400(tmp_path))] == [
        ("a.mp4", True), ("b.mp4", True),
    ]  # fmt: skip


NAMES = (
    "Screen Recording 2024-05-02 at 3.14.15\u202fPM",
    "日本語\u3000クリップ",
    "a\u00a0b",
    "👩\u200d🚀",
    "café",
    "Ω",
)


@BOTH
@pytest.mark.parametrize("name", NAMES)
def test_blanks_and_signs_of_any_script(tmp_path: Path, dataset: type[Dataset], name: str) -> None:
    touch(tmp_path / "val" / f"{name}.mp4")
    write(tmp_path, [f"val/{name}.mp4 0"])
    [video] = videos(dataset(tmp_path))
    assert (video.path.exists(), video.video_id) == (True, name)
    assert dataset(tmp_path).contradictions(dataset(tmp_path).splits[0]) == []


@BOTH
@pytest.mark.parametrize(("disk", "listed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_composed_and_decomposed_names_are_the_same(
    tmp_path: Path, dataset: type[Dataset], disk: str, listed: str
) -> None:
    there = tmp_path / unicodedata.normalize(disk, "été") / unicodedata.normalize(disk, "café.mp4")  # type: ignore[arg-type]
    touch(there)
    write(tmp_path, [unicodedata.normalize(listed, "été/café.mp4 0")])  # type: ignore[arg-type]
    assert videos(dataset(tmp_path))[0].path == there


def test_blanks_that_look_alike_are_the_same(tmp_path: Path) -> None:
    touch(tmp_path / "at 3.14\u202fPM.mp4")
    write(tmp_path, ["at 3.14 PM.mp4 0"])
    assert videos(k400(tmp_path))[0].path.exists()


@pytest.mark.parametrize(("char", "named"), [("\x1b", "U+001B"), ("\u2028", "U+2028"), ("\x85", "U+0085")])
def test_control_characters_are_refused_by_name(tmp_path: Path, char: str, named: str) -> None:
    (tmp_path / "val.csv").write_text(f"val/a{char}b.mp4 0\n")
    done = vpbench("data", "check", "k400", "--root", tmp_path, "--quick")
    assert done.returncode == 2
    assert f"it holds the control character {named}" in done.stderr


def test_paths_below_the_root(tmp_path: Path) -> None:
    assert below(["./a/b.mp4", r"a\b.mp4", f"{tmp_path}/c/d.mp4"], tmp_path) == ["a/b.mp4", "a/b.mp4", "c/d.mp4"]
    assert below(["/x/y/a/1.mp4", "/x/y/b/1.mp4"], tmp_path) == ["a/1.mp4", "b/1.mp4"]
    assert below([r"E:\x\1.mp4"], tmp_path) == ["1.mp4"]
    assert parts_of(r"C:\a\..\b.mp4") == ("a", "..", "b.mp4")
    assert (same("a  b"), same("e\u0301"), loose("Air_Drumming!")) == ("a b", "é", "airdrumming")


@pytest.mark.parametrize("path", [r"..\x.mp4", r"val\..\..\x.mp4", r"a\.."])
def test_windows_paths_that_leave_the_root(tmp_path: Path, path: str) -> None:
    write(tmp_path, [f"{path} 0"])
    done = vpbench("data", "check", "k400", "--root", tmp_path, "--quick")
    assert (done.returncode, "leaves the folder" in done.stderr or "names no file" in done.stderr) == (2, True)


def test_one_file_named_in_two_ways(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    write(tmp_path, ["a.mp4 0", "./a.mp4 1", r".\a.mp4 0"])
    assert len(videos(k400(tmp_path))) == 1
    assert k400(tmp_path).problems("val") == {"listed twice with other labels": 1, "listed twice": 1}


def test_lists_with_a_column_of_frame_counts(tmp_path: Path) -> None:
    for name in ("a", "b 2"):
        touch(tmp_path / "rawframes" / name / "img_00001.jpg")
    files = VideoFiles(tmp_path)
    listing = listed_videos(tmp_path / "val.csv", "rawframes/a 1 0\nrawframes/b 2 1 5\n", files, 9)
    assert [(video.path, video.label) for video in listing.present] == [
        (tmp_path / "rawframes" / "a", 0), (tmp_path / "rawframes" / "b 2", 5),
    ]  # fmt: skip
    whole = listed_videos(tmp_path / "val.csv", "rawframes/b 2 5\n", VideoFiles(tmp_path), 9)
    assert [video.path.name for video in whole.present] == ["b 2"]
