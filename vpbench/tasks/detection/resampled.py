"""Average precision from detections that are matched once: over resampled videos, and with objects set aside.

Computes what `tasks.detection` gets from its library, for many weightings of the videos at a time.
"""

from dataclasses import dataclass

import numpy as np

from vpbench.rows.statistics.intervals import Interval
from vpbench.tasks.detection.boxes import Bools, Detections, Floats, Ints, Truth, usable

RESAMPLES = 1000
_RECALLS = np.linspace(0.0, 1.0, 101)
_TAILS = (0.025, 0.975)
_CHUNK = 2_000_000  # detections x resamples held at once: 16 MB per array
_ROWS = 500_000  # detections whose pairs with objects are formed at once


@dataclass(frozen=True)
class Ranked:
    """One class: its detections by falling score, `video [n]`, `hit [n]`, and `objects [V]`, how many a video shows."""

    video: Ints
    hit: Bools
    objects: Ints


@dataclass(frozen=True)
class Candidates:
    """Pairs of usable detections and objects of their class and frame that overlap enough, P of them."""

    detection: Ints
    object: Ints
    overlap: Floats


def ranked(truth: Truth, found: Detections, threshold: float = 0.5, aside: Bools | None = None) -> list[Ranked]:
    """Match the detections with the objects; returns one `Ranked` per class.

    aside `[G]`: objects that are neither to be found nor wrong to find; detections matched with one are left out.
    """
    kept, _ = usable(truth, found)
    return rank(truth, kept, candidates(truth, kept, threshold), aside)


def candidates(truth: Truth, kept: Detections, threshold: float) -> Candidates:
    """Find the pairs that may match; `kept` are usable detections."""
    by_class = truth.frame * truth.classes + truth.label
    order = np.argsort(by_class, kind="stable")
    parts = [
        _pairs(truth, kept, np.arange(start, min(start + _ROWS, len(kept.frame))), by_class[order], order, threshold)
        for start in range(0, max(1, len(kept.frame)), _ROWS)
    ]
    return Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def rank(truth: Truth, kept: Detections, pairs: Candidates, aside: Bools | None = None) -> list[Ranked]:
    """Do as `ranked`, with usable detections and their pairs at hand."""
    ignored = np.zeros(len(truth.frame), np.bool_) if aside is None else aside
    taken = _greedy(pairs, ignored, len(kept.frame))
    hit = taken >= 0
    counted = ~hit
    counted[hit] = ~ignored[taken[hit]]
    object_video, video = truth.video[truth.frame], truth.video[kept.frame]
    # by class and falling score; equal scores stay in the order of frames
    order = np.lexsort((-kept.score, kept.label))
    order = order[counted[order]]
    bounds = np.searchsorted(kept.label[order], np.arange(1, truth.classes))
    found = []
    for label, rows in enumerate(np.split(order, bounds)):
        shown = object_video[(truth.label == label) & ~ignored]
        objects = np.bincount(shown, minlength=len(truth.videos))
        # what comes after the last hit changes no precision
        end = int(np.flatnonzero(hit[rows])[-1]) + 1 if hit[rows].any() else 0
        found.append(Ranked(video[rows[:end]], hit[rows[:end]], objects))
    return found


