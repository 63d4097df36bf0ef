"""What a number of videos can show, against counting every outcome by whole numbers."""

from __future__ import annotations

import math

import pytest

from vpbench.rows.statistics import intervals, paired, power


@pytest.mark.parametrize("among", [1, 20])
@pytest.mark.parametrize("changed", [0.0, 0.02, 0.1])
def test_so_many_videos_are_enough_and_one_less_is_not(among: int, changed: float) -> None:
    needed = power.videos_needed(1.0, changed, among)
    assert power.ruled_out_pp(needed, changed, among) < 1 <= power.ruled_out_pp(needed - 1, changed, among) + 1e-9


def test_the_known_case() -> None:
    """2 % of the answers change: near the normal bound z^2 (q - margin^2) / margin^2 of 765 and 1,819, above it."""
    assert [power.videos_needed(1.0, 0.02, among) for among in (1, 20)] == [921, 2192]
    assert power.videos_needed(1.0, 0.0) == math.floor(0.99 / 0.01 * intervals.Z**2) + 1


@pytest.mark.parametrize(("videos", "changed", "margin"), [(60, 0.1, 12.0), (40, 0.2, 20.0), (30, 0.0, 10.0)])
def test_the_chance_is_that_of_all_outcomes(videos: int, changed: float, margin: float) -> None:
    expected = 0.0
    for b in range(videos + 1):
        for c in range(videos + 1 - b):
            ways = math.comb(videos, b + c) * math.comb(b + c, b)
            likely = ways * (changed / 2) ** (b + c) * (1 - changed) ** (videos - b - c)
            expected += likely * float(paired.paired_score(b, c, videos, -margin / 100) > intervals.Z)
    assert power.chance(margin, videos, changed) == pytest.approx(expected, abs=1e-9)


def test_four_in_five_take_more_videos_than_even_odds() -> None:
    even, sure = power.videos_needed(1.0, 0.02), power.videos_for_chance(1.0, 0.02)
    assert power.chance(1.0, even, 0.02) == pytest.approx(0.5, abs=0.05)
    assert power.chance(1.0, sure, 0.02) == pytest.approx(0.8, abs=0.01)
    assert 1.7 < sure / even < 2.2  # ((1.96 + 0.84) / 1.96)^2 = 2.04 of a normal error


def test_a_line_says_which_odds_and_what_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    said = power.report(504, 0.0, 1, 1.0)
    assert said.splitlines()[0].strip() == "no answer changes:"
    assert "  100 % of the answers change, half of them for the better" in power.report(504, 1.0, 1, 1.0)
    monkeypatch.setattr(power, "seen", lambda rows: (60, 1, 0.1))
    said = str(power.line([]))
    assert "10 % of the answers change (the median here)" in said
    assert "videos for even odds" in said
