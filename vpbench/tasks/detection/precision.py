"""Average precision of detections, as COCO defines it, through the library `faster-coco-eval`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vpbench.errors import UsageError
from vpbench.tasks.detection.boxes import CUT, Detections, Floats, Ints, Truth, empty_frames, usable

#: what `map50` is, to be stored and printed beside it: other definitions give other numbers for the same detections
DEFINITION = f"COCO AP@0.5, 101 recall points, {CUT} detections per frame and class"
#: overlaps (IoU) over which `map` is averaged; the first is that of `map50`
THRESHOLDS = np.linspace(0.5, 0.95, 10)
#: average precision of a class that no frame shows; it takes no part in means
NO_OBJECTS = -1.0


@dataclass(frozen=True)
class Scores:
    """Average precisions, shares in [0, 1]; results tables hold them in percent.

    `map50`: mean of `ap50_per_class [classes]` at IoU 0.5; `map`: mean over IoU 0.50:0.05:0.95. Classes without any
    object are -1 and in no mean; without objects at all both means are -1. `problems` counts detections that are not
    as they should be, and frames without any, by what was done with them.
    """

    map50: float
    map: float
    ap50_per_class: Floats
    frames: int
    problems: dict[str, int]


def evaluate(truth: Truth, found: Detections) -> Scores:
    """Compare detections with objects; raises UsageError where the library is not installed.

    Per class, detections of all frames go by falling score; each takes the free object of its frame with the largest
    IoU that reaches the threshold, or is a false positive. Precision, made monotone, is averaged over 101 recalls.
    """
    ranked, problems = usable(truth, found)
    ap = np.stack([_class_precision(truth, ranked, label) for label in range(truth.classes)])
    there = ap[:, 0] != NO_OBJECTS
    map50, overall = (float(ap[there, 0].mean()), float(ap[there].mean())) if there.any() else (NO_OBJECTS,) * 2
    return Scores(map50, overall, ap[:, 0], len(truth.video), problems | empty_frames(truth, ranked))


def _class_precision(truth: Truth, ranked: Detections, label: int) -> Floats:
    """Return the AP of one class at each threshold.

    Class by class, because the library builds a Python object per box: one class of a large split fits into memory.
    """
    objects, detected = np.flatnonzero(truth.label == label), ranked[ranked.label == label]
    if not len(objects):
        return np.full(len(THRESHOLDS), NO_OBJECTS)
    if not len(detected.frame):
        return np.zeros(len(THRESHOLDS))
    frames = np.union1d(truth.frame[objects], detected.frame)  # others hold nothing of this class
    theirs = _annotations(truth.frame[objects], truth.boxes[objects])
    ours = _annotations(detected.frame, detected.boxes)
    for annotation, score in zip(ours, detected.score.tolist(), strict=True):
        annotation["score"] = score
    precision = _run_library(frames, theirs, ours)
    return precision.mean(axis=1)


def _annotations(frame: Ints, boxes: Floats) -> list[dict[str, Any]]:
    """Write boxes as the library takes them; its ids start at 1, since it reads 0 as "no object"."""
    size = boxes[:, 2:] - boxes[:, :2]
    xywh = np.concatenate([boxes[:, :2], size], axis=1).tolist()
    return [
        {"id": i, "image_id": f, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, (f, box) in enumerate(zip(frame.tolist(), xywh, strict=True), start=1)
    ]


def check_library() -> None:
    """Raise UsageError where the library that computes average precision is not installed."""
    try:
        import faster_coco_eval  # noqa: F401
    except ImportError as error:
        raise UsageError(f"average precision needs faster-coco-eval ({error}); pip install faster-coco-eval") from error


def _run_library(frames: Ints, theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> Floats:
    """Return the precision of one class at each threshold and recall, `[10, 101]`."""
    check_library()
    from faster_coco_eval import COCO, COCOeval_faster

    sides = []
    for rows in (theirs, ours):
        side = COCO()
        side.dataset = {"images": [{"id": f} for f in frames.tolist()], "categories": [{"id": 1}], "annotations": rows}
        side.createIndex()
        sides.append(side)
    run = COCOeval_faster(*sides, iouType="bbox", print_function=lambda *_: None)
    run.params.iouThrs, run.params.maxDets = THRESHOLDS, [CUT]
    run.params.areaRng, run.params.areaRngLbl = [[0.0, float("inf")]], ["all"]  # objects of any size
    run.evaluate()
    run.accumulate()
    precision: Floats = np.asarray(run.eval["precision"], np.float64)[:, :, 0, 0, 0]
    return precision
