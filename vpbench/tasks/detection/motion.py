"""Average precision of slow, medium and fast objects, told apart as in FGFA (arXiv 1703.10025).

FGFA's own code differs in what it does with detections that match nothing: it shares them among the speeds, by the
objects that they overlap most. Here each counts in full at every speed, so that a rare speed has a lower precision than
there; numbers are to be compared between configurations, not with published ones.
"""

import numpy as np

from vpbench.tasks.detection.boxes import Bools, Detections, Floats, Truth, usable
from vpbench.tasks.detection.resampled import candidates, iou, mean_precision, rank

#: frames on either side that an object is compared with
NEAR = 10
#: motion IoU above which an object is slow, and below which it is fast
SLOW, FAST = 0.9, 0.7
#: what `speeds` means, to be printed beside its numbers
DEFINITION = (
    f"motion IoU = mean IoU of an object with itself in the frames within +-{NEAR}; "
    f"slow > {SLOW}, medium {FAST}..{SLOW}, fast < {FAST}; "
    "objects of other speeds are neither hit nor miss; unmatched detections are wrong at every speed"
)


def motion_iou(truth: Truth) -> Floats:
    """Return `[G]`: how well an object's box overlaps its boxes in the frames up to `NEAR` before and after.

    Frames go by their numbers; those in which the object is missing are left out. NaN where none is left, and for
    objects without a track.
    """
    total, count = np.zeros(len(truth.frame)), np.zeros(len(truth.frame))
    number, video = truth.number[truth.frame], truth.video[truth.frame]
    known = np.flatnonzero(truth.track >= 0)
    if len(known):
        tracks = np.unique(np.stack([video[known], truth.track[known]]), axis=1, return_inverse=True)[1].reshape(-1)
        # numbers of one track lie further from those of the next than any two frames that are compared
        span = int(number.max() - number.min()) + NEAR + 1
        place = tracks * span + number[known] - number.min()
        order = np.argsort(place, kind="stable")
        place, known = place[order], known[order]
        for distance in range(1, NEAR + 1):
            at = np.minimum(np.searchsorted(place, place + distance), len(place) - 1)
            there = place[at] == place + distance
            before, after = known[there], known[at[there]]
            overlap = iou(truth.boxes[before], truth.boxes[after])
            for side in (before, after):
                np.add.at(total, side, overlap)
                np.add.at(count, side, 1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def speeds(truth: Truth) -> dict[str, Bools]:
    """Return which objects are slow, medium and fast, `[G]` each; those without a motion IoU are none of them."""
    motion = motion_iou(truth)
    return {"slow": motion > SLOW, "medium": (motion >= FAST) & (motion <= SLOW), "fast": motion < FAST}


def map50_by_speed(truth: Truth, found: Detections) -> dict[str, float]:
    """Return `map50`, a share in [0, 1], of the objects of each speed (see `DEFINITION`); -1 where there are none."""
    kept, _ = usable(truth, found)
    pairs = candidates(truth, kept, threshold=0.5)
    once = np.ones((1, len(truth.videos)), np.int64)
    result = {}
    for name, chosen in speeds(truth).items():
        value = float(mean_precision(rank(truth, kept, pairs, ~chosen), once)[0])
        result[name] = -1.0 if np.isnan(value) else value
    return result
