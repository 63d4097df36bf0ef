"""ImageNet VID in both layouts, from small trees like the real ones, whole and broken."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vpbench import registry
from vpbench.data.boxes import oddities
from vpbench.data.protocols.whole import resize, scale_of
from vpbench.data.sources import load_dataset, load_detection_dataset
from vpbench.data.video.reader import DecodeError
from vpbench.datasets.imagenet_vid import ImageNetVid
from vpbench.errors import UsageError
from vpbench.tasks.detection.boxes import Detections, Truth
from vpbench.tasks.detection.motion import motion_iou
from vpbench.tasks.detection.precision import evaluate

OBJECT = """	<object>
		<trackid>{track}</trackid>
		<name>{wnid}</name>
		<bndbox>
			<xmax>{box[2]}</xmax>
			<xmin>{box[0]}</xmin>
			<ymax>{box[3]}</ymax>
			<ymin>{box[1]}</ymin>
		</bndbox>
		<occluded>0</occluded>
		<generated>{generated}</generated>
	</object>
"""
XML = """<annotation>
	<folder>{snippet}</folder>
	<filename>{number:06d}</filename>
	<source>
		<database>ILSVRC_2015</database>
	</source>
	<size>
		<width>64</width>
		<height>48</height>
	</size>
{objects}</annotation>
"""
ZEBRA, BIRD = "n02391049", "n01503061"
#: snippet -> numbers of its frames; the second has a gap and is listed out of order
SNIPPETS = {"ILSVRC2015_val_00000000": [0, 1, 2], "ILSVRC2015_val_00007010": [12, 10, 14, 11]}
BILLION_LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<annotation><object><trackid>0</trackid><name>&c;</name></object></annotation>
"""


def objects_of(number: int) -> list[tuple[list[int], str, int]]:
    """A zebra that moves and, in even frames, a bird that does not."""
    zebra = ([4 + number, 8, 40 + number, 40], ZEBRA, 0)
    return [zebra, ([0, 0, 10, 12], BIRD, 1)] if number % 2 == 0 else [zebra]


def jpeg(number: int) -> bytes:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :, 0], pixels[:, :, 2] = 10 * number, 200
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


@pytest.fixture
def official(tmp_path: Path) -> Path:
    lines: list[str] = []
    for snippet, numbers in SNIPPETS.items():
        images, notes = (tmp_path / kind / "VID" / "val" / snippet for kind in ("Data", "Annotations"))
        for folder in (images, notes):
            folder.mkdir(parents=True)
        for number in numbers:
            objects = "".join(
                OBJECT.format(track=track, wnid=wnid, box=box, generated=number % 2)
                for box, wnid, track in objects_of(number)
            )
            (images / f"{number:06d}.JPEG").write_bytes(jpeg(number))
            (notes / f"{number:06d}.xml").write_text(XML.format(snippet=snippet, number=number, objects=objects))
            lines.append(f"{snippet}/{number:06d} {len(lines) + 1}\n")
    (tmp_path / "ImageSets" / "VID").mkdir(parents=True)
    (tmp_path / "ImageSets" / "VID" / "val.txt").write_text("".join(lines))
    return tmp_path


def packed_content() -> dict[str, Any]:
    names = [f"{snippet}_{number:06d}.JPEG" for snippet, numbers in SNIPPETS.items() for number in numbers]
    category = {BIRD: 5, ZEBRA: 30}
    boxes = [
        {"id": 0, "image_id": i, "bbox": [b[0], b[1], b[2] - b[0], b[3] - b[1]], "category_id": category[wnid]}
        for i, name in enumerate(names)
        for b, wnid, _ in objects_of(int(name[-11:-5]))
    ]
    return {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)], "annotations": boxes}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    root, content = tmp_path / "packed", packed_content()
    for folder in ("annotations", "vid_val"):
        (root / folder).mkdir(parents=True)
    (root / "annotations" / "vid_val.json").write_text(json.dumps(content))
    for image in content["images"]:
        (root / "vid_val" / image["file_name"]).write_bytes(jpeg(int(image["file_name"][-11:-5])))
    return root


def xml_of(root: Path, number: int = 0) -> Path:
    return root / "Annotations" / "VID" / "val" / "ILSVRC2015_val_00000000" / f"{number:06d}.xml"


def all_of(root: Path) -> Truth:
    dataset = ImageNetVid(root)
    videos = dataset.videos("val")
    return Truth.of([s for video in videos for s in dataset.segments("val", video)], len(dataset.classes))


