"""Roots, `path label` lists, tables and the index of files, with input that means harm or is merely odd."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpbench.data.lists import files
from vpbench.data.lists.files import VideoFiles, words_of
from vpbench.data.lists.roots import given_root, needed_root
from vpbench.data.lists.text import find_list, has_header, path_labels, read_text, table, whole
from vpbench.data.lists.tree import stem_of
from vpbench.datasets.imagenet_vid import ImageNetVid
from vpbench.errors import UsageError

SOURCE = Path("val.csv")
PATHS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf", "Co", "Cn", "Zs")) | st.just(" "))


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_root_is_what_was_given_else_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VPBENCH_K400", raising=False)
    assert given_root("k400", None) is None
    with pytest.raises(UsageError, match=r"give --root or set VPBENCH_K400: a folder with val\.csv"):
        needed_root("k400", None, "a folder with val.csv")
    monkeypatch.setenv("VPBENCH_K400", str(tmp_path))
    assert given_root("k400", None) == tmp_path
    assert given_root("k400", Path("other")) == Path("other")
    with pytest.raises(UsageError, match="no such folder"):
        needed_root("k400", tmp_path / "missing", "a folder with val.csv")


def test_imagenet_vid_has_a_variable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VPBENCH_IMAGENET_VID", str(tmp_path))
    assert ImageNetVid().root == tmp_path
    monkeypatch.delenv("VPBENCH_IMAGENET_VID")
    with pytest.raises(UsageError, match="or set VPBENCH_IMAGENET_VID to it"):
        ImageNetVid().videos("val")


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("val/air drumming/x.mp4 3", "val/air drumming/x.mp4", 3),
        ("val/x.mp4,3", "val/x.mp4", 3),
        ("val/x.mp4, 3", "val/x.mp4", 3),
        ("val/a, b/x.mp4\t3", "val/a, b/x.mp4", 3),
        ('"val/air drumming/x.mp4" 3', "val/air drumming/x.mp4", 3),
        ("/data/k400/../val/x 2.mp4 399", "/data/k400/../val/x 2.mp4", 399),
        ("  ./x.mp4   0007  ", "./x.mp4", 7),
        ("12345 3", "12345", 3),
        ("été/x.mp4 3", "été/x.mp4", 3),
    ],
)
def test_path_and_label(line: str, path: str, label: int) -> None:
    assert path_labels(SOURCE, f"\n{line}\r\n\n") == [(2, path, label)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("val/x.mp4", "line 1: 'val/x.mp4' is no video"),
        ("val/x.mp4 -1", "is no video"),
        ("val/x.mp4 1.5", "is no video"),
        ("val/x.mp4 \u0661", "is no video"),
        ("val/x.mp4 12345678901", "is no video"),
        ("7", "is no video"),
        ("a" * 9000 + " 7", "is no video"),
        ("../x.mp4 7", r"leaves the folder of the dataset"),
        ("val/../../x.mp4 7", r"leaves the folder of the dataset"),
        (".. 7", "names no file"),
        ("/ 7", "names no file"),
        ("val/\x1b[31mx.mp4 7", "names no file"),
    ],
)
def test_lines_that_are_none(line: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        path_labels(SOURCE, line)


@given(PATHS, st.sampled_from([" ", ",", "\t", "  ", ", "]), st.integers(0, 10**9 - 1))
def test_any_path_is_read_back_or_refused(path: str, separator: str, label: int) -> None:
    try:
        found = path_labels(SOURCE, f"{path}{separator}{label}")
    except UsageError:
        return
    assert len(found) == 1
    assert found[0].label == label
    assert found[0].path == path.strip().rstrip(", ") or path.startswith('"')


@given(st.text(max_size=300))
def test_any_text_is_a_list_or_refused(text: str) -> None:
    assert "\n" not in refusal(lambda: path_labels(SOURCE, text))
    assert "\n" not in refusal(lambda: list(table(SOURCE, text, ("label", "id"))))


def refusal(read: Callable[[], object]) -> str:
    """What is said against an input; nothing if it is taken."""
    try:
        read()
    except UsageError as error:
        return str(error)
    return ""


def test_header_is_told_from_a_video() -> None:
    assert has_header('"label",youtube_id,time_start\n', "youtube_id")
    assert not has_header("val/youtube_id/x.mp4 3\n", "youtube_id")
    assert not has_header("", "youtube_id")


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    path = tmp_path / "val.csv"
    with pytest.raises(UsageError, match="no file"):
        read_text(path)
    os.mkfifo(path)
    with pytest.raises(UsageError, match="no file"):
        read_text(path)
    path.unlink()
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UsageError, match=r"not text in UTF-8 .*; save it as UTF-8"):
        read_text(path)
    path.write_bytes(b"a\0b")
    with pytest.raises(UsageError, match="binary"):
        read_text(path)
    with path.open("wb") as stream:
        stream.truncate(200_000_000)
    with pytest.raises(UsageError, match="200 MB, more than any list"):
        read_text(path)
    path.write_bytes("\ufeffa 1".encode())
    assert read_text(path) == "a 1"


def test_table_is_read_by_name() -> None:
    text = 'uid, b ,a\r\n0,"x, y",1\r\n\r\n1,"two\nlines",2\r\n'
    assert list(table(SOURCE, text, ("a", "b"))) == [(2, ["1", "x, y"]), (5, ["2", "two\nlines"])]
    with pytest.raises(UsageError, match=r"no column 'label'; did you mean 'labels'\?"):
        list(table(SOURCE, "labels,id\n", ("label",)))
    with pytest.raises(UsageError, match="no column 'label'"):
        list(table(SOURCE, "", ("label",)))
    with pytest.raises(UsageError, match="line 3: 1 columns instead of 2"):
        list(table(SOURCE, "a,b\n1,2\n1\n", ("a", "b")))
    with pytest.raises(UsageError, match="not a CSV table"):
        list(table(SOURCE, "a,b\n" + "1" * 200_000 + ",2\n", ("a", "b")))


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1e3", "nan", "\u0663", "1234567890", " 1"])
def test_whole_numbers_only(text: str) -> None:
    assert whole(SOURCE, 1, "label", "0042") == 42
    with pytest.raises(UsageError, match="line 3: label is"):
        whole(SOURCE, 3, "label", text)


def test_lists_are_found_by_name(tmp_path: Path) -> None:
    folders = [tmp_path, tmp_path / "annotations"]
    assert find_list(folders, ("val", "validate")) is None
    touch(tmp_path / "mini_val.csv", tmp_path / "val.json", tmp_path / "val_list_rawframes.txt")
    (tmp_path / "val.csv").mkdir()
    assert find_list(folders, ("val", "validate")) is None
    for name in ("annotations/kinetics_val.csv", "kinetics400_val_list_videos.txt", "validate.csv", "k400_val.csv"):
        touch(tmp_path / name)
        found = find_list(folders, ("val", "validate"))
        assert found is not None
        assert name == "validate.csv" or found == tmp_path / name
    assert find_list(folders, ("train",)) is None


def test_names_of_files_and_folders() -> None:
    assert stem_of("-_a_b_000001_000011.MP4") == "-_a_b_000001_000011"
    assert stem_of("a.b.webm") == "a.b"
    assert stem_of("a.b") == "a.b"
    assert words_of("val256") == {"val"}
    assert words_of("videos_val_256") == {"videos", "val"}


def test_listed_paths_are_looked_up_in_turn(tmp_path: Path) -> None:
    root, lists, far = tmp_path / "root", tmp_path / "root" / "lists", tmp_path / "far"
    touch(root / "val" / "a.mp4", lists / "val" / "b.mp4", root / "other" / "deep" / "c.webm", far / "d.mp4")
    found = VideoFiles(root)
    source = lists / "val.csv"
    assert found.listed("val/a.mp4", source) == (root / "val" / "a.mp4", True)
    assert found.listed("val/b.mp4", source) == (lists / "val" / "b.mp4", True)
    assert found.listed("/elsewhere/val/c.mp4", source) == (root / "other" / "deep" / "c.webm", True)
    assert found.listed(str(far / "d.mp4"), source) == (far / "d.mp4", True)
    assert found.listed("val/e.mp4", source) == (root / "val" / "e.mp4", False)
    assert found.listed("/elsewhere/e.mp4", source) == (Path("/elsewhere/e.mp4"), False)


def test_index_of_names(tmp_path: Path) -> None:
    touch(
        tmp_path / "val" / "a class" / "a.mp4", tmp_path / "val_256" / "a.mp4", tmp_path / "val" / "b.mkv",
        tmp_path / "replacement" / "for_corrupted" / "b.mp4", tmp_path / "train" / "c.mp4", tmp_path / "._d.mp4",
        tmp_path / "rawframes_val" / "e.mp4", tmp_path / "val" / "f.txt",
    )  # fmt: skip
    (tmp_path / "val" / "loop").symlink_to(tmp_path, target_is_directory=True)
    outside = tmp_path.parent / f"{tmp_path.name}_disk"
    touch(outside / "g.avi")
    (tmp_path / "linked").symlink_to(outside, target_is_directory=True)
    found = VideoFiles(tmp_path, {"train"})
    nowhere = Path("nowhere")
    assert found.named("a", nowhere).path == tmp_path / "val_256" / "a.mp4"  # nearer to the root
    assert found.named("b", nowhere).path == tmp_path / "replacement" / "for_corrupted" / "b.mp4"
    assert found.named("g", nowhere).path == tmp_path / "linked" / "g.avi"
    for missing in ("c", "._d", "d", "e", "f"):
        assert found.named(missing, nowhere) == (nowhere, False)


def test_index_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 3)
    touch(*(tmp_path / f"{number}.mp4" for number in range(5)))
    with pytest.raises(UsageError, match="more than 3 files; name the folder of the dataset itself"):
        VideoFiles(tmp_path).named("a", tmp_path)
