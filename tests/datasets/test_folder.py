"""Videos of one's own: class folders and lists in every form, the order of classes, splits, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from helpers import vpbench
from PIL import Image

from vpbench.data import Given, Seconds, Video, manifest_digest
from vpbench.datasets.folder import Folder
from vpbench.errors import UsageError
from vpbench.tasks.recognition.questions import questions


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)  # of unequal content


def frames(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 4):
            Image.new("RGB", (8, 8)).save(folder / f"img_{number:05d}.jpg")


def facts(videos: Sequence[Video]) -> list[tuple[str, int]]:
    return [(video.video_id, video.label) for video in videos]


def opened(
    root: Path | None,
    split: str | None = None,
    *,
    names: Callable[[], Sequence[str]] = tuple,
    list: Path | None = None,
    classes: Path | None = None,
) -> Folder:
    return Folder.opened(root, Given(list, classes, names, split))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "run/b.mp4", "run/a.MOV", "jump/deep/er/c.mkv", "jump/.hidden.mp4", "notes.txt")
    frames(tmp_path / "jump" / "d")
    folder = opened(tmp_path)
    assert (folder.classes, folder.splits, folder.default_split(False)) == (("jump", "run"), ("all", "rest"), "all")
    assert facts(folder.videos("all")) == [("d", 0), ("c", 0), ("a", 1), ("b", 1)]
    assert all(video.path.exists() for video in folder.videos("all"))
    assert folder.problems("all") == {}


def test_ids_are_paths_where_names_come_twice(tmp_path: Path) -> None:
    touch(tmp_path, "run/1.mp4", "jump/1.mp4", "jump/2.mp4")
    assert facts(opened(tmp_path).videos("all")) == [("jump/1", 0), ("2", 0), ("run/1", 1)]


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "train/jump/b.mp4", "val/run/c.mp4", "val/jump/x/d.mp4", "test/run/e.mp4")
    folder = opened(tmp_path)
    assert (folder.splits, folder.default_split(True)) == (("val", "test", "train"), "val")
    assert facts(folder.videos("val")) == [("d", 0), ("c", 1)]
    assert facts(folder.videos("test")) == [("e", 1)]
    assert "1 classes have no video in this split (jump)" in folder.remarks("test")
    assert sorted(video.video_id for video in folder.calibration()) == ["a", "b"]
    with pytest.raises(UsageError, match="split train is evaluated, and cannot be calibrated on"):
        opened(tmp_path, "train").calibration()
    with pytest.raises(UsageError, match=r"folder has no split 'vall'; did you mean 'val'\?"):
        folder.videos("vall")


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    touch(tmp_path, "bus/a.mp4", "train/b.mp4")
    assert opened(tmp_path).classes == ("bus", "train")


def test_a_share_is_held_back_where_there_is_no_split_to_train_on(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{number}_{name}.mp4" for name in ("run", "jump") for number in range(10)))
    folder = opened(tmp_path, "rest")
    share, rest, whole = folder.calibration(), folder.videos("rest"), folder.videos("all")
    assert (len(share), len(rest), len(whole)) == (4, 16, 20)
    assert {v.video_id for v in share} | {v.video_id for v in rest} == {v.video_id for v in whole}
    assert not {v.video_id for v in share} & {v.video_id for v in rest}
    assert share == opened(tmp_path, "rest").calibration()
    assert (folder.default_split(False), folder.default_split(True)) == ("all", "rest")
    for split in ("all", None):
        with pytest.raises(UsageError, match=r"no split to train on.* give --split rest, which holds back a share"):
            opened(tmp_path, split).calibration()
    touch(tmp_path, "run/new.mp4")
    assert len({v.video_id for v in share} & {v.video_id for v in opened(tmp_path, "rest").calibration()}) >= 3


def test_three_videos_are_too_few_to_hold_two_back_for_ever(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    with pytest.raises(UsageError, match="2 videos are too few to hold some back; use --split all"):
        opened(tmp_path).videos("rest")


LISTS = {
    "blanks": "vids/a.mp4 1\nvids/b.mp4 0\n",
    "names": "vids/a.mp4 run\nvids/b.mp4 jump\n",
    "table": "label,path,class\r\n1,vids/a.mp4,run\r\n0,vids/b.mp4,jump\r\n",
    "other endings": "vids/a.avi 1\nvids/b.mkv 0\n",
    "no endings": "video\tlabel\na\trun\nb\tjump\n",
    "windows": "C:\\x\\vids\\a.mp4,1\r\nC:\\x\\vids\\b.mp4,0\r\n",
}


@pytest.mark.parametrize("form", LISTS)
def test_lists(tmp_path: Path, form: str) -> None:
    touch(tmp_path, "vids/a.mp4", "vids/b.mp4")
    folder = opened(tmp_path, list=write(tmp_path / "list.csv", LISTS[form]))
    assert facts(folder.videos("all")) == [("a", 1), ("b", 0)]
    assert all(video.path.is_file() for video in folder.videos("all"))
    named = LISTS[form].find("run") > 0
    assert folder.classes == (("jump", "run") if named else ("0", "1"))


def test_a_list_elsewhere_and_one_without_a_root(tmp_path: Path) -> None:
    touch(tmp_path / "data", "vids/a.mp4")
    text = "vids/a.mp4 run\n"
    away, beside = write(tmp_path / "lists" / "l.txt", text), write(tmp_path / "data" / "l.txt", text)
    for folder in (opened(tmp_path / "data", list=away), opened(None, list=beside)):
        assert [video.path for video in folder.videos("all")] == [tmp_path / "data" / "vids" / "a.mp4"]


def test_parts_of_videos(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    folder = opened(tmp_path, list=write(tmp_path / "l.csv", "a.mp4 0 2 0\na.mp4 2 4.5 1\na.mp4 2 4.5 0\n"))
    assert [(video.video_id, video.part) for video in folder.videos("all")] == [
        ("a@0-2", Seconds(0, 2)), ("a@2-4.5", Seconds(2, 4.5)),
    ]  # fmt: skip
    assert folder.problems("all") == {"listed twice with other labels": 1}


def test_folders_of_frames_in_lists(tmp_path: Path) -> None:
    frames(tmp_path / "rawframes" / "x" / "a", tmp_path / "rawframes" / "x" / "b")
    folder = opened(tmp_path, list=write(tmp_path / "l.txt", "x/a 3 0\nx/b 3 1\n"))
    assert [video.path for video in folder.videos("all")] == [tmp_path / "rawframes" / "x" / name for name in "ab"]
    with pytest.raises(UsageError, match="is a folder of frames, which has no seconds"):
        opened(tmp_path, list=write(tmp_path / "l.txt", "rawframes/x/a 0 1.5 0\n"))


def test_splits_in_a_column_and_a_list_to_train_on(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    text = "path,label,split\na.mp4,run,train\nb.mp4,run,val\nc.mp4,jump,val\n"
    folder = opened(tmp_path, list=write(tmp_path / "list.csv", text))
    assert (folder.splits, facts(folder.videos("val"))) == (("val", "train"), [("b", 1), ("c", 0)])
    assert [video.video_id for video in folder.calibration()] == ["a"]
    write(tmp_path / "train.csv", "a.mp4 0\n")
    write(tmp_path / "train.csv", "a.mp4 0\nb.mp4 0\n")  # b is evaluated, too
    beside = opened(tmp_path, list=write(tmp_path / "val.csv", "b.mp4 0\nc.mp4 1\n"))
    assert (beside.splits, beside.default_split(True)) == (("all",), "all")
    assert [video.video_id for video in beside.calibration()] == ["a"]
    with pytest.raises(UsageError, match="line 3: no split, though other lines have one"):
        opened(tmp_path, list=write(tmp_path / "list.csv", "path,label,split\na.mp4,run,train\nb.mp4,run,\n"))


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("nested", [False, True])
def test_metadata_of_hugging_face_folders(tmp_path: Path, name: str, nested: bool) -> None:
    touch(tmp_path, "train/a.mp4", "validation/b.mp4")
    for split, video, label in (("train", "a", "run"), ("validation", "b", "jump")):
        file, path = (tmp_path / split / name, video) if nested else (tmp_path / name, f"{split}/{video}")
        row = {"file_name": f"{path}.mp4", "label": label}
        text = json.dumps(row) + "\n" if name.endswith("l") else f"{path}.mp4,{label}\n"
        before = file.read_text() if file.exists() else "" if name.endswith("l") else "file_name,label\n"
        write(file, before + text)
    folder = opened(tmp_path)
    assert (folder.splits, folder.classes) == (("validation", "train"), ("jump", "run"))
    assert facts(folder.videos("validation")) == [("b", 0)]


def test_videos_that_metadata_leave_out_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "jump/a.mp4", "jump/b.mp4", "run/c.mp4")
    frames(tmp_path / "run" / "d")
    (tmp_path / "again").symlink_to(tmp_path / "jump", target_is_directory=True)
    write(tmp_path / "metadata.csv", "file_name,label\njump/a.mp4,jump\nagain/b.mp4,jump\n")
    folder = opened(tmp_path)
    assert facts(folder.videos("all")) == [("a", 0), ("b", 0)]
    assert folder.remarks("all") == ["2 in no line of the metadata (run/c.mp4, run/d)"]
    assert folder.problems("all") == {}


CLASSES = [
    "run\njump\nair_drumming\n",
    "\ufeffrun\r\njump\r\nair_drumming",
    "0 run\n1 jump\n2 air_drumming\n",
    "1 run\n3 air_drumming\n2 jump\n",
    "id,name\n0,run\n1,jump\n2,air_drumming\n",
    "run,0\njump,1\nair_drumming,2\n",
    '["run", "jump", "air_drumming"]',
    '{"0": "run", "2": "air_drumming", "1": "jump"}',
    '{"run": 0, "air_drumming": 2, "jump": 1}',
    '{"id2label": {"0": "run", "1": "jump", "2": "air_drumming"}}',
]


@pytest.mark.parametrize("text", CLASSES)
def test_classes_of_a_file(tmp_path: Path, text: str) -> None:
    touch(tmp_path / "v", "Air Drumming/a.mp4", "run/b.mp4")
    folder = opened(tmp_path / "v", classes=write(tmp_path / "classes.txt", text))
    assert folder.classes == ("run", "jump", "air_drumming")
    assert facts(folder.videos("all")) == [("a", 2), ("b", 0)]
    assert "1 classes have no video in this split (jump)" in folder.remarks("all")


def test_classes_of_the_weights(tmp_path: Path) -> None:
    touch(tmp_path, "run/b.mp4", "jump/a.mp4")
    folder = opened(tmp_path, names=lambda: ("run", "sit", "jump"))
    assert (folder.classes, facts(folder.videos("all"))) == (("run", "sit", "jump"), [("a", 2), ("b", 0)])
    numbers = opened(tmp_path, names=lambda: ("run", "sit", "jump"), list=write(tmp_path / "l", "run/b.mp4 2\n"))
    assert facts(numbers.videos("all")) == [("b", 2)]


WRONG: list[tuple[dict[str, str], tuple[str, ...], str]] = [
    ({"run/a.mp4": "", "jmp/b.mp4": ""}, ("run", "jump"), r"1 of 2 classes of the videos \('jmp'\) are none of the 2 "
     r"of the weights \('run', 'jump'\): did you mean 'jump'\?; rename them, or give --classes FILE"),
    ({"run/a.mp4": "", "jump/.keep": ""}, (), "jump: an empty class .there is nothing in it.; put videos into"),
    ({"run/a.mp4": "", "jump/b.flv": ""}, (), r"jump: an empty class .there is \.flv in it"),
    ({"a.mp4": "", "b.mp4": ""}, (), "no class folders, but 2 videos side by side; put them into root/<class>/"),
    ({"a.mp4": "", "val.csv": "a.mp4 0"}, (), r"side by side; give --list .*val\.csv"),
    ({"a.wmv": "", "run/b.wmv": ""}, (), r"no videos in it; files with endings that are not read: \.wmv 2; convert"),
    ({"train/run/a.mp4": "", "jump/b.mp4": ""}, (), "train looks like a split and jump like a class; give the --root"),
    ({"train/a.mp4": "", "val/b.mp4": ""}, (), "train, val look like splits, but their videos lie in no"),
    ({"2/a.mp4": "", "10/b.mp4": ""}, (), "class folders are numbers .'10', '2'., whose order as text is"),
    ({"run/00001.jpg": "", "run/00002.jpg": ""}, (), "pictures of no video; frames are to lie in a folder for"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "names", "says"), WRONG)
def test_folders_that_make_no_sense(tmp_path: Path, files: dict[str, str], names: tuple[str, ...], says: str) -> None:
    root = tmp_path / "root"
    for name, text in files.items():
        write(root / name, text)
    with pytest.raises(UsageError, match=says) as caught:
        opened(root, names=lambda: names).videos("all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "classes", "names", "says"),
    [
        ("a.mp4 0\nb.mp4 run\n", None, (), r"line 2: label 'run' is a name, that of .* line 1 a number \(0\)"),
        ("a.mp4 0\nb.mp4 2\n", None, ("run", "jump"), "line 2: label 2 is outside 0 to 1, the classes of the weights"),
        ("a.mp4 0\nb.mp4 run\n", "run\njump\n", (), "line 2: label 'run' is a name"),
        ("a.mp4 run\n", "run\njump\n", ("run", "jump", "sit"), r"2 classes \('run', 'jump'\), but the weights name 3"),
        ("a.mp4 run\n", "jump\nrun\n", ("run", "jump"), "class 0 is 'jump', but 'run' in the weights"),
        ("a.mp4 run\n", "run\nrun\n", (), "'run' comes twice"),
        ("a.mp4 run\n", "\n", (), "no names in it"),
        ("a.mp4 run\n", "{", (), "not a list of names, nor a table"),
        ("a.mp4 run\n", '{"0": "run", "2": "jump"}', (), "not numbered from 0 to 1"),
        ("path,label,class\na.mp4,0,run\nb.mp4,0,jump\n", None, (), "line 3: class 0 is 'jump', but 'run' in .* 2;"),
        ("path,label,class\na.mp4,0,run\nb.mp4,1,run\n", None, (), "line 3: 'run' is class 1, but 0 in"),
        ("path,label,class\na.mp4,0,run\n", None, ("jump", "run"), "'run' has number 0 in the list, but 1 in"),
    ],
)  # fmt: skip
def test_lists_and_classes_that_disagree(
    tmp_path: Path, text: str, classes: str | None, names: tuple[str, ...], says: str
) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    file = None if classes is None else write(tmp_path / "c.txt", classes)
    with pytest.raises(UsageError, match=says) as caught:
        opened(tmp_path, names=lambda: names, list=write(tmp_path / "l.csv", text), classes=file)
    assert "\n" not in str(caught.value)


def test_names_of_classes_may_be_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    source, names = write(tmp_path / "l", "a.mp4 7\nb.mp4 run\n"), write(tmp_path / "c", "run\n7\n")
    assert facts(opened(tmp_path, list=source, classes=names).videos("all")) == [("a", 1), ("b", 0)]


def test_labels_that_are_counted_from_1(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    folder = opened(tmp_path, list=write(tmp_path / "l", "a.mp4 1\nb.mp4 2\n"))
    with pytest.raises(
        UsageError, match=r"2 classes, but the dataset has 3 \(0, 1, 2\); labels are counted from 0, and"
    ):
        questions(folder, 2)


def test_any_depth_of_folders(tmp_path: Path) -> None:
    touch(tmp_path, "run/" + "x/" * 20 + "a.mp4")
    assert facts(opened(tmp_path).videos("all")) == [("a", 0)]


def test_duplicates_endings_and_folders_of_other_classes_are_counted(tmp_path: Path) -> None:
    touch(
        tmp_path, "run/a.mp4", "run/b.mp4", "jump/c.mp4", "jump/d.mp4", "jump/e.flv", "run/f", "docs/readme.md", "g.mp4"
    )
    (tmp_path / "jump" / "d.mp4").write_bytes((tmp_path / "run" / "b.mp4").read_bytes())
    folder = opened(tmp_path)
    assert folder.problems("all") == {
        "with an ending that is not read": 2, "in no class folder": 1,
        "with the content of another, but another label": 2,
    }  # fmt: skip
    assert folder.remarks("all") == [f"1 folders hold no videos and are no classes ({tmp_path / 'docs'})"]
    text = "run/a.mp4 jump\nrun/b.mp4 run\n./run/b.mp4 run\n"
    listed = opened(tmp_path, list=write(tmp_path / "l.csv", text))
    assert listed.problems("all") == {"listed twice": 1, "in the folder of another class": 1}


def test_nothing_outside_of_the_root_is_read(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret" / "a.mp4"
    touch(root, "b.mp4")
    touch(tmp_path, "secret/a.mp4", "lists/c.mp4")
    text = f"{secret} 0\n{root / 'b.mp4'} 0\nc.mp4 0\n{root}/../secret/a.mp4 0\n"
    folder = opened(root, list=write(tmp_path / "lists" / "l.csv", text))
    found = folder.videos("all")
    assert [video.path.exists() for video in found] == [False, True, False, False]
    assert all(video.path.is_relative_to(root) for video in found)
    assert any("lie outside of" in line and "--root / allows it" in line for line in folder.remarks("all"))
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "elsewhere" / "deep", target_is_directory=True)
    touch(tmp_path / "elsewhere", "d.mp4")
    behind = write(tmp_path / "lists" / "m.csv", f"{root}/link/../d.mp4 0\n")
    assert not opened(root, list=behind).videos("all")[0].path.exists()
    outside = write(tmp_path / "lists" / "n.csv", f"{secret.parent} 1 0\n{secret.parent} 2 0\n")
    assert [video.path.exists() for video in opened(root, list=outside).videos("all")] == [False]
    whole = opened(Path("/"), list=write(tmp_path / "lists" / "l.csv", f"{secret} 0\n"))
    assert whole.videos("all")[0].path == secret


def test_lists_do_not_change_with_the_place_of_the_videos(tmp_path: Path) -> None:
    digests = set()
    for name in ("here", "there"):
        touch(tmp_path / name, "run/1.mp4", "jump/1.mp4", "jump/2.mp4")
        digests.add(manifest_digest(opened(tmp_path / name).videos("all")))
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("folder",), "give --root or set VPBENCH_FOLDER"),
        (("folder", "--root", "vidoes"), "or VPBENCH_FOLDER names it; did you mean 'videos'?"),
        (("folder", "--root", "videos", "--list", "none.csv"), "none.csv: no file; give a list"),
        (("k400", "--root", "videos", "--list", "l.csv"), "--list: for videos of your own (--dataset folder)"),
        (("imagenet_vid", "--root", "videos", "--classes", "l.csv"), "leave --list and --classes out"),
    ],
)  # fmt: skip
def test_wrong_requests_are_one_line(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    touch(tmp_path / "videos", "run/a.mp4")
    done = vpbench("data", "check", *arguments, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert says in done.stderr


def test_metadata_without_labels_leave_the_classes_to_the_folders(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "jump/b.mp4")
    write(tmp_path / "metadata.csv", "file_name,caption\nrun/a.mp4,someone runs\n")
    folder = opened(tmp_path)
    assert facts(folder.videos("all")) == [("b", 0), ("a", 1)]
    assert "1 lists without labels beside the folders" in folder.remarks("all")[0]


def test_folders_that_are_one_class_of_the_weights_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "jump/a.mp4", "Jump/b.mp4", "Jump/c.mp4", "run/d.mp4")
    folder = opened(tmp_path, names=lambda: ("jump", "run"))
    assert facts(folder.videos("all")) == [("b", 0), ("c", 0), ("a", 0), ("d", 1)]
    assert folder.problems("all") == {"of a class that is spelled in several ways": 3}
    assert folder.contradictions("all") == [
        "'Jump' (2 videos), 'jump' (1 video): all are class 0 (jump) of the weights; give them one name, or each an "
        "output of its own"
    ]
    apart = opened(tmp_path, names=lambda: ("Jump", "jump", "run"))
    assert facts(apart.videos("all")) == [("b", 0), ("c", 0), ("a", 1), ("d", 2)]
    assert opened(tmp_path).problems("all") == apart.problems("all") == {}


def test_splits_may_spell_a_class_each_in_its_way(tmp_path: Path) -> None:
    touch(tmp_path, "val/jump/a.mp4", "val/run/b.mp4", "train/Jump/c.mp4", "train/run/d.mp4")
    folder = opened(tmp_path, names=lambda: ("jump", "run"))
    assert folder.problems("val") == folder.problems("train") == {}