def average_precision(one: Ranked, weights: Ints) -> Floats:
    """Return the AP `[R]` of one class where video v counts `weights[r, v]` times; NaN where no video shows it.

    A detection that counts k times stands k times in a row.
    """
    total = weights @ one.objects
    if not len(one.video):
        return np.where(total > 0, 0.0, np.nan)
    hits = np.flatnonzero(one.hit)
    drawn = weights[:, one.video]
    # precision falls between hits and rises at them: its monotone envelope is decided at hits alone
    found = drawn[:, hits].cumsum(axis=1)
    above = drawn.cumsum(axis=1)[:, hits]
    precision = found / np.maximum(above, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(_RECALLS, found / np.maximum(total, 1)[:, None], side="right")
    # recall 0 is reached from the start, before anything is found
    steps = np.diff(reached, axis=1, prepend=0)
    return np.where(total > 0, (envelope * steps).sum(axis=1) / len(_RECALLS), np.nan)


def mean_precision(classes: list[Ranked], weights: Ints) -> Floats:
    """Return the mean AP `[R]` over the classes that each weighting of the videos shows; NaN where it shows none."""
    total, shown = np.zeros(len(weights)), np.zeros(len(weights))
    for one in classes:
        chunk = max(1, _CHUNK // max(1, len(one.video)))
        ap = np.concatenate([average_precision(one, weights[i : i + chunk]) for i in range(0, len(weights), chunk)])
        there = ~np.isnan(ap)
        total[there] += ap[there]
        shown += there
    return np.where(shown > 0, total / np.maximum(shown, 1), np.nan)


def map50_interval(truth: Truth, found: Detections, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return `map50`, a share in [0, 1], with a 95 % interval from a percentile bootstrap over videos.

    Raises ValueError where there are no objects.
    """
    draws = mean_precision(ranked(truth, found), _draws(truth, seed, resamples))
    return _interval(draws)


def map50_difference_pp(
    truth: Truth, dense: Detections, method: Detections, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return `map50` of a method less that of dense in percentage points; every resample takes the same videos of both.

    Raises ValueError where there are no objects.
    """
    weights = _draws(truth, seed, resamples)
    ours, theirs = (mean_precision(ranked(truth, found), weights) for found in (method, dense))
    return _interval(100 * (ours - theirs))


def _draws(truth: Truth, seed: int, resamples: int) -> Ints:
    """Return how often each video counts, `[1 + resamples, V]`; in row 0 each does once."""
    if not len(truth.frame):
        raise ValueError("no objects to be found, so no precision")
    n = len(truth.videos)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.concatenate([np.ones((1, n), np.int64), drawn])


def _interval(values: Floats) -> Interval:
    """Return the value of row 0 with the tails of the others; resamples that happen to show no object tell nothing."""
    lo, hi = np.nanquantile(values[1:], _TAILS)
    return Interval(float(values[0]), float(lo), float(hi))


def _pairs(
    truth: Truth, kept: Detections, rows: Ints, groups: Ints, order: Ints, threshold: float
) -> tuple[Ints, Ints, Floats]:
    """Pair these detections with the objects of their frame and class: `groups` sorted, of `order`."""
    wanted = kept.frame[rows] * truth.classes + kept.label[rows]
    first, last = (np.searchsorted(groups, wanted, side=side) for side in ("left", "right"))
    count = last - first
    detection = np.repeat(rows, count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    matched = order[np.repeat(first, count) + within]
    overlap = iou(kept.boxes[detection], truth.boxes[matched])
    enough = overlap >= min(threshold, 1 - 1e-10)  # the library's rule for a threshold of 1
    return detection[enough], matched[enough], overlap[enough]


def iou(a: Floats, b: Floats) -> Floats:
    """Return the intersection over union `[n]` of boxes `[n, 4]`, row by row; 0 where nothing intersects.

    In the order of operations of COCO's own code, so that boxes right at a threshold fall on the same side.
    """
    size_a, size_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    inner = np.minimum(a[:, :2] + size_a, b[:, :2] + size_b) - np.maximum(a[:, :2], b[:, :2])
    common = np.where((inner > 0).all(axis=1), inner.prod(axis=1), 0.0)
    union = size_a.prod(axis=1) + size_b.prod(axis=1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def _greedy(pairs: Candidates, ignored: Bools, detections: int) -> Ints:
    """Return the object that each detection takes, -1 for none.

    Detections choose in their order, objects that are to be found before ignored ones, then by overlap, and of equal
    overlaps the later object.
    """
    order = np.lexsort((-pairs.object, -pairs.overlap, ignored[pairs.object], pairs.detection))
    taken = np.full(detections, -1, np.int64)
    gone: set[int] = set()
    for detection, candidate in zip(pairs.detection[order].tolist(), pairs.object[order].tolist(), strict=True):
        if taken[detection] < 0 and candidate not in gone:
            taken[detection] = candidate
            gone.add(candidate)
    return taken