def test_frames_are_in_order_and_a_gap_starts_a_segment(official: Path) -> None:
    dataset = ImageNetVid(official)
    assert dataset.videos("val") == ["00000000", "00007010"]
    cut = [[frame.number for frame in segment.frames] for segment in dataset.segments("val", "00007010")]
    assert cut == [[10, 11, 12], [14]]
    frame = dataset.segments("val", "00000000")[0].frames[2]
    assert (frame.number, frame.height, frame.width) == (2, 48, 64)
    assert frame.boxes.xyxy.tolist() == [[6, 8, 42, 40], [0, 0, 10, 12]]
    assert [dataset.classes[label] for label in frame.boxes.labels] == ["zebra", "bird"]
    assert frame.boxes.tracks.tolist() == [0, 1]


def test_both_layouts_give_the_same_frames(official: Path, packed: Path) -> None:
    first, second = all_of(official), all_of(packed)
    assert first.videos == second.videos
    for name in ("video", "number", "frame", "label", "boxes"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert (second.track == -1).all()
    assert np.isnan(motion_iou(second)).all()
    assert not np.isnan(motion_iou(first)).any()
    a, b = (
        dataset.pixels(dataset.segments("val", "00007010")[1].frames[0])
        for dataset in (ImageNetVid(official), ImageNetVid(packed))
    )
    assert np.array_equal(a, b)
    assert a.shape == (48, 64, 3)
    assert abs(a[..., 0].mean() - 140) < 3


def test_the_unpacked_archive_may_keep_its_own_folder(official: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "ILSVRC2015").symlink_to(official)
    assert ImageNetVid(outer).videos("val") == ["00000000", "00007010"]


def test_thirty_classes_in_the_order_of_their_names() -> None:
    assert len(ImageNetVid.classes) == 30
    assert list(ImageNetVid.classes) == sorted(ImageNetVid.classes)


def test_the_registry_tells_boxes_from_labels() -> None:
    assert load_detection_dataset("imagenet_vid") is ImageNetVid
    with pytest.raises(UsageError, match="has boxes"):
        load_dataset("imagenet_vid")
    with pytest.raises(UsageError, match="no boxes"):
        load_detection_dataset("synthmotion")
    assert "ImageNet VID" in registry.summary("datasets", "imagenet_vid")


def test_missing_and_broken_images_are_named(official: Path) -> None:
    dataset = ImageNetVid(official)
    frames = dataset.segments("val", "00000000")[0].frames
    folder = official / "Data" / "VID" / "val" / "ILSVRC2015_val_00000000"
    (folder / "000000.JPEG").unlink()
    (folder / "000001.JPEG").write_bytes(jpeg(1)[:200])
    png = io.BytesIO()
    Image.new("RGB", (64, 48)).save(png, "PNG")
    (folder / "000002.JPEG").write_bytes(png.getvalue())
    for frame, reason in zip(frames, ("is missing", "not a readable JPEG", "not a readable JPEG"), strict=True):
        with pytest.raises(DecodeError, match=rf"{frame.number:06d}.JPEG: {reason}") as caught:
            dataset.pixels(frame)
        assert "\n" not in str(caught.value)


def test_images_too_large_are_not_decoded(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ImageNetVid(official)
    frame = dataset.segments("val", "00000000")[0].frames[0]
    monkeypatch.setattr("vpbench.data.video.folder.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(DecodeError, match="64x48 pixels"):
        dataset.pixels(frame)
    monkeypatch.setattr("vpbench.data.video.folder.MAX_BYTES", 10)
    with pytest.raises(DecodeError, match="larger than"):
        dataset.pixels(frame)


GOOD = XML.format(snippet="s", number=0, objects=OBJECT.format(track=0, wnid=ZEBRA, box=(1, 2, 3, 4), generated=0))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BILLION_LAUGHS, "document type"),
        ("", "no element found"),
        (GOOD[:300], "not an annotation"),
        (GOOD.replace(ZEBRA, "n00000001"), "unknown class 'n00000001'"),
        (GOOD.replace("<xmax>3</xmax>", ""), "xmax is ''"),
        (GOOD.replace("<xmax>3<", "<xmax>nan<"), "xmax is 'nan'"),
        (GOOD.replace("<xmax>3<", "<xmax>1e30<"), "xmax is '1e30'"),
        (GOOD.replace("<trackid>0<", "<trackid>inf<"), "trackid is 'inf'"),
        (GOOD + " " * 1_000_000, "too large"),
        ("<a>" * 100_000, "not an annotation"),
    ],
)
def test_broken_annotations_are_one_line(official: Path, content: str, reason: str) -> None:
    xml_of(official).write_text(content)
    with pytest.raises(UsageError, match=r"000000.xml: ") as caught:
        ImageNetVid(official).segments("val", "00000000")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_entities_in_another_encoding_do_not_pass(official: Path) -> None:
    xml_of(official).write_bytes(BILLION_LAUGHS.replace("1.0", '1.0" encoding="utf-16').encode("utf-16"))
    with pytest.raises(UsageError, match="not an annotation"):
        ImageNetVid(official).segments("val", "00000000")
    xml_of(official, 1).unlink()
    xml_of(official).write_text(GOOD)
    with pytest.raises(UsageError, match=r"000001.xml: is missing"):
        ImageNetVid(official).segments("val", "00000000")


