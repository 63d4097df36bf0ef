"""Resampled curves against enumeration, slow loops and the intervals of single numbers; and what an interval means."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from typing import Any

import numpy as np
import pytest

from vpbench.rows.statistics import bootstrap, intervals, paired, pareto
from vpbench.rows.statistics.bootstrap import Estimate, PerClip, Point, Rounds, estimate, resample, summary

ONE = np.zeros(40, int)


def _study(clips: int = 200, rounds: int = 40, points: int = 5, seed: int = 0) -> dict[str, Any]:
    """A method that loses up to 4 % of the clips and random that loses up to 12 %, both ending at dense."""
    rng = np.random.default_rng(seed)
    hard, process = rng.random(clips), np.arange(rounds) % 2
    dense = (hard < 0.8).astype(float)
    curves = {}
    for name, lost in (("sta", 0.04), ("random", 0.12)):
        curves[name] = [Point(dense, Rounds(np.ones(rounds), process))]
        for keep in np.linspace(0.2, 0.9, points - 1):
            right = (hard + rng.normal(0, 0.02, clips) < 0.8 - lost * (1 - keep) ** 2).astype(float)
            curves[name].append(Point(right, Rounds(rng.lognormal(0, 0.03, rounds) / keep, process)))
    return {"curves": curves, "dense": dense, "videos": np.arange(clips) // 2}


def test_row_0_is_as_measured() -> None:
    dense = np.array([1.0, 1.0, 0.0, 1.0])
    half = Point(np.array([1.0, 0.0, 1.0, 0.0]), Rounds(np.array([2.0, 4.0, 5.0, 3.0]), np.zeros(4)))
    all_right = Point(np.ones(4), Rounds(np.array([1.0, 1.0, 1.0, 0.8]), np.zeros(4)))
    counted = Point(np.full(4, 0.6), PerClip(np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 5.0)))
    cheaper = Point(np.full(4, 0.2), PerClip(np.full(4, 1.0), np.array([1.0, 2.0, 3.0, 4.0])))
    found = resample({"timed": [half, all_right], "counted": [counted, cheaper]}, dense, np.arange(4), resamples=3)
    assert found["timed"].dense[0] == found["counted"].dense[0] == 75.0
    assert found["timed"].accuracy[0].tolist() == [50.0, 100.0]
    # 1 / median: 1 / 3.5, not the median of 1/2, 1/4, 1/5, 1/3
    assert found["timed"].cost[0] == pytest.approx([1 / 3.5, 1.0])
    assert found["counted"].accuracy[0] == pytest.approx([60.0, 20.0])
    assert found["counted"].cost[0] == pytest.approx([(1 + 2 + 3 + 4) / 20, 4 / (1 + 2 + 3 + 4)])
    assert found["timed"].cost.shape == found["timed"].accuracy.shape == (4, 2)


def test_resampled_videos_match_all_resamples() -> None:
    """Three uneven videos, 27 equally likely resamples; accuracy, dense and counted cost are of the same one."""
    videos = np.array(["a", "a", "b", "c", "c", "c"])
    dense, own = np.array([1.0, 0, 1, 1, 1, 0]), np.array([1.0, 1, 0, 0, 1, 0])
    macs, whole = np.array([1.0, 2, 3, 4, 5, 6]), np.array([8.0, 8, 9, 9, 9, 9])
    found = resample({"m": [Point(own, PerClip(macs, whole))]}, dense, videos, resamples=30_000)["m"]
    expected: dict[tuple[float, ...], int] = {}
    for drawn in itertools.product("abc", repeat=3):
        clips = np.concatenate([np.flatnonzero(videos == v) for v in drawn])
        triple = (100 * dense[clips].mean(), 100 * own[clips].mean(), macs[clips].sum() / whole[clips].sum())
        key = tuple(np.round(triple, 6).tolist())
        expected[key] = expected.get(key, 0) + 1
    rows = np.round(np.stack([found.dense, found.accuracy[:, 0], found.cost[:, 0]], axis=1)[1:], 6)
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    assert {tuple(kind) for kind in kinds.tolist()} == set(expected)
    for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
        assert count / 30_000 == pytest.approx(expected[tuple(kind)] / 27, abs=0.012)


def test_single_points_agree_with_the_intervals_of_tables() -> None:
    """A difference of accuracies is that of `paired_difference`, a cost that of `speedup`, up to the draws."""
    study = _study()
    found = resample(**study)["sta"]
    right = study["curves"]["sta"][1]
    table = paired.paired_difference(study["dense"] > 0, right.quality > 0, study["videos"]).delta_pp
    own = estimate(found.accuracy[:, 1] - found.dense)
    assert (own.value, own.lo, own.hi) == pytest.approx((table.value, table.lo, table.hi), abs=0.26)
    speed = intervals.median_interval(right.cost.ratio, right.cost.process)
    own = estimate(1 / found.cost[:, 1])
    assert (own.value, own.lo, own.hi) == pytest.approx((speed.value, speed.lo, speed.hi), abs=0.01)


def test_a_metric_matches_a_slow_loop() -> None:
    """Videos, then processes and rounds, drawn one by one; the loop knows nothing of the code it checks."""
    study, rng, drawn = _study(clips=60, rounds=12, points=4), np.random.default_rng(1), []
    points, by_video = study["curves"]["sta"], np.arange(60).reshape(30, 2)
    for _ in range(4000):
        clips = by_video[rng.integers(30, size=30)].ravel()
        rounds = np.concatenate(
            [rng.choice(np.flatnonzero(np.arange(12) % 2 == p), 6) for p in rng.integers(2, size=2)]
        )
        spots = [(1 / np.median(p.cost.ratio[rounds]), 100 * p.quality[clips].mean()) for p in points]
        level, volume = 100 * study["dense"][clips].mean() - 10, 0.0
        for x, a in sorted(spots, key=lambda spot: (spot[0], -spot[1])):
            if x < 1 and a > level:
                volume, level = volume + (1 - x) * (a - level) / 10, a
        drawn.append(volume)
    own = estimate(pareto.hypervolume(resample(**study)["sta"]))
    lo, hi = np.quantile(drawn, (0.025, 0.975))
    assert (own.lo, own.hi) == pytest.approx((lo, hi), rel=0.02)
    assert own.nulls == 0.0


def test_what_two_curves_share_cancels() -> None:
    """The same measurements under two names differ by nothing, in every resample; alone they vary."""
    study = _study()
    study["curves"]["again"] = study["curves"]["sta"]
    found = resample(**study, resamples=500)
    assert estimate(pareto.gain_over_random(found["again"], found["sta"])) == Estimate(0.0, 0.0, 0.0, 0.0)
    area, gain = (estimate(v) for v in (pareto.budget_auc(found["sta"]),
                                        pareto.gain_over_random(found["sta"], found["random"])))  # fmt: skip
    assert area.lo is not None
    assert area.hi is not None
    assert gain.lo is not None
    assert gain.hi is not None
    assert area.hi - area.lo > 3 * (gain.hi - gain.lo)


def test_dense_is_at_the_end_of_its_curves_in_every_resample() -> None:
    found = resample(**_study(), resamples=200)["sta"]
    assert (found.cost[:, 0] == 1.0).all()
    np.testing.assert_array_equal(found.accuracy[:, 0], found.dense)


def test_neither_order_nor_company_changes_an_interval() -> None:
    study = _study()
    once = summary(resample(**study, resamples=300)["sta"])
    shuffle = np.random.default_rng(2).permutation(200)
    curves = {
        name: [dataclasses.replace(p, quality=p.quality[shuffle]) for p in reversed(study["curves"][name])]
        for name in ("random", "sta")
    }
    other = resample(curves, study["dense"][shuffle], study["videos"][shuffle], resamples=300)
    assert summary(other["sta"]) == once
    alone = resample({"sta": study["curves"]["sta"]}, study["dense"], study["videos"], resamples=300)
    assert summary(alone["sta"]) == once


def test_another_seed_draws_other_videos_and_other_rounds() -> None:
    first, again, other = (resample(**_study(), resamples=50, seed=seed)["sta"] for seed in (0, 0, 1))
    for one, same, new in ((first.accuracy, again.accuracy, other.accuracy), (first.cost, again.cost, other.cost)):
        np.testing.assert_array_equal(one, same)
        np.testing.assert_array_equal(one[0], new[0])
        assert (one[1:] != new[1:]).any()


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    study = _study()
    whole = resample(**study, resamples=100)["sta"]
    monkeypatch.setattr(bootstrap, "_CHUNK", 700)
    np.testing.assert_array_equal(resample(**study, resamples=100)["sta"].accuracy, whole.accuracy)


def test_points_of_other_rounds_are_resampled_by_themselves() -> None:
    """Two blocks of cells, of 40 and of 30 rounds, make one curve; each point's interval is as without the other."""
    study = _study()
    longer = Point(study["dense"], Rounds(np.random.default_rng(5).lognormal(1, 0.1, 30), np.zeros(30)))
    together = resample({"m": [*study["curves"]["sta"], longer]}, study["dense"], study["videos"], resamples=200)["m"]
    alone = resample({"m": [longer]}, study["dense"], study["videos"], resamples=200)["m"]
    np.testing.assert_array_equal(together.cost[:, -1], alone.cost[:, 0])
    assert np.corrcoef(together.cost[1:, 1], together.cost[1:, -1])[0, 1] == pytest.approx(0, abs=0.25)


