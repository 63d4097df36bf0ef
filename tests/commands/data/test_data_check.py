"""`vpbench data check` on trees in the official layouts, whole and broken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import av
import epic_tree
import k400_tree
import numpy as np
import pytest
import ssv2_tree
import vid_tree
from helpers import add_broken, clip_folder, vpbench
from PIL import Image
from tiny_videos import write_video

from vpbench.commands.data import check
from vpbench.commands.data.index import Index
from vpbench.commands.data.report import Report
from vpbench.commands.data.steps import run_check
from vpbench.data import Dataset, Video, manifest_digest
from vpbench.data.sources import load_dataset


def looked(name: str, root: Path, split: str | None = None, *, workers: int = 1, quick: bool = False) -> Report:
    return run_check(name, root, split, "pyav", workers, quick, None)


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())


def test_a_whole_copy_of_k400_exits_0_and_says_what_comes_next(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path / "k400")
    done = vpbench("data", "check", "k400", "--root", root, "--workers", "2", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["expected"], report["found"], report["readable"]) == (5, 5, 5)
    assert report["list_digest"] == manifest_digest(load_dataset("k400")(root).videos("val"))
    assert report["list_digest"] in done.stdout
    assert report["summary"]["frame rate"] == "12/s (5)"
    assert report["summary"]["size"] == "48x32 (5)"
    assert report["summary"]["duration"].startswith("2 to 2 s")
    assert report["summary"]["codec"] == "h264 (5)"
    assert "MViT: mvit_5x1; VideoMAE: videomae_5x3" in report["summary"]["protocol"]
    assert f"next: vpbench run --method METHOD --backbone BACKBONE --dataset k400 --root {root}" in done.stdout


def test_what_is_broken_is_named_with_its_reason(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path)
    files = sorted((root / "val").iterdir())
    content = files[0].read_bytes()
    files[0].write_bytes(content[: len(content) // 2])
    files[1].write_bytes(b"")
    files[2].write_text("<html>404</html>")
    files[3].unlink()
    audio_only(files[4])
    done = vpbench("data", "check", "k400", "--root", root, "--json", tmp_path / "r.json")
    assert (done.returncode, done.stderr.count("Traceback")) == (1, 0)
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["expected"], report["found"], report["readable"]) == (5, 4, 0)
    assert report["missing"] == [f"{files[3].stem} ({files[3]})"] or files[3].stem in report["missing"][0]
    reasons = {Path(line.partition(": ")[0]).name: line for line in report["unreadable"]}
    assert set(reasons) == {file.name for file in (files[0], files[1], files[2], files[4])}
    assert "empty file" in reasons[files[1].name]
    assert "no video stream" in reasons[files[4].name]
    assert "where to get it" in done.stdout
    assert "github.com/cvdfoundation" in done.stdout


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm", "clip.avi", "clip.mkv"])
def test_codecs_and_containers_are_told(tmp_path: Path, name: str) -> None:
    root = k400_tree.build(tmp_path)
    stem = k400_tree.VAL[0].stem
    (root / "val" / f"{stem}.mp4").unlink()
    write_video(root / "val" / f"{stem}{Path(name).suffix}", seed=6)
    report = looked("k400", root)
    assert (report.exit_code, report.readable) == (0, 5)
    codec = {".webm": "vp8", ".avi": "mpeg4"}.get(Path(name).suffix)
    assert codec is None or f"{codec} (1)" in report.summary["codec"]


def test_quick_opens_nothing(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path)
    for file in (root / "val").iterdir():
        file.write_bytes(b"no video")
    report = looked("k400", root, quick=True)
    assert (report.found, report.readable, report.exit_code) == (5, None, 0)
    assert "not opened" in "\n".join(report.lines())


def test_equal_content_is_a_fault_where_labels_differ(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path)
    files = sorted((root / "val").iterdir())
    shutil.copy(files[0], files[1])
    report = looked("k400", root)
    assert report.exit_code == 1
    assert [line for line in report.contradictions if "the same content" in line and "different labels" in line]


def test_equal_content_under_one_label_is_only_said(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path)
    files = sorted((root / "train").iterdir())
    shutil.copy(files[0], files[1])
    report = looked("k400", root, "train")
    assert (report.exit_code, len(report.remarks)) == (0, 1)


def test_lists_that_contradict_themselves(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path)
    table = root / "annotations" / "val.csv"
    row = k400_tree.VAL[0]
    table.write_text(table.read_text() + f"zumba,{row.youtube_id},{row.start},{row.end},val,0\n")
    report = looked("k400", root)
    assert (report.exit_code, report.expected, report.readable) == (1, 5, 5)
    assert "listed twice with other labels" in report.contradictions[0]


def test_a_list_with_unknown_classes_is_reported_not_refused(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path)
    table = root / "annotations" / "val.csv"
    table.write_text(table.read_text().replace("zumba", "zumbaa"))
    done = vpbench("data", "check", "k400", "--root", root)
    assert done.returncode == 1
    assert "expected      unknown" in done.stdout
    assert "none of the 400 classes" in done.stdout


def test_ssv2_with_webm_files(tmp_path: Path) -> None:
    root = ssv2_tree.build(tmp_path)
    report = looked("ssv2", root)
    assert (report.exit_code, report.expected, report.readable) == (0, 3, 3)
    assert "MViT: spread_2x3; VideoMAE: spread_2x3" in report.summary["protocol"]
    train = looked("ssv2", root, "train")
    assert (train.exit_code, train.expected, train.found) == (1, 200, 4)
    assert "missing: and 176 more" in "\n".join(train.lines())


def test_segments_of_epic_share_one_opening_and_are_named_by_narration(tmp_path: Path) -> None:
    root = epic_tree.build(tmp_path)
    report = looked("epic100", root)
    assert (report.exit_code, report.expected, report.readable) == (0, 3, 3), report
    assert report.summary["duration"].startswith("0.5833 to 1.5 s")
    file = root / "P01" / "videos" / "P01_11.MP4"
    file.write_bytes(file.read_bytes()[:1000])
    broken = looked("epic100", root)
    assert (broken.exit_code, broken.readable, len(broken.unreadable)) == (1, 1, 2)
    assert "(P01_11_0)" in broken.unreadable[0]


def test_folders_of_frames_are_opened_too(tmp_path: Path) -> None:
    root = epic_tree.tables(tmp_path)
    frames = epic_tree.frames(root / "P01" / "rgb_frames" / "P01_11")
    epic_tree.frames(root / "P04" / "rgb_frames" / "P04_101")
    assert looked("epic100", root).exit_code == 0
    (frames / "frame_0000000020.jpg").unlink()
    report = looked("epic100", root)
    assert (report.readable, len(report.unreadable)) == (2, 1)
    assert "20 is missing" in report.unreadable[0]


def test_embedded_clips_and_a_folder_of_them(tmp_path: Path) -> None:
    assert looked("synthmotion", clip_folder(tmp_path / "clips", 6)).exit_code == 0
    broken = add_broken(tmp_path / "clips")
    report = looked("synthmotion", tmp_path / "clips")
    assert (report.exit_code, report.readable, len(report.unreadable)) == (1, 6, len(broken))


def test_imagenet_vid_counts_frames_boxes_and_segments(tmp_path: Path) -> None:
    root = vid_tree.build(tmp_path)
    report = looked("imagenet_vid", root)
    assert (report.exit_code, report.expected, report.readable) == (0, 23, 23)
    assert report.summary["boxes"] == str(sum(len(vid_tree.objects(n)) for v in vid_tree.VIDEOS.values() for n in v))
    assert report.summary["segments"].startswith("3 ")
    assert report.summary["size"] == "64x48 (2 videos)"
    assert looked("imagenet_vid", root, quick=True).readable == 6


def test_imagenet_vid_names_missing_and_broken_images(tmp_path: Path) -> None:
    root = vid_tree.build(tmp_path)
    vid_tree.image_of(root, "00000000", 3).unlink()
    vid_tree.image_of(root, "00000000", 4).write_bytes(b"no image")
    Image.new("RGB", (20, 10)).save(vid_tree.image_of(root, "00007010", 20), "JPEG")
    (root / "Annotations/VID/val/ILSVRC2015_val_00007010/000041.xml").write_text("<annotation>")
    report = looked("imagenet_vid", root, workers=1)
    assert report.exit_code == 1
    assert [len(found) for found in report.faults.values()] == [1, 1, 1]
    assert "000003.JPEG" in report.missing[0]
    assert "000004.JPEG" in report.unreadable[0]
    assert "000041.xml" in report.contradictions[0]
    (root / "Annotations/VID/val/ILSVRC2015_val_00007010/000041.xml").write_text(vid_tree._annotation(41))
    sizes = looked("imagenet_vid", root, workers=1)
    assert "20x10 pixels, its annotation says 64x48" in sizes.contradictions[0]
    assert "several sizes" in sizes.remarks[0]


def test_imagenet_vid_packed(tmp_path: Path) -> None:
    names = [f"ILSVRC2015_val_00000000_{n:06d}.JPEG" for n in range(4)]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "vid_val").mkdir()
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    boxes = [{"image_id": 0, "bbox": [1, 2, 3, 4], "category_id": 1}]
    (tmp_path / "annotations" / "vid_val.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    for number, name in enumerate(names[:3]):
        (tmp_path / "vid_val" / name).write_bytes(vid_tree.image(number))
    report = looked("imagenet_vid", tmp_path, workers=1)
    assert (report.expected, report.found, report.readable, report.summary["boxes"]) == (4, 3, 3, "1")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("k401",), 2, "did you mean 'k400'"),
        (("k400",), 2, "VPBENCH_K400"),
        (("k400", "--root", "nowhere"), 2, "no such folder"),
        (("k400", "--root", "."), 2, "neither a list nor class folders"),
        (("synthmotion", "--split", "tset"), 2, "did you mean 'test'"),
        (("synthmotion", "--decoder", "ffmpeg"), 2, "unknown decoder"),
        (("synthmotion", "--index", "none.parquet"), 2, "vpbench data prepare index"),
        (("imagenet_vid",), 2, "VPBENCH_IMAGENET_VID"),
    ],
)
def test_wrong_requests_are_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = vpbench("data", "check", *arguments, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (code, 1), done.stderr
    assert says in done.stderr


def test_a_list_without_any_file_exits_3(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path)
    shutil.rmtree(root / "val")
    done = vpbench("data", "check", "k400", "--root", root)
    assert done.returncode == 3
    assert "found         0" in done.stdout


class Mischief(Dataset):
    """A third party's dataset that breaks the rules, on videos some of which kill who opens them."""

    classes = ("a", "b")
    splits = ("test",)

    def __init__(self, videos: list[Video]) -> None:
        super().__init__(None)
        self._videos = videos

    def videos(self, split: str) -> list[Video]:
        return self._videos

    def calibration(self) -> list[Video]:
        return []


