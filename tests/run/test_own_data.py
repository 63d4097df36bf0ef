"""From twelve videos of one's own and a checkpoint to a table, in one command; what cannot be is one line."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from pathlib import Path

import av
import pandas as pd
import pytest
import torch
from conftest import TINY
from helpers import add_backbone, vpbench
from PIL import Image
from tiny_videos import write_video

from vpbench.backbones import loading
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.rows.store import Store

pytestmark = pytest.mark.usefixtures("hasty", "unweighed", "tiny_backbone")
CLASSES = ("lift", "put down")
RUN = ("run", "--dataset", "folder", "--backbone", "own_tiny", "--protocol", "single", "--method", "rlt",
       "--profile", "ci", "--threads", "1", "--out", "out")  # fmt: skip


@pytest.fixture
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    add_backbone(monkeypatch, "own_tiny", dataclasses.replace(TINY, classes=2))


def weights(path: Path, classes: int = 2, **more: object) -> Path:
    """Write a checkpoint as its authors' code saves it."""
    torch.manual_seed(0)
    model = VideoMAE(dataclasses.replace(TINY, classes=classes))
    torch.save({"model": model.state_dict(), **more}, path)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with six short videos in each of two class folders, numbered anew in each."""
    root = tmp_path_factory.mktemp("own") / "my_videos"
    for label, name in enumerate(CLASSES):
        for number in range(6):
            write_video(root / name / f"{number}.mp4", seed=6 * label + number)
    return root


def table(folder: Path) -> pd.DataFrame:
    return Store(folder / "out").read("results").set_index("method")


def shown(folder: Path, out: str, split: str, count: int) -> None:
    """Assert that a table with accuracy, operations and time was printed, and rests on so many videos."""
    found = table(folder)
    assert set(found.index) == {"dense", "random", "rlt"}
    assert (found["n_videos"] == count).all()
    assert (found["status"] == "ok").all()
    assert set(found["split"]) == {split}
    assert found[["top1", "gmacs_executed", "wall_ms_p50"]].notna().all(axis=None)
    assert all(word in out for word in ("top-1", "GMACs", "ms/clip", f"{count} videos, 1 view each (single)"))


def test_class_folders(videos: Path, tmp_path: Path) -> None:
    done = vpbench(*RUN, "--root", videos, "--weights", weights(tmp_path / "my.pth"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown(tmp_path, done.stdout, "all", 12)
    seen = Store(tmp_path / "out").read("videos")
    assert set(seen["video_id"]) == {f"{name}/{number}" for name in CLASSES for number in range(6)}
    assert dict(zip(seen["video_id"], seen["label"], strict=True))["put down/3"] == 1
    again = vpbench(*RUN, "--root", videos, "--weights", tmp_path / "my.pth", cwd=tmp_path)
    assert "nothing to measure: all 3 cells" in again.stdout
    before, accuracy = table(tmp_path), list(table(tmp_path)["top1"])
    manifest = next((tmp_path / "out" / "plans").iterdir())
    manifest.write_text(manifest.read_text().replace(str(videos), str(tmp_path / "gone")))
    assert vpbench("finish", "--out", "out", cwd=tmp_path).returncode == 0  # without the videos
    assert (list(table(tmp_path)["top1"]), list(table(tmp_path)["status"])) == (accuracy, list(before["status"]))


def test_a_list_gives_the_same_numbers(videos: Path, tmp_path: Path) -> None:
    model = weights(tmp_path / "my.pth")
    for part, names in (("folders", None), ("numbers", ("0", "1")), ("names", CLASSES)):
        (tmp_path / part).mkdir()
        lines = "" if names is None else "".join(
            f"{name}/{number}.mp4,{label}\n" for name, label in zip(CLASSES, names, strict=True) for number in range(6)
        )  # fmt: skip
        (tmp_path / part / "list.csv").write_text(lines)
        more = () if names is None else ("--list", "list.csv")
        done = vpbench(*RUN, "--root", videos, "--weights", model, *more, cwd=tmp_path / part)
        assert done.returncode == 0, done.stderr
        shown(tmp_path / part, done.stdout, "all", 12)
    ids = [set(table(tmp_path / part)["prediction_id"]) for part in ("folders", "numbers", "names")]
    assert ids[0] == ids[1] == ids[2]


def test_folders_of_frames(videos: Path, tmp_path: Path) -> None:
    for path in videos.glob("*/*.mp4"):
        folder = tmp_path / "frames" / path.parent.name / path.stem
        folder.mkdir(parents=True)
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0), start=1):
                Image.fromarray(frame.to_ndarray(format="rgb24")).save(folder / f"img_{number:05d}.png")
    model = weights(tmp_path / "my.pth")
    done = vpbench(*RUN, "--root", "frames", "--weights", model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown(tmp_path, done.stdout, "all", 12)
    lines = "".join(f"frames/{name}/{n} 24 {label}\n" for label, name in enumerate(CLASSES) for n in range(6))
    (tmp_path / "list.txt").write_text(lines)
    listed = vpbench(*RUN, "--list", "list.txt", "--weights", model, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    shown(tmp_path, listed.stdout, "all", 12)


def test_a_share_is_calibrated_on_and_not_evaluated(videos: Path, tmp_path: Path) -> None:
    arguments = ("--root", videos, "--weights", weights(tmp_path / "my.pth"), "--keep", "0.5")
    done = vpbench(*RUN, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown(tmp_path, done.stdout, "rest", 10)
    whole = vpbench(*RUN, *arguments, "--split", "all", cwd=tmp_path)
    assert whole.returncode == 1
    assert "rlt keep=0.5: refused: there is no split to train on" in whole.stderr


def test_classes_of_the_checkpoint(videos: Path, tmp_path: Path) -> None:
    model = weights(tmp_path / "my.pth", id2label={0: "put down", 1: "lift"})
    done = vpbench(*RUN, "--root", videos, "--weights", model, "--only", "predict", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seen = Store(tmp_path / "out").read("videos")
    assert {name.split("/")[0]: label for name, label in zip(seen["video_id"], seen["label"], strict=True)} == {
        "lift": 1, "put down": 0,
    }  # fmt: skip


def test_contradictions_are_said_before_and_below(videos: Path, tmp_path: Path) -> None:
    lines = [f"{name}/{number}.mp4 {1 - label}" for label, name in enumerate(CLASSES) for number in range(6)]
    (tmp_path / "classes.txt").write_text("lift\nput down\n")
    (tmp_path / "list.csv").write_text("\n".join([*lines, lines[0]]))
    arguments = ("--list", "list.csv", "--classes", "classes.txt", "--root", videos)
    model = weights(tmp_path / "my.pth")
    done = vpbench(*RUN, *arguments, "--weights", model, "--only", "predict", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    odd = "1 listed twice, 12 in the folder of another class"
    assert f"folder all, 12 videos: {odd}; `vpbench data check folder --root" in done.stderr.splitlines()[0]
    for said in (done.stderr.splitlines()[0], next(line for line in done.stdout.splitlines() if "  data: " in line)):
        assert odd in said
        checked = vpbench(*advised(said), "--quick", cwd=tmp_path)
        assert (checked.returncode, checked.stdout.count("contradictory: ")) == (1, 13)


def advised(line: str) -> list[str]:
    """Return the words behind `vpbench` of the command that a line advises."""
    return shlex.split(line.split("`")[1])[1:]


def test_what_the_names_of_a_checkpoint_contradict_is_named_by_the_command_that_is_advised(
    videos: Path, tmp_path: Path
) -> None:
    lines = [f"{name}/{number}.mp4 {1 - label}" for label, name in enumerate(CLASSES) for number in range(6)]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    model = weights(tmp_path / "my weights.pth", id2label=dict(enumerate(CLASSES)))
    done = vpbench(
        *RUN, "--root", videos, "--list", "list.csv", "--weights", model.name, "--only", "predict", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for said in (done.stderr.splitlines()[0], next(line for line in done.stdout.splitlines() if "  data: " in line)):
        assert "12 in the folder of another class" in said
        checked = vpbench(*advised(said), cwd=tmp_path)
        assert (checked.returncode, checked.stdout.count("lies in the folder of class")) == (1, 12), checked.stderr


def test_a_table_says_that_a_configuration_may_name_the_data(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("lift/0.mp4 0\nlift/0.mp4 0\nput down/0.mp4 1\n")
    weights(tmp_path / "my.pth")
    (tmp_path / "own.toml").write_text('list = "list.csv"\nweights = "my.pth"\n')
    done = vpbench(*RUN, "--config", "own.toml", f"--root={videos}", "--only", "predict", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    command = f"vpbench data check folder --root {videos} --split all"
    assert f"data: 1 listed twice; `{command}` (add what the --config of the run says of the data) names" in done.stdout


def test_notes_are_named_by_the_command_that_is_advised(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("".join(f"lift/{number}.mp4 0\n" for number in range(6)))
    model = weights(tmp_path / "my.pth", id2label=dict(enumerate(CLASSES)))
    done = vpbench(*RUN, "--root", videos, "--list", "list.csv", "--weights", model, "--only", "predict", cwd=tmp_path)
    assert "folder all, 6 videos: 1 note; `vpbench data check" in done.stderr.splitlines()[0]
    checked = vpbench(*advised(done.stderr.splitlines()[0]), cwd=tmp_path)
    assert (checked.returncode, checked.stdout.count("note: ")) == (0, 1), checked.stderr
    assert "note: 1 classes have no video in this split (put down)" in checked.stdout
    assert f"--weights {model} --split all" in checked.stdout


def test_a_check_compares_the_outputs_of_weights_as_run_does(videos: Path, tmp_path: Path) -> None:
    arguments = ("data", "check", "folder", "--quick", "--root", videos)
    done = vpbench(*arguments, "--weights", weights(tmp_path / "five.pth", 5))
    assert done.returncode == 2
    assert "five.pth on folder: 5 classes, but the dataset has 2 (lift, put down); give weights" in done.stderr
    named = vpbench(*arguments, "--weights", "random")
    assert (named.returncode, "these name no classes" in named.stderr) == (2, True)
    nowhere = vpbench("data", "check", "folder", "--weights", tmp_path / "five.pth", cwd=tmp_path)
    assert (nowhere.returncode, "give --root or set VPBENCH_FOLDER" in nowhere.stderr) == (2, True)
    lone = vpbench(*arguments, "--weights-key", "model")
    assert (lone.returncode, "give that file with --weights" in lone.stderr) == (2, True)


@pytest.mark.parametrize("out", ["my_videos", "my_videos/../my_videos", "link"])
def test_results_do_not_go_among_the_videos(videos: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "link").symlink_to(videos, target_is_directory=True)
    before = sorted(videos.rglob("*"))
    given = videos.parent / out if out.startswith("my") else tmp_path / out
    command = ("run", "--dataset", "folder", "--method", "rlt", "--root", videos, "--out", given)
    for more in ((), ("--dry-run",)):
        done = vpbench(*command, *more)
        assert (done.returncode, done.stdout) == (2, "")
        wrong = f"--out {given} is --root {videos}, where nothing is written; name a folder of its own"
        assert done.stderr == f"error: {wrong}\n"
    assert sorted(videos.rglob("*")) == before


def test_results_below_the_videos_are_no_class_and_no_frames(videos: Path, tmp_path: Path) -> None:
    for name in CLASSES:
        shutil.copytree(videos / name, tmp_path / name)
    given = ("--root", ".", "--weights", weights(tmp_path / "my.pth"))
    done = vpbench(*RUN, *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown(tmp_path, done.stdout, "all", 12)
    assert vpbench("plot", "out", "--figure", "pareto", "--format", "png", cwd=tmp_path).returncode == 0
    (tmp_path / "out" / "figures" / "frame_0001.png").write_bytes(b"")
    assert "nothing to measure: all 3 cells" in vpbench(*RUN, *given, cwd=tmp_path).stdout
    assert "all there" in vpbench("data", "check", "folder", "--root", ".", "--quick", cwd=tmp_path).stdout


def other_classes(root: Path, folder: Path) -> tuple[str | Path, ...]:
    return ("--root", root, "--weights", weights(folder / "five.pth", 5))


def other_names(root: Path, folder: Path) -> tuple[str | Path, ...]:
    return ("--root", root, "--weights", weights(folder / "my.pth", id2label={0: "lift", 1: "put_dwn"}))


def other_list(root: Path, folder: Path) -> tuple[str | Path, ...]:
    (folder / "list.csv").write_text("abseiling/x.mp4 0\nzumba/y.mp4 1\n")
    return ("--root", root, "--list", "list.csv", "--weights", weights(folder / "my.pth"))


def odd_frames(root: Path, folder: Path) -> tuple[str | Path, ...]:
    return ("--root", root, "--weights", weights(folder / "my.pth"), "--frames", "7")


def odd_size(root: Path, folder: Path) -> tuple[str | Path, ...]:
    return ("--root", root, "--weights", weights(folder / "my.pth"), "--size", "50")


def odd_mode(root: Path, folder: Path) -> tuple[str | Path, ...]:
    return ("--root", root, "--weights", weights(folder / "my.pth"), "--stages", "--mode", "eager,compile")


def lost_tensor(root: Path, folder: Path) -> tuple[str | Path, ...]:
    saved = torch.load(weights(folder / "my.pth"), weights_only=True)
    del saved["model"]["blocks.0.mlp.fc2.bias"]
    torch.save(saved, folder / "my.pth")
    return ("--root", root, "--weights", folder / "my.pth")


def mixed_labels(root: Path, folder: Path) -> tuple[str | Path, ...]:
    (folder / "list.csv").write_text("lift/0.mp4 0\nlift/1.mp4 lift\n")
    return ("--root", root, "--list", "list.csv", "--weights", weights(folder / "my.pth"))


def mistyped_root(root: Path, folder: Path) -> tuple[str | Path, ...]:
    return ("--root", root.with_name("my_vidoes"), "--weights", weights(folder / "my.pth"))


def empty_class(root: Path, folder: Path) -> tuple[str | Path, ...]:
    (folder / "v" / "throw").mkdir(parents=True)
    (folder / "v" / "lift").symlink_to(root / "lift", target_is_directory=True)
    return ("--root", "v", "--weights", weights(folder / "my.pth"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (other_classes, "5 classes, but the dataset has 2 (lift, put down); give weights with as many outputs, or"),
        (other_names, "('put down') are none of the 2 of the weights ('lift', 'put_dwn'): did you mean 'put_dwn'?"),
        (other_list, "none of the 2 listed videos is in"),
        (mixed_labels, "line 2: label 'lift' is a name, that of list.csv line 1 a number (0)"),
        (mistyped_root, "did you mean 'my_videos'?"),
        (odd_frames, "7x32x32 frames cannot be cut into tubelets"),
        (odd_size, "16x50x50 frames cannot be cut into tubelets"),
        (odd_mode, "in mode compile stages run into each other"),
        (lost_tensor, "do not fit: tensors 1 missing (blocks.0.mlp.fc2.bias)"),
        (empty_class, "v/throw: an empty class (there is nothing in it); put videos into it, or remove the folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(  # type: ignore[no-untyped-def]
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make, says: str
) -> None:
    given = make(videos, tmp_path)
    monkeypatch.setattr(loading, "_build", lambda *_: pytest.fail("a network was built"))
    done = vpbench(*RUN, *given, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
    assert says in done.stderr
    planned = vpbench(*RUN, *given, "--dry-run", cwd=tmp_path)
    assert (planned.returncode, planned.stdout, planned.stderr) == (2, "", done.stderr), "no plan of what cannot be"
    assert not (tmp_path / "out").exists()
