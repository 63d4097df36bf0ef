"""Whether methods keep the same tokens: overlap of kept sets above chance, from the stored fates of a few clips.

What is kept of a clip of N tokens is the set of those that stand for themselves at the end; of merged ones, the one
that stands for all. Two sets of a and b tokens have the overlap (intersection over union) `J = i / (a + b - i)`. Sets
of these sizes drawn at random share `i ~ Hypergeometric(N, a, b)` tokens, which gives the overlap E[J] by chance, and
none has more than `M = min(a, b) / max(a, b)`, where one set holds the other. Above chance it is

    (J - E[J]) / (M - E[J]):   1 as far as sizes allow, 0 as by chance, below 0 where they avoid each other,

Hubert and Arabie's correction (1985), with the largest overlap that these sizes allow in place of 1. It is undefined
where sizes leave no choice (nothing kept, or everything).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vpbench.errors import NothingMeasured
from vpbench.rows.fates import PIXELS, Fate, Pixels, Shown
from vpbench.rows.schema import Result
from vpbench.rows.statistics.intervals import Floats, Ints

#: clips below which a mean over them says nothing
FEWEST_CLIPS = 3
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Kept:
    """What some rows kept of the same clips, C rows and K clips.

    `counts [C, K]`: tokens kept. `iou`, `above [C, C, K]`: overlap, and overlap above chance, NaN where undefined.
    `motion`, `centre [C, K]`: the latter with as many tokens that move most, by the difference of a tokens' pixels in
    the stored frames to those of the slot before (of the first slot, to the next), and with as many nearest to the
    centre of the frame. Where tokens tie, such as in still pictures, each belongs there to the same part.
    `left_out`: rows that leave fewer or smaller frames, of which there is no set of tokens.
    """

    rows: list[Result]
    clips: list[str]
    tokens: int
    counts: Ints
    iou: Floats
    above: Floats
    motion: Floats
    centre: Floats
    left_out: list[Result]


def of(rows: Sequence[Result], shown: Sequence[Shown]) -> Kept:
    """Compare what rows of a context but dense kept of the clips that all of them were followed on.

    Raises NothingMeasured where fewer than two rows, or than `FEWEST_CLIPS` clips, can be compared.
    """
    fates, frames = _by_clip(shown)
    pruned = [row for row in rows if row["method"] != "dense"]
    followed = [row for row in pruned if any(row["config_id"] in own for own in fates.values())]
    if not followed:
        raise NothingMeasured("no tokens of these rows were followed: rows of older runs, or methods that cannot be")
    last = {row["config_id"]: _stages(row, fates) for row in followed}
    sets = [row for row in followed if PIXELS not in last[row["config_id"]]]
    if len(sets) < 2:
        raise NothingMeasured("no two settings keep a set of tokens")
    clips = [clip for clip, own in fates.items() if all(row["config_id"] in own for row in sets)]
    if len(clips) < FEWEST_CLIPS:
        raise NothingMeasured(
            f"{len(clips)} clips that all were followed on are too few, {FEWEST_CLIPS} are the fewest"
        )
    each = [_clip([fates[clip][row["config_id"]] for row in sets], frames[clip]) for clip in clips]
    counts, iou, above, motion, centre = (np.stack(found, axis=-1) for found in zip(*each, strict=True))
    tokens = fates[clips[0]][sets[0]["config_id"]].tokens
    left_out = [row for row in followed if row not in sets]
    return Kept(sets, clips, tokens, counts, iou, above, motion, centre, left_out)


def _by_clip(shown: Sequence[Shown]) -> tuple[dict[str, dict[str, Fate]], dict[str, Pixels]]:
    """Join what several seeds or runs stored of a clip, each with a dense of its own."""
    fates: dict[str, dict[str, Fate]] = {}
    frames: dict[str, Pixels] = {}
    for clip in shown:
        fates.setdefault(clip.clip_id, {}).update(clip.fates)
        frames.setdefault(clip.clip_id, clip.frames)
    return fates, frames


def _stages(row: Result, fates: Mapping[str, Mapping[str, Fate]]) -> set[str]:
    return {own[row["config_id"]].stages[-1].name for own in fates.values() if row["config_id"] in own}


def _clip(fates: Sequence[Fate], frames: Pixels) -> tuple[Ints, Floats, Floats, Floats, Floats]:
    """Return counts `[C]`, overlap and overlap above chance `[C, C]`, and that with motion and centre `[C]`."""
    sets = np.stack([kept(fate) for fate in fates])
    counts, tokens = sets.sum(axis=1), sets.shape[1]
    wide = sets.astype(np.float64)
    iou, above = _compared(wide @ wide.T, counts[:, None], counts[None, :], tokens)
    near = [_with_top(own, score, tokens) for score in (motion(fates[0], frames), centre(fates[0])) for own in sets]
    return counts, iou, above, np.array(near[: len(sets)]), np.array(near[len(sets) :])


def kept(fate: Fate) -> Mask:
    """Return which tokens stand for themselves at the end, `[N]`."""
    own: Mask = fate.final == np.arange(fate.tokens)
    return own


def _compared(shared: Floats, first: Ints, second: Ints, tokens: int) -> tuple[Floats, Floats]:
    first, second = np.broadcast_arrays(first, second)
    iou = np.divide(shared, first + second - shared, out=np.full(shared.shape, np.nan), where=first + second > 0)
    pairs = zip(iou.flat, first.flat, second.flat, strict=True)
    return iou, np.array([above_chance(float(j), int(a), int(b), tokens) for j, a, b in pairs]).reshape(iou.shape)


def above_chance(iou: float, first: int, second: int, tokens: int) -> float:
    """Return the overlap of sets of `first` and `second` of `tokens` above chance; NaN where sizes leave no choice."""
    low, high = sorted((first, second))
    if low == 0 or high == tokens:
        return float("nan")
    chance = by_chance(low, high, tokens)
    return (iou - chance) / (low / high - chance)


@lru_cache(maxsize=65536)
def by_chance(first: int, second: int, tokens: int) -> float:
    """Return the expected overlap of random sets of `first` and `second` of `tokens`; one of them is not empty."""
    shared = np.arange(max(0, first + second - tokens), min(first, second) + 1)
    likely = _chosen(first, shared) + _chosen(tokens - first, second - shared) - _chosen(tokens, np.array([second]))
    return float((np.exp(likely) * shared / (first + second - shared)).sum())


def _chosen(among: int, number: Ints) -> Floats:
    """Return the logarithm of how many ways there are to choose so many."""
    logs = _log_factorials(1 << among.bit_length())
    ways: Floats = logs[among] - logs[number] - logs[among - number]
    return ways


@lru_cache(maxsize=64)
def _log_factorials(most: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1, dtype=np.float64)))])


def _with_top(own: Mask, score: Floats | None, tokens: int) -> float:
    """Return the overlap above chance of a set with as many tokens of the highest scores; NaN without scores."""
    if score is None:
        return float("nan")
    count = int(own.sum())
    shared = float(top(score, count)[own].sum())
    return above_chance(shared / (2 * count - shared), count, count, tokens) if count else float("nan")


def top(score: Floats, count: int) -> Floats:
    """Return the part of each token in the `count` highest scores, `[N]`: 1, 0, and an equal part of what ties."""
    if count == 0:
        return np.zeros(len(score))
    least = np.partition(score, len(score) - count)[len(score) - count]
    sure, tied = score > least, score == least
    return np.where(sure, 1.0, np.where(tied, (count - sure.sum()) / tied.sum(), 0.0))


def motion(fate: Fate, frames: Pixels) -> Floats | None:
    """Return the mean absolute difference of each token's pixels to those of the slot before, `[N]`; None for one slot.

    frames: uint8 `[slots, H, W, 3]`, whole pixels for each token; of the first slot, the difference to the next.
    """
    slots, rows, columns = fate.grid
    if slots == 1:
        return None
    change = np.abs(np.diff(frames.astype(np.int16), axis=0))
    _, height, width, _ = change.shape
    each = change.reshape(slots - 1, rows, height // rows, columns, width // columns, 3).mean(axis=(2, 4, 5))
    return np.concatenate([each[:1], each]).ravel()


def centre(fate: Fate) -> Floats:
    """Return how near each token is to the centre of the frame, `[N]`: less its distance (l2), in tokens."""
    slots, rows, columns = fate.grid
    row, column = np.arange(rows) - (rows - 1) / 2, np.arange(columns) - (columns - 1) / 2
    near = -np.hypot(row[:, None], column[None, :]).round(9)
    return np.tile(near.ravel(), slots)
