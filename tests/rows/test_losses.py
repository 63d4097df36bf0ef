"""Bounds of losses, against intervals by hand; and no comparison more may ever make a claim easier."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpbench.rows.schema import Result
from vpbench.rows.statistics import intervals, losses, paired

N = 504


def row(b: int = 0, c: int = 0, n: int = N, **changes: Any) -> Result:
    """Return a row of n videos whose bootstrap is as wide as that of independent pairs."""
    delta = 100 * (c - b) / n
    half = 196 * math.sqrt(max(0.0, (b + c) / n - (delta / 100) ** 2) / n)
    found: Result = {"status": "ok", "method": "rlt", "notes": None, "n_videos": n, "n_clips": n}
    found |= {"disc_b": b, "disc_c": c, "delta_pp": delta, "delta_ci_lo": delta - half, "delta_ci_hi": delta + half}
    given: Any = changes
    return found | given


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8),
    st.lists(st.sampled_from(["random", "stts_random", "stts_uniform", "downsample"]), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_settings_that_are_added_never_shrink_a_bound_and_controls_change_none(
    first: list[tuple[int, int]], more: list[tuple[int, int]], controls: list[str]
) -> None:
    few, many = [row(*pair) for pair in first], [row(*pair) for pair in [*first, *more]]
    before, after = losses.bounds_pp(few), losses.bounds_pp(many)
    for narrow, wide in zip(before, after, strict=False):
        assert narrow is not None
        assert wide is not None
        assert wide > narrow if more else wide == narrow
    references = [row(5, 5, method=name, notes="control") for name in controls]
    assert losses.bounds_pp([*few, *references])[: len(few)] == before


def test_a_bound_by_hand() -> None:
    """40 lost and 30 gained of 5,000, among 20: the score is 3.023 standard errors where the bound lies."""
    bound = losses.bound_pp(row(40, 30, 5000), 20)
    assert bound is not None
    assert paired.paired_score(40, 30, 5000, -bound / 100) == pytest.approx(3.02334, abs=1e-4)
    # the normal bound of so many pairs is hardly lower
    assert 0 < bound - (0.2 + 100 * 3.02334 * math.sqrt((70 / 5000 - 0.002**2) / 5000)) < 0.05


def test_without_a_changed_answer_the_bound_is_known() -> None:
    for among in (1, 20):
        z = intervals.critical(among)
        assert losses.bound_pp(row(), among) == pytest.approx(100 * z**2 / (N + z**2))


def test_no_loss_wants_many_clips_and_not_only_equal_answers() -> None:
    """Without a pair that differs a bootstrap is a point; the score test knows how few the videos are."""
    for n, shown in ((300, False), (700, False), (800, True)):
        bound = losses.bound_pp(row(n=n))
        assert bound is not None
        assert (bound < losses.EPSILON_PP) is shown
    # the bootstrap's interval counts as well, at its very edge
    for lowest in (-0.5, -0.499):
        assert losses.bound_pp(row(n=20_000, delta_ci_lo=lowest)) == pytest.approx(-lowest)


def test_videos_of_several_clips_count_as_fewer_pairs() -> None:
    """A bootstrap twice as wide as independent pairs: a quarter of the pairs, and of the discordant ones."""
    wide = row(40, 40, 4000)
    wide |= {"delta_ci_lo": 2 * wide["delta_ci_lo"], "delta_ci_hi": 2 * wide["delta_ci_hi"]}
    expected = -100 * paired.paired_score_bound(10, 10, 1000, intervals.critical(20))
    assert losses.bound_pp(wide, 20) == pytest.approx(expected, rel=1e-3)


def test_detectors_are_bounded_by_their_interval_if_it_has_a_width() -> None:
    unknown: dict[str, Any] = {"disc_b": None, "disc_c": None}
    found = losses.bound_pp(row(delta_pp=-1.0, delta_ci_lo=-2.0, delta_ci_hi=0.5, **unknown), 20)
    assert found == pytest.approx(1 + 3.02334 / 1.95996, rel=1e-4)
    assert losses.bound_pp(row(delta_pp=0.0, delta_ci_lo=0.0, delta_ci_hi=0.0, **unknown)) is None
    assert losses.bound_pp(row(delta_pp=None)) is None
    assert losses.bound_pp(row(method="dense")) is None


def test_what_failed_is_not_compared() -> None:
    rows = [row(), row(status="failed"), row(method="dense"), row(delta_ci_lo=None), row(method="random")]
    assert losses.comparisons(rows) == {False: 1, True: 1}


def test_false_claims_among_twenty_are_rare() -> None:
    """Twenty settings that lose 1 pp, their answers correlated: hardly ever is that ruled out of one of them."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        shared, own = rng.random((N, 1)), rng.random((N, 20))
        fate = np.where(rng.random((N, 20)) < 0.5, shared, own)
        lost, gained = (fate < 0.02).sum(axis=0), (fate > 0.99).sum(axis=0)
        rows = [row(int(b), int(c)) for b, c in zip(lost, gained, strict=True)]
        wrong += any(bound is not None and bound < 1 for bound in losses.bounds_pp(rows))
    assert wrong <= 10
