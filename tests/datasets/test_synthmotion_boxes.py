"""Boxes of the synthetic clips against the shapes that are drawn, and against the pixels of the committed files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from vpbench.backbones.vitdet import VITDET_EMBEDDED
from vpbench.data.boxes import Frame
from vpbench.data.protocols.whole import resize, scale_of
from vpbench.data.sources import load_detection_dataset
from vpbench.datasets.synthmotion import HERE
from vpbench.datasets.synthmotion.encode import FIRST_SEED
from vpbench.datasets.synthmotion.objects import MOST, SEEN, objects, outline, training_objects
from vpbench.datasets.synthmotion.scene import CLASSES, FRAMES, SHAPES, SIZE, _distance, arrange, coverage
from vpbench.datasets.synthmotion_boxes import SynthMotionBoxes
from vpbench.errors import UsageError
from vpbench.tasks.detection.boxes import Truth
from vpbench.tasks.detection.motion import speeds


def manifest() -> dict[str, tuple[int, int]]:
    """Seed and label of each committed clip."""
    with (HERE / "clips" / "manifest.csv").open(newline="") as stream:
        return {row["clip_id"]: (int(row["seed"]), int(row["label"])) for row in csv.DictReader(stream)}


def frames_of(source: SynthMotionBoxes, video: str) -> tuple[Frame, ...]:
    (segment,) = source.segments("test", video)
    return segment.frames


@pytest.mark.parametrize("shape", SHAPES)
def test_the_outline_of_a_shape_is_where_its_distance_is_zero(shape: str) -> None:
    u, v = outline(shape).T
    np.testing.assert_allclose(_distance(shape, u, v), 0, atol=1e-6)


@pytest.mark.parametrize("number", [0, 8, 9, 15, 17])
def test_boxes_hug_what_is_drawn(number: int) -> None:
    shown, found = arrange(number, number), objects(number, number)
    for place, sprite in enumerate([*shown.distractors, *shown.actors]):
        assert SHAPES[found.labels[place]] == sprite.shape
        covered = coverage(sprite) / np.maximum(sprite.opacity, 1e-6)[:, None, None] > 0.5
        for time in np.flatnonzero((sprite.opacity > 0.1) & covered.any(axis=(1, 2))):
            rows, columns = np.nonzero(covered[time])
            drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            # a sharp corner covers no pixel by half
            np.testing.assert_allclose(found.boxes[time, place], drawn, atol=1.5)


def test_what_differs_from_the_background_in_the_files_is_inside_the_boxes() -> None:
    source, different_pixels, stray = SynthMotionBoxes(), 0, 0
    for video, (seed, label) in list(manifest().items())[:36:2]:
        shown = arrange(seed, label)
        inside = _inside(objects(seed, label).boxes, margin=2)
        for frame in frames_of(source, video)[::8]:
            background = 255 * shown.background[frame.number]
            different = np.abs(source.pixels(frame) - background).max(axis=2) > 64
            different_pixels += int(different.sum())
            stray += int((different & ~inside[frame.number]).sum())
    assert different_pixels > 5000
    assert stray < 0.01 * different_pixels  # what the codec smears


def test_annotated_things_can_be_seen_in_the_files() -> None:
    source = SynthMotionBoxes()
    contrasts = []
    for video, (seed, label) in list(manifest().items())[1:36:2]:
        shown = arrange(seed, label)
        for frame in frames_of(source, video)[::8]:
            change = np.abs(source.pixels(frame) - 255 * shown.background[frame.number]).max(axis=2)
            inside = _inside(frame.boxes.xyxy[None], margin=0)[0]
            contrasts += [change[_inside(box[None, None], margin=0)[0]].mean() for box in frame.boxes.xyxy]
            assert change[~inside].mean() < 25  # drift of brightness, noise, codec
    assert np.quantile(contrasts, 0.02) > 25


def test_moving_actors_move_their_boxes_as_their_class_says() -> None:
    source = SynthMotionBoxes()
    for video, (seed, label) in list(manifest().items())[:18]:
        if CLASSES[label] in ("move_e", "move_w"):
            track = len(arrange(seed, label).distractors)
            first, last = (
                frame.boxes.xyxy[frame.boxes.tracks == track].mean(axis=0) for frame in frames_of(source, video)[::31]
            )
            moved = (last - first)[[0, 2]].mean()
            assert 13 < (moved if CLASSES[label] == "move_e" else -moved) < 29


def test_things_that_do_not_show_are_not_annotated() -> None:
    source = SynthMotionBoxes()
    (video, (seed, label)), *_ = ((v, k) for v, k in manifest().items() if CLASSES[k[1]] == "vanish")
    track = len(arrange(seed, label).distractors)
    found = objects(seed, label)
    there = [track in frame.boxes.tracks for frame in frames_of(source, video)]
    assert there[0]
    assert not there[-1]
    assert there == (found.seen[:, track] >= SEEN).tolist()


def test_a_thing_behind_others_or_outside_shows_less() -> None:
    seen = np.concatenate([objects(seed, CLASSES.index("pass")).seen.ravel() for seed in range(6)])
    assert seen.min() < 0.8
    assert 0.97 < np.median(seen) < 1.03
    assert seen.max() < 1.08


def test_splits_are_those_of_the_clips() -> None:
    source = SynthMotionBoxes()
    assert load_detection_dataset("synthmotion_boxes") is SynthMotionBoxes
    assert source.videos("test") == list(manifest())
    assert source.videos("ci") == source.videos("test")[:60]
    with pytest.raises(UsageError, match="has no split 'train'"):
        source.videos("train")
    with pytest.raises(UsageError, match="ci has no video"):
        source.segments("ci", source.videos("test")[60])


def test_frames_are_numbered_boxed_and_sized() -> None:
    source = SynthMotionBoxes()
    segments = [source.segments("ci", video)[0] for video in source.videos("ci")[:18]]
    truth = Truth.of(segments, len(source.classes))
    assert set(truth.label.tolist()) == set(range(len(SHAPES)))
    for segment in segments:
        assert [frame.number for frame in segment.frames] == list(range(FRAMES))
        for frame in segment.frames:
            assert (frame.height, frame.width) == (SIZE, SIZE)
            assert len(set(frame.boxes.tracks.tolist())) == len(frame.boxes.tracks) <= MOST
    assert truth.boxes.min() >= 0
    assert truth.boxes.max() <= SIZE
    assert (truth.boxes[:, 2:] - truth.boxes[:, :2]).min() > 2
    assert all(chosen.any() for chosen in speeds(truth).values())


def test_frames_can_be_asked_for_in_any_order() -> None:
    source = SynthMotionBoxes()
    one, two = (frames_of(source, video) for video in source.videos("test")[:2])
    first = source.pixels(one[5]).copy()
    assert first.shape == (SIZE, SIZE, 3)
    source.pixels(two[0])
    assert np.array_equal(source.pixels(one[5]), first)
    assert not np.array_equal(source.pixels(one[31]), first)


def test_the_embedded_detector_sees_frames_as_they_are() -> None:
    source = SynthMotionBoxes()
    pixels, fits = source.pixels(frames_of(source, source.videos("ci")[0])[0]), VITDET_EMBEDDED
    assert scale_of(SIZE, SIZE, fits.side, fits.short_of_1024) == 1
    assert resize(pixels, fits.side, fits.short_of_1024) is pixels
    assert resize(pixels, fits.side).shape == (40, 40, 3)


def test_a_manifest_without_seeds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("clip_id,file,label\na,a.mp4,0\n")
    with pytest.raises(UsageError, match="need a column seed"):
        SynthMotionBoxes(tmp_path).videos("test")


def test_training_has_seeds_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VPBENCH_CACHE", str(tmp_path))
    boxes, labels = (np.load(path) for path in training_objects("train", 3, workers=1))
    assert boxes.shape == (3, 16, MOST, 4)
    assert labels.shape == (3, 16, MOST)
    drawn = objects(FIRST_SEED["train"] + 2, 2, step=2)
    things = len(drawn.labels)
    np.testing.assert_array_equal(boxes[2, :, :things], drawn.boxes)
    np.testing.assert_array_equal(labels[2, :, :things], np.where(drawn.seen >= SEEN, drawn.labels, -1))
    assert (labels[2, :, things:] == -1).all()
    assert min(seed for seed, _ in manifest().values()) >= FIRST_SEED["test"] > FIRST_SEED["val"] > 12006


def _inside(boxes: np.ndarray, margin: int) -> np.ndarray:
    """Which pixels `[T, 64, 64]` are in any of the boxes `[T, n, 4]`, or that near to one."""
    centre = np.arange(SIZE) + 0.5
    x0, y0, x1, y1 = np.moveaxis(boxes, -1, 0)[..., None]
    across, down = ((centre > a - margin) & (centre < b + margin) for a, b in ((x0, x1), (y0, y1)))
    found: np.ndarray = (down[..., :, None] & across[..., None, :]).any(axis=1)
    return found