def test_a_metric_that_is_often_undefined_has_no_interval() -> None:
    values = np.concatenate([[5.0], np.arange(100.0)])
    found = estimate(values)
    assert (found.value, found.lo, found.hi, found.nulls) == pytest.approx((5.0, 99 * 0.025, 99 * 0.975, 0.0))
    values[1:6] = np.nan  # 5 of 100: the interval is that of 5 ... 99
    found = estimate(values)
    assert (found.lo, found.hi, found.nulls) == pytest.approx((5 + 94 * 0.025, 5 + 94 * 0.975, 0.05))
    values[6] = np.nan
    assert estimate(values) == Estimate(5.0, None, None, 0.06)
    values[0] = np.nan
    assert estimate(values) == Estimate(None, None, None, 0.06)
    assert estimate(np.full(5, np.nan)) == Estimate(None, None, None, 1.0)
    for short in (np.array([1.0]), np.ones((2, 2))):
        with pytest.raises(ValueError, match="resample"):
            estimate(short)


def test_summary_names_every_metric() -> None:
    found = resample(**_study(points=8), resamples=200)
    all_of_them = summary(found["sta"], found["random"])
    alone = ["hypervolume", "budget_auc", "speedup_at_1pp", "speedup_at_3pp"]
    alone += ["accuracy_at_0.75", "accuracy_at_0.5", "accuracy_at_0.35"]
    assert list(all_of_them) == [*alone, "gain_over_random", "bd_cost"]
    assert list(summary(found["sta"])) == alone
    assert all_of_them["budget_auc"] == estimate(pareto.budget_auc(found["sta"]))
    assert all_of_them["accuracy_at_0.5"] == estimate(pareto.iso_cost_accuracy(found["sta"], 0.5))
    assert all_of_them["speedup_at_1pp"] == estimate(pareto.iso_accuracy_speedup(found["sta"], 1.0))
    for metric in all_of_them.values():
        if metric.lo is not None and metric.hi is not None and metric.value is not None:
            assert metric.lo <= metric.value <= metric.hi