def test_datasets_of_others_are_not_trusted(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4")
    videos = [Video("x", file, 0), Video("x", file, 0), Video("y", file, 7)]
    report = check.check("mischief", Mischief(videos), "test", check.How("pyav", 1, True), Index())
    assert report.contradictions == ["y: label 7 is outside 0 to 1", "x: the id of 2 videos"]


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_prints_what_was_found_so_far(tmp_path: Path) -> None:
    root = k400_tree.build(tmp_path)
    row = k400_tree.VAL[0]
    for number in range(6_000):
        os.link(root / "val" / f"{row.stem}.mp4", root / "val" / f"{number:011d}_{row.start:06d}_{row.end:06d}.mp4")
    lines = "".join(f"val/{number:011d}_{row.start:06d}_{row.end:06d}.mp4 0\n" for number in range(6_000))
    (root / "val.csv").write_text(lines)
    code = "from vpbench import cli, progress; progress.LINE_EVERY_S = 1.0; cli.main()"
    command = [sys.executable, "-c", code, "data", "check", "k400", "--root", str(root), "--workers", "1"]
    # where tests run in the background Ctrl-C is ignored, and what they start inherits that
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c
    )
    assert process.stderr is not None
    assert "opening: " in process.stderr.readline()  # after a second of work
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, (out, err)
    assert "(stopped early)" in out.splitlines()[0]
    assert "Traceback" not in err
    assert 0 < int(out.split("readable")[1].split()[0]) < 6_000