def test_odd_boxes_are_kept_and_counted(official: Path) -> None:
    xml_of(official).write_text(GOOD.replace("<xmax>3<", "<xmax>65<"))
    xml_of(official, 1).write_text(GOOD.replace("<xmax>3<", "<xmax>1<"))
    segments = ImageNetVid(official).segments("val", "00000000")
    assert segments[0].frames[0].boxes.xyxy.tolist() == [[1, 2, 65, 4]]
    assert oddities(segments) == {"boxes beyond the frame": 1, "boxes without area": 1}
    assert oddities(ImageNetVid(official).segments("val", "00007010")) == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("../../etc/000000 1", "is no frame"),
        ("/etc/000000 1", "is no frame"),
        ("ILSVRC2015_val_00000000", "is no frame"),
        ("ILSVRC2017_val_00000000/000007 8", "would both be one video"),
    ],
)
def test_wrong_lines_of_the_list_are_named(official: Path, line: str, reason: str) -> None:
    file = official / "ImageSets" / "VID" / "val.txt"
    file.write_text(file.read_text() + line)
    with pytest.raises(UsageError, match=r"val.txt line 8: .*" + reason):
        ImageNetVid(official).videos("val")


def test_a_frame_listed_twice_is_refused(official: Path) -> None:
    file = official / "ImageSets" / "VID" / "val.txt"
    file.write_text(file.read_text() + "ILSVRC2015_val_00000000/000001 8")
    with pytest.raises(UsageError, match="frame 1 is listed twice"):
        ImageNetVid(official).segments("val", "00000000")


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (("images", 0, "file_name"), "../../x_000000_000000.JPEG", "is not <video>_<number>.JPEG"),
        (("images", 0, "file_name"), "000000.JPEG", "is not <video>_<number>.JPEG"),
        (("images", 0, "id"), 1, "same id"),
        (("annotations", 0, "image_id"), 99, "image 99"),
        (("annotations", 0, "category_id"), 31, "category_id"),
        (("annotations", 0, "bbox"), [1, 2, 3], "bbox"),
        (("annotations", 0, "bbox"), [1, 2, 3, float("nan")], "bbox"),
        (("annotations", 0, "bbox"), [1, 2, 3, 1e300], "bbox"),
    ],
)
def test_wrong_packed_annotations_are_named(packed: Path, place: Any, value: Any, reason: str) -> None:
    content = packed_content()
    content[place[0]][place[1]][place[2]] = value
    (packed / "annotations" / "vid_val.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"vid_val.json: ") as caught:
        all_of(packed)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{" * 5000, '{"images": []}'])
def test_other_json_is_one_line(packed: Path, text: str) -> None:
    (packed / "annotations" / "vid_val.json").write_text(text)
    with pytest.raises(UsageError, match=r"vid_val.json: .*; unpack"):
        ImageNetVid(packed).videos("val")


def test_missing_folders_say_what_is_wanted(tmp_path: Path, official: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for root in (None, empty):
        with pytest.raises(UsageError, match=r"--root must name a folder with Data/VID/val"):
            ImageNetVid(root).videos("val")
    with pytest.raises(UsageError, match="no split 'test'"):
        ImageNetVid(official).videos("test")
    with pytest.raises(UsageError, match="no video '7'"):
        ImageNetVid(official).segments("val", "7")


def test_finding_everything_is_perfect(official: Path) -> None:
    truth = all_of(official)
    found = Detections(truth.frame, truth.label, np.ones(len(truth.frame)), truth.boxes)
    scores = evaluate(truth, found)
    assert (scores.map50, scores.map, scores.frames) == (1.0, 1.0, 7)
    assert (scores.ap50_per_class >= 0).sum() == 2


@pytest.mark.parametrize(
    ("height", "width", "longest", "size"),
    [
        (720, 1280, 672, (378, 672)),
        (720, 1280, 1024, (576, 1024)),
        (480, 640, 672, (420, 560)),
        (480, 640, 1024, (640, 853)),
        (640, 480, 1024, (853, 640)),
        (50, 500, 672, (67, 672)),
    ],
)
def test_the_resize_rule(height: int, width: int, longest: int, size: tuple[int, int]) -> None:
    pixels = np.full((height, width, 3), 77, np.uint8)
    resized = resize(pixels, longest)
    assert resized.shape == (*size, 3)
    assert (resized == 77).all()
    scale = scale_of(height, width, longest)
    assert (round(scale * height), round(scale * width)) == size