def test_intervals_of_the_gain_over_random_cover_it() -> None:
    """What is lost has a known rate at each keep ratio, so the true areas are known."""
    rng, covered, trials = np.random.default_rng(0), 0, 300
    keeps, process = np.array([0.25, 0.5, 1.0]), np.zeros(20)
    rates = {"sta": np.array([0.70, 0.78, 0.8]), "random": np.array([0.60, 0.75, 0.8])}
    for trial in range(trials):
        luck = rng.random(150)  # shared: clips that are hard for one are hard for the others
        curves = {
            name: [
                Point((luck + rng.normal(0, 1e-9, 150) < rate).astype(float), Rounds(np.full(20, 1 / keep), process))
                for keep, rate in zip(keeps, own, strict=True)
            ]
            for name, own in rates.items()
        }
        found = resample(curves, curves["sta"][2].quality, np.arange(150), seed=trial, resamples=400)
        gain = estimate(pareto.gain_over_random(found["sta"], found["random"]))
        # differences of 10, 3 and 0 pp at equal distances in ln x, from 0.3 on
        start = 10 - 7 * math.log(0.3 / 0.25) / math.log(2)
        truth = (math.log(0.5 / 0.3) * (start + 3) / 2 + math.log(2) * 3 / 2) / math.log(1 / 0.3)
        assert gain.lo is not None
        assert gain.hi is not None
        covered += gain.lo <= truth <= gain.hi
    assert 0.91 <= covered / trials <= 0.98


