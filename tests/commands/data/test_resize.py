"""`vpbench data prepare resize`, `lists` and `index` on trees that then serve as datasets."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import epic_tree
import k400_tree
import pandas as pd
import pytest
import ssv2_tree
from helpers import vpbench
from tiny_videos import write_video

from vpbench.commands.data.index import Index
from vpbench.commands.data.output import PARTIAL
from vpbench.commands.data.report import Report
from vpbench.commands.data.steps import recipe_of, run_check
from vpbench.data import Given, manifest_digest
from vpbench.data.lists import copies
from vpbench.data.sources import load_dataset
from vpbench.errors import UsageError


def prepare(action: str, name: str, root: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    workers = () if action == "lists" else ("--workers", "1")
    return vpbench("data", "prepare", action, name, "--root", root, "--out", out, *workers, *more)


def looked(name: str, root: Path, split: str | None = None) -> Report:
    return run_check(name, root, split, "pyav", 1, False, None)


def large_k400(root: Path, count: int = 5) -> Path:
    """The public copy in several containers, one of them small already."""
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "val.csv").write_text(k400_tree.official(k400_tree.VAL[:count]))
    for place, (row, ending) in enumerate(
        zip(k400_tree.VAL[:count], (".mp4", ".webm", ".avi", ".mkv", ".mp4"), strict=True)
    ):
        size = (48, 32) if place == 4 else (128, 96)
        write_video(root / "val" / f"{row.stem}{ending}", seed=place, width=size[0], height=size[1])
    return root


def test_copies_of_k400_are_a_dataset_with_the_same_list(tmp_path: Path) -> None:
    root, out = large_k400(tmp_path / "root"), tmp_path / "out"
    done = prepare("resize", "k400", root, out, "--short-side", "64", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "4 encoded, 1 copied as they are, 0 were there, 0 failed" in done.stdout
    assert f"next: vpbench data check k400 --root {out} --split val" in done.stdout
    report = looked("k400", out)
    assert (report.exit_code, report.expected, report.readable) == (0, 5, 5)
    assert report.summary["size"] == "86x64 (4), 48x32 (1)"
    assert report.summary["frames"] == looked("k400", root).summary["frames"]
    lists = [manifest_digest(load_dataset("k400")(folder).videos("val")) for folder in (root, out)]
    assert lists[0] == lists[1]
    assert all(path.is_relative_to(out) for path in (v.path for v in load_dataset("k400")(out).videos("val")))
    again = prepare("resize", "k400", root, out, "--short-side", "64")
    assert "0 encoded, 0 copied as they are, 5 were there" in again.stdout
    assert not (out / PARTIAL).exists()


def test_copies_of_another_kind_are_not_mixed(tmp_path: Path) -> None:
    root, out = large_k400(tmp_path / "root"), tmp_path / "out"
    assert prepare("resize", "k400", root, out, "--size", "86x64").returncode == 0
    assert looked("k400", out).summary["size"] == "86x64 (5)"
    other = prepare("resize", "k400", root, out, "--short-side", "32")
    assert (other.returncode, len(other.stderr.splitlines())) == (2, 1)
    assert "another folder" in other.stderr


def test_what_fails_or_is_missing_is_named_and_the_rest_is_made(tmp_path: Path) -> None:
    root, out = large_k400(tmp_path / "root"), tmp_path / "out"
    files = sorted((root / "val").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:500])
    files[1].unlink()
    done = prepare("resize", "k400", root, out, "--short-side", "64")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "1 failed, 1 missing" in done.stdout
    assert f"failed: {files[0]}" in done.stdout
    assert str(files[1].stem) in done.stdout
    report = looked("k400", out)
    assert (report.expected, report.found, report.readable) == (5, 3, 3)
    assert prepare("resize", "k400", tmp_path / "out", root / "inner").returncode in (0, 1)


def test_ssv2_keeps_its_names_of_classes(tmp_path: Path) -> None:
    root, out = ssv2_tree.build(tmp_path / "root"), tmp_path / "out"
    assert prepare("resize", "ssv2", root, out, "--short-side", "16").returncode == 0
    report = looked("ssv2", out)
    assert (report.exit_code, report.readable, report.summary["codec"]) == (0, 3, "h264 (3)")
    assert load_dataset("ssv2")(out).classes == load_dataset("ssv2")(root).classes


def test_videos_of_ones_own_keep_their_classes(tmp_path: Path) -> None:
    root, out = tmp_path / "own", tmp_path / "small"
    for label, name in enumerate(("jump", "run")):
        for number in range(2):
            write_video(root / name / f"{number}.mp4", seed=2 * label + number, width=96, height=64)
    (tmp_path / "parts.csv").write_text("run/0.mp4 0 1 run\nrun/0.mp4 1 2 run\njump/1.mp4 0.5 1.5 jump\n")
    for more in ((), ("--list", tmp_path / "parts.csv")):
        target = out / str(len(more))
        given = ("folder", "--root", root, *more)
        done = vpbench("data", "prepare", "resize", *given, "--out", target, "--short-side", "32", "--workers", "1")
        assert done.returncode == 0, done.stderr
        [line] = [line for line in done.stdout.splitlines() if line.startswith("next: vpbench ")]
        checked = vpbench(*line.removeprefix("next: vpbench ").split(), "--workers", "1", cwd=tmp_path)
        assert checked.returncode == 0, checked.stdout
        copies_of = load_dataset("folder").opened(target, Given(target / "all.csv", target / "classes.txt"))
        labels = sorted(video.label for video in copies_of.videos("all"))
        assert (copies_of.classes, labels) == (("jump", "run"), [0, 0, 1, 1] if not more else [0, 1, 1])


def test_epic_is_cut_into_one_file_per_narration(tmp_path: Path) -> None:
    root, out = epic_tree.build(tmp_path / "root"), tmp_path / "out"
    done = prepare("resize", "epic100", root, out, "--short-side", "32")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (out / "clips").iterdir()) == ["P01_11_0.mp4", "P01_11_3.mp4", "P04_101_7.mp4"]
    whole, cut = looked("epic100", root), looked("epic100", out)
    assert (cut.exit_code, cut.readable) == (0, 3)
    assert cut.summary["frames"] == whole.summary["frames"]
    videos = load_dataset("epic100")(out).videos("validation")
    assert [(v.label, v.noun) for v in videos] == [(0, 2), (1, 91), (96, 299)]


def test_a_killed_run_leaves_nothing_half_and_the_next_goes_on(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    rows = k400_tree.TRAIN[:12]
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "val.csv").write_text(k400_tree.official(rows))
    first = write_video(root / "val" / f"{rows[0].stem}.mp4", frames=300, width=320, height=240)
    for row in rows[1:]:
        shutil.copy(first, root / "val" / f"{row.stem}.mp4")
    command = [sys.executable, "-m", "vpbench", "data", "prepare", "resize", "k400", "--root", str(root)]
    command += ["--out", str(out), "--workers", "2", "--short-side", "160"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.glob("val/*"))) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("val/*")}
    assert 2 <= len(kept) < 12
    assert prepare("resize", "k400", root, out, "--short-side", "160").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert looked("k400", out).readable == 12
    assert not (out / PARTIAL).exists()


def test_a_disk_that_refuses_ends_the_run_in_a_line(tmp_path: Path) -> None:
    """No file may be larger than 1 kB: encoding and copying both fail as on a full disk."""
    root = large_k400(tmp_path / "root")
    for more in (("--short-side", "64"), ("--short-side", "320")):
        command = [sys.executable, "-m", "vpbench", "data", "prepare", "resize", "k400", "--root", str(root)]
        command += ["--out", str(tmp_path / more[1]), "--workers", "1", *more]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        )
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert "cannot write" in done.stderr.splitlines()[-1]
        assert not list((tmp_path / more[1]).glob("val/*"))


@pytest.mark.parametrize(
    ("action", "more", "says"),
    [
        ("resize", ("--short-side", "255"), "even numbers"),
        ("resize", ("--short-side", "8"), "even numbers"),
        ("resize", ("--size", "340"), "like 340x256"),
        ("resize", ("--size", "340x256", "--short-side", "320"), "give one of them"),
        ("resize", ("--split", "vall"), "did you mean 'val'"),
        ("index", ("--decoder", "x"), "unknown decoder"),
    ],
)
def test_wrong_requests_are_one_line(tmp_path: Path, action: str, more: tuple[str, ...], says: str) -> None:
    done = prepare(action, "k400", k400_tree.build(tmp_path / "root"), tmp_path / "out", *more)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert says in done.stderr


def test_nothing_is_written_among_the_originals(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path / "root")
    before = sorted(root.rglob("*"))
    for action in ("resize", "lists"):
        for out in (root, root / "small"):
            done = prepare(action, "k400", root, out)
            assert (done.returncode, "outside" in done.stderr) == (2, True)
    assert sorted(root.rglob("*")) == before


def test_datasets_of_images_are_refused(tmp_path: Path) -> None:
    done = prepare("lists", "imagenet_vid", tmp_path, tmp_path / "out")
    assert (done.returncode, "images, not videos" in done.stderr) == (2, True)


def test_lists_are_read_by_pandas_and_by_vpbench(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "val.csv").write_text(k400_tree.official(k400_tree.VAL))
    k400_tree.class_folders(root / "val", k400_tree.VAL[:4])  # folders with blanks and brackets
    done = prepare("lists", "k400", root, out)
    assert done.returncode == 0, done.stderr
    assert f"{out / 'val.csv'}: 4 of 5 videos" in done.stdout
    assert "train: no list written" in done.stdout
    assert "where to get it: k400 is" in done.stdout
    read = pd.read_csv(out / "val.csv", header=None, delimiter=" ")
    assert read[1].tolist() == [0, 1, 196, 208]
    assert all((root / path).is_file() for path in read[0])
    assert k400_tree.VAL[4].stem in (out / "val.missing.txt").read_text()
    shutil.copy(out / "val.csv", root / "val.csv")
    videos = load_dataset("k400")(root).videos("val")
    assert [(v.video_id, v.label) for v in videos] == [(r.stem, k400_tree.LABELS[r.label]) for r in k400_tree.VAL[:4]]
    absolute = prepare("lists", "k400", root, out, "--absolute")
    assert absolute.returncode == 0
    assert not (out / "val.missing.txt").exists()
    assert all(Path(path).is_file() for path in pd.read_csv(out / "val.csv", header=None, delimiter=" ")[0])


def test_parts_of_files_have_no_such_list(tmp_path: Path) -> None:
    done = prepare("lists", "epic100", epic_tree.build(tmp_path / "root"), tmp_path / "out")
    assert (done.returncode, "cut them first" in done.stderr) == (2, True)


def test_the_index_spares_opening_what_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = k400_tree.build(tmp_path / "root")
    done = prepare("index", "k400", root, root)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 videos are there, 5 readable, 0 were known" in done.stdout
    table = pd.read_parquet(root / "index.parquet")
    assert (set(table["frames"]), set(table["codec"]), set(table["width"])) == ({24}, {"h264"}, {48})
    report = looked("k400", root)
    assert (report.exit_code, report.readable, report.from_index) == (0, 5, 5)
    changed = sorted((root / "val").iterdir())[0]
    changed.write_bytes(changed.read_bytes()[:-200])
    report = looked("k400", root)
    assert (report.exit_code, report.readable, report.from_index) == (1, 4, 4)
    again = prepare("index", "k400", root, root)
    assert "4 readable, 4 were known" in again.stdout
    assert looked("k400", root).from_index == 5  # that one is broken is known as well


def test_an_index_of_another_decoder_or_of_nobody_does_not_count(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path / "root")
    assert prepare("index", "k400", root, root).returncode == 0
    index = Index.read(root / "index.parquet")
    path = sorted((root / "val").iterdir())[0]
    status = path.stat()
    assert index.find(path, "", "pyav", status.st_size, status.st_mtime_ns) is not None
    assert index.find(path, "", "decord", status.st_size, status.st_mtime_ns) is None
    assert index.find(path, "", "pyav", status.st_size, status.st_mtime_ns + 1) is None
    for content in (b"", b"PAR1 nonsense PAR1"):
        (root / "index.parquet").write_bytes(content)
        with pytest.raises(UsageError, match="make it again"):
            looked("k400", root)
    pd.DataFrame({"a": [1]}).to_parquet(root / "index.parquet")
    with pytest.raises(UsageError, match="make it again"):
        looked("k400", root)


def test_segments_are_in_the_index_too(tmp_path: Path) -> None:
    root = epic_tree.build(tmp_path / "root")
    assert prepare("index", "epic100", root, tmp_path / "out").returncode == 0
    report = run_check("epic100", root, None, "pyav", 1, False, tmp_path / "out" / "index.parquet")
    assert (report.exit_code, report.from_index) == (0, 3)


def test_recipes() -> None:
    assert recipe_of(None, None, 18, False).short_side == 320
    assert recipe_of(None, "340x256", 18, False).size == (340, 256)


def test_stat_all_leaves_out_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.symlink(tmp_path / "nowhere", tmp_path / "b")
    assert set(copies.stat_all({tmp_path / "a", tmp_path / "b", tmp_path / "c"})) == {tmp_path / "a"}
