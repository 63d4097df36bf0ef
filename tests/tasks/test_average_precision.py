"""Average precision by hand, against the library on random detections, and of resampled videos."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from vpbench.data.boxes import Boxes, Frame, Segment
from vpbench.errors import UsageError
from vpbench.tasks.detection.boxes import CUT, Detections, Truth, usable
from vpbench.tasks.detection.motion import map50_by_speed, motion_iou, speeds
from vpbench.tasks.detection.precision import NO_OBJECTS, THRESHOLDS, evaluate
from vpbench.tasks.detection.resampled import map50_difference_pp, map50_interval, mean_precision, ranked

BOX = (10.0, 10.0, 30.0, 40.0)


def truth_of(
    rows: Sequence[tuple[int, int, tuple[float, ...]]], frames: int = 4, classes: int = 2, videos: int = 1
) -> Truth:
    """Objects as (frame, label, box); frames are dealt out to videos in runs."""
    video = np.arange(frames) * videos // frames
    boxes = np.array([row[2] for row in rows], float).reshape(-1, 4)
    frame, label = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    names = tuple(f"v{i}" for i in range(videos))
    return Truth(classes, names, video, np.arange(frames), frame, label, boxes, np.full(len(rows), -1))


def found_of(rows: Sequence[tuple[int, int, float, tuple[float, ...]]]) -> Detections:
    boxes = np.array([row[3] for row in rows], float).reshape(-1, 4)
    frame, label = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
    return Detections(frame, label, np.array([row[2] for row in rows], float), boxes)


def random_case(seed: int, frames: int = 24, classes: int = 4, videos: int = 6) -> tuple[Truth, Detections]:
    """Objects on a coarse grid and detections near them, so that scores, overlaps and thresholds often tie."""
    rng = np.random.default_rng(seed)

    def boxes(n: int) -> Any:
        corner = rng.integers(0, 12, (n, 2)) * 4.0
        return np.concatenate([corner, corner + rng.integers(1, 8, (n, 2)) * 4.0], axis=1)

    objects, n = int(rng.integers(20, 80)), int(rng.integers(50, 300))
    truth = Truth(
        classes,
        tuple(f"v{i}" for i in range(videos)),
        np.sort(rng.integers(videos, size=frames)),
        np.arange(frames),
        rng.integers(frames, size=objects),
        rng.integers(classes - 1, size=objects),  # the last class has no objects
        boxes(objects),
        np.full(objects, -1),
    )
    near = rng.integers(objects, size=n)
    moved = truth.boxes[near] + rng.integers(-1, 2, (n, 4)) * rng.choice([0.0, 2.0, 4.0], (n, 1))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    away = rng.random(n) < 0.4
    found = Detections(
        np.where(away, rng.integers(frames, size=n), truth.frame[near]),
        np.where(rng.random(n) < 0.8, truth.label[near], rng.integers(classes, size=n)),
        rng.integers(1, 12 if seed % 2 else 100_000, n) / 16,
        np.where(away[:, None], boxes(n), moved),
    )
    return truth, found


def library(truth: Truth, found: Detections, aside: Any = None) -> Any:
    """AP `[10, classes]` of the library, all classes at once; objects set aside by the only way it has, their area."""
    sides = []
    areas = np.zeros(len(truth.frame)) if aside is None else aside * 9.0
    rows = [(truth.frame, truth.label, truth.boxes, areas, np.ones(len(truth.frame)))]
    rows.append((found.frame, found.label, found.boxes, np.zeros(len(found.frame)), found.score))
    for frame, label, boxes, area, score in rows:
        side = COCO()
        side.dataset = {
            "images": [{"id": i} for i in range(len(truth.video))],
            "categories": [{"id": i} for i in range(truth.classes)],
            "annotations": [
                {"id": i + 1, "image_id": int(frame[i]), "category_id": int(label[i]), "iscrowd": 0,
                 "bbox": [*boxes[i, :2].tolist(), *(boxes[i, 2:] - boxes[i, :2]).tolist()],
                 "area": float(area[i]), "score": float(score[i])}
                for i in range(len(frame))
            ],
        }  # fmt: skip
        side.createIndex()
        sides.append(side)
    run = COCOeval_faster(*sides, iouType="bbox", print_function=lambda *_: None)
    run.params.areaRng, run.params.areaRngLbl, run.params.maxDets = [[0, 5]], ["all"], [CUT]
    run.evaluate()
    run.accumulate()
    return run.eval["precision"][:, :, :, 0, 0].mean(axis=1)


def repeated(truth: Truth, found: Detections, times: Any) -> tuple[Truth, Detections]:
    """Each video as often as `times` says, the copies of a frame one after the other."""
    count = times[truth.video]
    first = np.cumsum(count) - count

    def copies(frame: Any) -> tuple[Any, Any]:
        rows = np.repeat(np.arange(len(frame)), count[frame])
        within = np.arange(len(rows)) - np.repeat(np.cumsum(count[frame]) - count[frame], count[frame])
        return rows, first[frame[rows]] + within

    rows, frame = copies(truth.frame)
    many = Truth(
        truth.classes, truth.videos, np.repeat(truth.video, count), np.arange(count.sum()), frame,
        truth.label[rows], truth.boxes[rows], truth.track[rows],
    )  # fmt: skip
    rows, frame = copies(found.frame)
    return many, Detections(frame, found.label[rows], found.score[rows], found.boxes[rows])


def test_average_precision_by_hand() -> None:
    truth = truth_of([(0, 0, BOX), (1, 0, BOX), (2, 0, BOX)])
    miss = (50.0, 50.0, 60.0, 60.0)
    found = found_of([(0, 0, 0.9, BOX), (1, 0, 0.8, miss), (1, 0, 0.7, BOX), (3, 1, 0.5, BOX)])
    scores = evaluate(truth, found)
    # recall 1/3 (thresholds 0 .. 0.33) at precision 1, 2/3 (0.34 .. 0.66) at 2/3, never more
    assert scores.map50 == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert scores.ap50_per_class.tolist() == [scores.map50, NO_OBJECTS]
    assert scores.problems == {"frames without detections": 1, "frames without objects": 1}
    assert scores.frames == 4


def test_an_object_is_found_once_and_the_better_box_does_not_steal_it() -> None:
    truth = truth_of([(0, 0, BOX)])
    near = (10.0, 10.0, 30.0, 36.0)
    assert evaluate(truth, found_of([(0, 0, 0.9, near), (0, 0, 0.8, BOX)])).map50 == 1.0
    assert evaluate(truth, found_of([(0, 0, 0.9, near)])).map == pytest.approx(0.8)  # IoU 26/30: up to 0.85


@pytest.mark.parametrize("seed", range(12))
def test_random_detections_agree_with_the_library_at_every_threshold(seed: int) -> None:
    truth, found = random_case(seed)
    expected = library(truth, found)
    scores = evaluate(truth, found)
    assert scores.ap50_per_class == pytest.approx(expected[0], abs=1e-12)
    assert scores.map == pytest.approx(expected[:, expected[0] >= 0].mean(), abs=1e-12)
    once = np.ones((1, len(truth.videos)), np.int64)
    for threshold, ap in zip(THRESHOLDS, expected, strict=True):
        ours = mean_precision(ranked(truth, found, threshold), once)[0]
        assert ours == pytest.approx(ap[ap >= 0].mean(), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_crowded_frames_are_cut_as_the_library_does(seed: int) -> None:
    truth, found = random_case(seed, frames=1, classes=2, videos=1)
    many = Detections(*(np.concatenate([rows] * 3) for rows in (found.frame, found.label, found.score, found.boxes)))
    scores = evaluate(truth, many)
    assert scores.problems["beyond 100 of a class in a frame, left out"] > 0
    assert scores.map50 == pytest.approx(library(truth, many)[0, 0], abs=1e-12)
    assert mean_precision(ranked(truth, many), np.ones((1, 1), np.int64))[0] == pytest.approx(scores.map50, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_a_resample_is_the_precision_of_repeated_videos(seed: int) -> None:
    truth, found = random_case(seed)
    rng = np.random.default_rng(seed)
    # two detections of one frame with the same score could be told apart by the order of their copies
    found = Detections(found.frame, found.label, found.score + found.boxes[:, 0] / 4096, found.boxes)
    _, first = np.unique(np.stack([found.frame, found.label, found.score]), axis=1, return_index=True)
    found = usable(truth, found[np.sort(first)])[0]
    times = rng.multinomial(len(truth.videos), np.full(len(truth.videos), 1 / len(truth.videos)), size=4)
    ours = mean_precision(ranked(truth, found), times)
    for value, row in zip(ours, times, strict=True):
        ap = library(*repeated(truth, found, row))[0]
        assert value == pytest.approx(ap[ap >= 0].mean(), abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_objects_set_aside_agree_with_the_library(seed: int) -> None:
    truth, found = random_case(seed)
    kept = usable(truth, found)[0]
    aside = np.random.default_rng(seed).random(len(truth.frame)) < 0.4
    ap = library(truth, kept, aside)[0]
    once = np.ones((1, len(truth.videos)), np.int64)
    assert mean_precision(ranked(truth, found, 0.5, aside), once)[0] == pytest.approx(ap[ap >= 0].mean(), abs=1e-12)


def test_what_is_wrong_with_detections_is_counted() -> None:
    truth = truth_of([(0, 0, BOX)])
    nan, inf = float("nan"), float("inf")
    found = found_of(
        [
            (0, 0, 0.5, BOX),
            (0, 0, nan, BOX),
            (0, 0, inf, BOX),
            (0, 2, 0.9, BOX),
            (0, -1, nan, BOX),
            (0, 0, 0.8, (nan, 10.0, 30.0, 40.0)),
            (0, 0, 0.8, (10.0, 10.0, inf, 40.0)),
            (0, 0, 0.8, (30.0, 40.0, 10.0, 10.0)),
            (0, 0, 0.8, (10.0, 10.0, 10.0, 40.0)),
        ]
    )
    scores = evaluate(truth, found)
    assert scores.problems == {
        "unknown class, left out": 2,
        "score not finite, left out": 2,
        "box not finite, false positive": 2,
        "box without area, false positive": 2,
        "frames without detections": 3,
        "frames without objects": 3,
    }
    assert scores.map50 == pytest.approx(1 / 5)  # four false positives above the hit


def test_beyond_a_hundred_of_a_class_in_a_frame() -> None:
    miss = (50.0, 50.0, 60.0, 60.0)
    truth = truth_of([(0, 0, BOX), (1, 0, BOX)])
    rows = [(0, 0, 0.9, miss)] * CUT + [(0, 0, 0.1, BOX), (0, 1, 0.1, BOX), (1, 0, 0.5, BOX)]
    scores = evaluate(truth, found_of(rows))
    assert scores.problems["beyond 100 of a class in a frame, left out"] == 1
    assert scores.ap50_per_class[0] == pytest.approx(51 / 101 / 101)
    kept, _ = usable(truth, found_of(rows))
    assert (len(kept.score), kept.label.sum()) == (CUT + 2, 1)


def test_nothing_to_find_and_nothing_found() -> None:
    none = found_of([])
    assert evaluate(truth_of([]), none).map50 == evaluate(truth_of([]), found_of([(0, 0, 0.5, BOX)])).map == NO_OBJECTS
    assert evaluate(truth_of([(0, 0, BOX)]), none).ap50_per_class.tolist() == [0.0, NO_OBJECTS]
    with pytest.raises(ValueError, match="no objects"):
        map50_interval(truth_of([]), none)
    assert map50_interval(truth_of([(0, 0, BOX)]), none, resamples=20).hi == 0.0


def test_arrays_that_do_not_fit_are_refused() -> None:
    truth = truth_of([(0, 0, BOX)])
    with pytest.raises(ValueError, match="one of the 4 frames"):
        evaluate(truth, found_of([(4, 0, 0.5, BOX)]))
    with pytest.raises(ValueError, match="one score"):
        evaluate(truth, Detections(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(2), np.zeros((1, 4))))
    with pytest.raises(ValueError, match="labels below 2"):
        truth_of([(0, 2, BOX)])
    with pytest.raises(ValueError, match="finite"):
        truth_of([(0, 0, (float("nan"), 0.0, 1.0, 1.0))])


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UsageError, match=r"pip install faster-coco-eval"):
        evaluate(truth_of([(0, 0, BOX)]), found_of([(0, 0, 0.5, BOX)]))


def test_interval_of_a_paired_difference_is_narrower_than_of_either() -> None:
    truth, found = random_case(1, frames=400, videos=40)
    worse = found[np.random.default_rng(0).random(len(found.score)) < 0.95]
    value = map50_interval(truth, found)
    assert value.value == pytest.approx(evaluate(truth, found).map50, abs=1e-12)
    assert value.lo < value.value < value.hi
    assert value == map50_interval(truth, found) != map50_interval(truth, found, seed=1)
    difference = map50_difference_pp(truth, found, worse)
    assert difference.value == pytest.approx(100 * (evaluate(truth, worse).map50 - value.value), abs=1e-9)
    assert difference.lo <= difference.value <= difference.hi
    assert difference.hi - difference.lo < 100 * (value.hi - value.lo)
    same = map50_difference_pp(truth, found, found)
    assert (same.value, same.lo, same.hi) == (0.0, 0.0, 0.0)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, found = random_case(3)
    whole = map50_interval(truth, found, resamples=50)
    monkeypatch.setattr("vpbench.tasks.detection.resampled._CHUNK", 100)
    monkeypatch.setattr("vpbench.tasks.detection.resampled._ROWS", 7)
    assert map50_interval(truth, found, resamples=50) == whole


def test_bootstrap_of_fifty_thousand_detections_is_quick() -> None:
    rng, frames = np.random.default_rng(0), 5000
    objects = rng.random((frames, 2)) * 200
    truth = Truth(
        30, tuple(map(str, range(100))), np.arange(frames) // 50, np.arange(frames), np.arange(frames),
        rng.integers(30, size=frames), np.concatenate([objects, objects + 80], axis=1), np.full(frames, -1),
    )  # fmt: skip
    frame = np.repeat(np.arange(frames), 10)
    moved = truth.boxes[frame] + rng.normal(0, 12, (len(frame), 4))
    found = Detections(frame, truth.label[frame], rng.random(len(frame)), moved)
    start = time.perf_counter()
    map50_interval(truth, found, resamples=200)
    assert time.perf_counter() - start < 1.5  # about 0.1 on an idle core


def moving(step: float, number: list[int], track: int = 0, label: int = 0) -> list[Frame]:
    """An object of 100 pixels that moves to the right by `step` pixels per frame."""
    boxes = [Boxes.of([((step * n, 0.0, 100 + step * n, 100.0), label, track)]) for n in number]
    return [Frame("v", n, b) for n, b in zip(number, boxes, strict=True)]


def shifted(step: float, frames: int) -> float:
    return (100 - step * frames) / (100 + step * frames)


def test_motion_iou_by_hand() -> None:
    truth = Truth.of([Segment("v", tuple(moving(2, [0, 1, 5, 30, 40])))], 1)
    expected = [
        (shifted(2, 1) + shifted(2, 5)) / 2,
        (shifted(2, 1) + shifted(2, 4)) / 2,
        (shifted(2, 5) + shifted(2, 4)) / 2,
        shifted(2, 10),
        shifted(2, 10),
    ]
    assert motion_iou(truth) == pytest.approx(expected)
    alone = Truth.of([Segment("v", tuple(moving(2, [0, 11])))], 1)
    assert np.isnan(motion_iou(alone)).all()
    assert not any(chosen.any() for chosen in speeds(alone).values())
    unknown = Truth.of([Segment("v", tuple(moving(2, [0, 1], track=-1)))], 1)
    assert np.isnan(motion_iou(unknown)).all()


def test_tracks_of_other_videos_and_other_objects_are_not_compared() -> None:
    def pair(video: str, step: float) -> Segment:
        frames = [
            Frame(video, n, Boxes.of([((step * n, 0.0, 100 + step * n, 100.0), 0, 3), ((0.0, 0.0, 50.0, 50.0), 0, 4)]))
            for n in range(3)
        ]
        return Segment(video, tuple(frames))

    found = motion_iou(Truth.of([pair("a", 0), pair("b", 10)], 1)).reshape(2, 3, 2)
    assert (found[0] == 1.0).all()
    assert (found[1, :, 1] == 1.0).all()
    assert found[1, 0, 0] == pytest.approx((shifted(10, 1) + shifted(10, 2)) / 2)


def test_precision_by_speed_ignores_other_speeds() -> None:
    still, fast = moving(0, list(range(5)), 0), moving(30, list(range(5)), 1)
    both = [
        Frame("v", n, Boxes.of([(tuple(a.boxes.xyxy[0]), 0, 0), (tuple(b.boxes.xyxy[0] + [0, 200, 0, 200]), 0, 1)]))
        for n, (a, b) in enumerate(zip(still, fast, strict=True))
    ]
    truth = Truth.of([Segment("v", tuple(both))], 1)
    slow_only = truth.track == 0
    found = Detections(truth.frame, truth.label, np.ones(10), truth.boxes)[slow_only]
    assert map50_by_speed(truth, found) == {"slow": 1.0, "medium": -1.0, "fast": 0.0}
    assert [int(chosen.sum()) for chosen in speeds(truth).values()] == [5, 0, 5]


def test_truth_of_segments_and_of_some_frames() -> None:
    frames = moving(1, [3, 4, 5])
    truth = Truth.of([Segment("v", tuple(frames[:2])), Segment("v", tuple(frames[2:]))], 1)
    assert truth.videos == ("v",)
    assert truth.number.tolist() == [3, 4, 5]
    some = truth.only(np.array([True, False, True]))
    assert some.number.tolist() == [3, 5]
    assert some.frame.tolist() == [0, 1]
    assert some.boxes[:, 0].tolist() == [3.0, 5.0]
    assert Truth.of([], 3).boxes.shape == (0, 4)