@pytest.mark.parametrize("counted", [False, True])
def test_ten_thousand_resamples_take_seconds(counted: bool) -> None:
    """20 points, 500 videos, 40 rounds: 0.7 s on an idle core with times, 0.2 s with counts."""
    study = _study(clips=500, rounds=40, points=10)
    if counted:
        cost = PerClip(np.random.default_rng(0).random(500) + 0.1, np.ones(500))
        study["curves"] = {n: [Point(p.quality, cost) for p in own] for n, own in study["curves"].items()}
    began = time.process_time()
    found = resample(**study)
    summary(found["sta"], found["random"])
    assert time.process_time() - began < 5


GOOD = Point(np.ones(3), Rounds(np.ones(40), ONE))


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (Point(np.ones(2), GOOD.cost), "quality"),
        (Point(np.array([1.0, np.nan, 0.0]), GOOD.cost), r"\[0, 1\]"),
        (Point(np.array([1.0, 1.1, 0.0]), GOOD.cost), r"\[0, 1\]"),
        (Point(np.ones(3), Rounds(np.ones(39), ONE)), "per clip or round"),
        (Point(np.ones(3), Rounds(np.ones(0), np.zeros(0))), "per clip or round"),
        (Point(np.ones(3), Rounds(np.r_[np.ones(39), np.nan], ONE)), "positive"),
        (Point(np.ones(3), Rounds(np.r_[np.ones(39), np.inf], ONE)), "positive"),
        (Point(np.ones(3), Rounds(np.r_[np.ones(39), 0.0], ONE)), "positive"),
        (Point(np.ones(3), PerClip(np.ones(2), np.ones(3))), "per clip or round"),
        (Point(np.ones(3), PerClip(np.ones(3), np.ones(2))), "per clip or round"),
        (Point(np.ones(3), PerClip(np.ones(3), np.zeros(3))), "positive"),
        (Point(np.ones(3), PerClip(np.array([1.0, -1.0, 1.0]), np.ones(3))), "positive"),
    ],
)
def test_refused_points(point: Point, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resample({"m": [point]}, np.ones(3), np.arange(3), resamples=10)


def test_refused_studies() -> None:
    mixed = [GOOD, Point(np.ones(3), PerClip(np.ones(3), np.ones(3)))]
    videos = np.arange(3)
    for curves, dense, owner, message in (
        ({}, np.ones(3), videos, "at least one"),
        ({"m": []}, np.ones(3), videos, "at least one"),
        ({"m": [GOOD], "n": []}, np.ones(3), videos, "at least one"),
        ({"m": [GOOD]}, np.ones(0), np.arange(0), "at least one"),
        ({"m": [GOOD]}, np.ones(2), videos, "quality"),
        ({"m": [GOOD]}, np.array([1.0, np.nan, 1.0]), videos, r"\[0, 1\]"),
        ({"m": mixed}, np.ones(3), videos, "mixes"),
    ):
        with pytest.raises(ValueError, match=message):
            resample(curves, dense, owner, resamples=10)
