"""Tango's score, against its definition solved by brute force and against exact coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vpbench.rows.statistics import intervals, paired


def likeliest(b: int, c: int, n: int, delta: float) -> float:
    """Return the share of pairs that only dense gets right, searched on a grid: the most likely one with `delta`."""
    shares = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        likely = b * np.log(shares) + c * np.log(shares + delta) + (n - b - c) * np.log(1 - 2 * shares - delta)
    return float(shares[np.nanargmax(likely)])


@pytest.mark.parametrize(("b", "c", "n"), [(12, 2, 50), (3, 9, 40), (1, 1, 500), (30, 20, 60)])
@pytest.mark.parametrize("delta", [-0.2, -0.005, 0.0, 0.1])
def test_the_error_is_that_of_the_most_likely_shares(b: int, c: int, n: int, delta: float) -> None:
    share = likeliest(b, c, n, delta)
    expected = (c - b - n * delta) / math.sqrt(n * (2 * share + delta - delta**2))
    assert paired.paired_score(b, c, n, delta) == pytest.approx(expected, rel=1e-3)


def test_at_no_difference_it_is_mcnemars() -> None:
    assert paired.paired_score(12, 3, 100, 0.0) == pytest.approx((3 - 12) / math.sqrt(15))


@pytest.mark.parametrize("n", [1, 20, 300, 10_000])
def test_without_discordant_pairs_the_bound_is_known(n: int) -> None:
    assert paired.paired_score_bound(0, 0, n) == pytest.approx(-(intervals.Z**2) / (n + intervals.Z**2), rel=1e-6)
    assert paired.paired_score(0, 0, n, 0.0) == 0


@pytest.mark.parametrize(("b", "c", "n"), [(5, 0, 5), (1, 0, 1), (0, 7, 7), (4, 9, 30)])
def test_the_bound_lies_below_the_difference(b: int, c: int, n: int) -> None:
    bound = paired.paired_score_bound(b, c, n)
    assert -1 <= bound <= (c - b) / n
    if bound > -1:
        assert paired.paired_score(b, c, n, bound) == pytest.approx(intervals.Z, rel=1e-6)


def test_it_covers_where_a_bootstrap_does_not() -> None:
    """With a true loss of 1 pp and 100 pairs, the bound excludes the truth in hardly more than 2.5 % of samples."""
    n, loss = 100, 0.01
    drawn = np.random.default_rng(0).multinomial(n, [0.02, 0.01, 0.97], size=2000)
    excluded = np.mean([paired.paired_score(int(b), int(c), n, -loss) > intervals.Z for b, c, _ in drawn])
    assert excluded <= 0.03
    silent = (drawn[:, 0] + drawn[:, 1] == 0).mean()
    assert silent > 0.03, "so often a bootstrap would exclude every loss"


@pytest.mark.parametrize(("b", "c", "n", "delta"), [(3, 3, 5, 0), (0, 0, 0, 0), (-1, 0, 5, 0), (0, 0, 5, 1.0)])
def test_what_is_no_table_is_refused(b: int, c: int, n: int, delta: float) -> None:
    with pytest.raises(ValueError, match="need"):
        paired.paired_score(b, c, n, delta)
