"""Means and gains over videos and runs: estimates, pairing, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vpbench.rows.statistics import weights


def draws(rng: np.random.Generator, runs: int, easy: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """Return what runs have right: each is a little better or worse than `share`, and videos are more or less easy."""
    level = share + 0.03 * rng.standard_normal((runs, 1)) + easy
    found: NDArray[np.bool_] = rng.random((runs, easy.size)) < level
    return found


def test_estimates_are_plain_means() -> None:
    before = np.array([[True, False, True, False]])
    after = np.array([[True, True, True, False], [True, True, True, True]])
    assert weights.mean(after).value == pytest.approx(87.5)
    assert weights.gain(before, after).value == pytest.approx(37.5)


def test_pairs_are_compared_video_by_video() -> None:
    before = np.random.default_rng(0).random((1, 400)) < 0.5
    after = before.copy()
    after[0, :20] = True  # differs in few of them
    paired, alone = weights.gain(before, after), weights.mean(after)
    assert paired.hi - paired.lo < 0.5 * (alone.hi - alone.lo)
    same = weights.gain(before, before)
    assert (same.lo, same.value, same.hi) == (0, 0, 0)


def test_runs_that_differ_widen_the_interval() -> None:
    videos = np.arange(300)
    like = np.stack([videos % 2 == 0] * 3)
    unlike = np.stack([videos % 10 < share for share in (2, 5, 8)])
    narrow, wide = weights.mean(like), weights.mean(unlike)
    assert narrow.value == wide.value == 50
    assert wide.hi - wide.lo > 2 * (narrow.hi - narrow.lo)


def test_intervals_of_gains_hold_the_truth() -> None:
    """Of 20 trials with six runs each."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(20):
        easy = rng.uniform(-0.3, 0.3, 250)
        found = weights.gain(draws(rng, 1, easy, 0.5), draws(rng, 6, easy, 0.6))
        # the one run before is what it is: its level is part of what is compared
        held += found.lo <= 10 <= found.hi
    assert held >= 15
