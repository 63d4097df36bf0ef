"""What the gate knows of a cell: clip by clip what was kept, what it cost and what came out; and how sets are written.

A set of token positions is written as the hexadecimal number whose bits they are, after an `x`; sequences that run side
by side are joined by `.`, and calls one after the other by `/`. Other whole numbers are written as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: largest difference of two clips' logits, as a share of the largest logit, that is called equal
TOLERANCE = 1e-4
#: digits of logits in the baseline: their rounding is far below the tolerance
DIGITS = 7
#: among the sets of a frame: the classes of its boxes, the best one first
LABELS = "labels"


@dataclass(frozen=True)
class Facts:
    """One clip, or one frame of a video, in one cell.

    `tokens`: how many entered attention and MLP of each block; `sets`: by site, what was kept there; `values`: logits,
    or scores and boxes in shares of the frame.
    """

    tokens: tuple[tuple[int, int], ...]
    macs: int
    sets: Mapping[str, str]
    values: tuple[float, ...]

    @property
    def answer(self) -> object:
        """The class of the clip, or of the frame's best box."""
        if LABELS in self.sets:
            return self.sets[LABELS].partition(" ")[0]
        return max(range(len(self.values)), key=self.values.__getitem__)


@dataclass(frozen=True)
class Measured:
    """One method on one backbone, as it runs now.

    `keep`: the keep ratio that parameters were derived from, None for defaults. `agree`: share of clips with dense's
    answer; `kl`: mean KL(dense || cell) in nats, None for detectors. `kept_all`: deviation from dense of the method
    that keeps everything, None where it cannot, or where it was never so.
    """

    params: Mapping[str, Any]
    keep: float | None
    agree: float
    kl: float | None
    kept_all: float | None
    clips: Mapping[str, Facts]


@dataclass(frozen=True)
class Stored:
    """One method on one backbone in a baseline.

    `agree_at_least`, `kl_at_most`: bounds of fidelity to dense. `keeps_all`: whether the method equals dense where it
    keeps everything. `time`: its time over dense's, None where that was not measured.
    """

    params: Mapping[str, Any]
    keep: float | None
    agree_at_least: float
    kl_at_most: float | None
    keeps_all: bool
    time: float | None
    clips: Mapping[str, Facts]


def stored(found: Measured, time: float | None) -> Stored:
    """Turn what was measured into a baseline, its bounds included.

    Logits of both sides may move by the tolerance, d: the root of a KL then moves by no more than 2 d.
    """
    largest = max((abs(value) for facts in found.clips.values() for value in facts.values), default=0.0)
    bound = None if found.kl is None else (found.kl**0.5 + 2 * TOLERANCE * largest) ** 2
    keeps_all = found.kept_all is not None and found.kept_all <= TOLERANCE
    kl = None if bound is None else float(f"{bound:.4g}")
    return Stored(found.params, found.keep, found.agree, kl, keeps_all, time, found.clips)


def rounded(values: Iterable[float]) -> tuple[float, ...]:
    """Round values as the baseline writes them."""
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)


def written(positions: Iterable[int]) -> str:
    """Write one set of positions; negative ones, which stand for class tokens, are always there and left out."""
    return f"x{sum(1 << p for p in set(positions) if p >= 0):x}"


def positions(text: str) -> set[int]:
    """Read one set back."""
    bits = int(text.removeprefix("x"), 16)
    return {n for n in range(bits.bit_length()) if bits >> n & 1}


def deviation(found: Sequence[float], expected: Sequence[float]) -> float:
    """Return the largest difference as a share of the largest expected value; infinite for unequal lengths and NaN."""
    if len(found) != len(expected):
        return float("inf")
    differences = [abs(a - b) for a, b in zip(found, expected, strict=True)]
    if any(d != d for d in differences):
        return float("inf")
    return max(differences, default=0.0) / max((abs(b) for b in expected), default=1.0)


def same(found: Facts, expected: Facts, tolerance: float = TOLERANCE) -> bool:
    """Say whether two runs of a clip did the same."""
    exact = (found.tokens, found.macs, found.sets) == (expected.tokens, expected.macs, expected.sets)
    return exact and deviation(found.values, expected.values) <= tolerance
