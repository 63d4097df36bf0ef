"""Borderline rows: a claim is made on one side of the line and not on the other."""

from __future__ import annotations

from typing import Any

import pytest
from golden_rows import frame, measured

from vpbench.render.report import evidence
from vpbench.render.report.evidence import Evidence, State
from vpbench.rows.contexts import records
from vpbench.rows.kinds import Cell

UNMATCHED: Cell = {"vs_random_pp": None, "vs_random_pp_lo": None, "vs_random_pp_hi": None, "vs_random_p_mid": None}


def cell(method: str = "rlt", **changes: Any) -> Any:
    """Return a row with every column, of 10,000 videos and 20 quiet rounds: faster, and nothing is lost."""
    good: dict[str, Any] = {"n_clips": 10_000, "n_videos": 10_000, "n_rounds": 20, "disc_b": 50, "disc_c": 50}
    good |= {"delta_pp": 0.0, "delta_ci_lo": -0.2, "delta_ci_hi": 0.2, "speedup": 1.5}
    good |= {"speedup_ci_lo": 1.4, "speedup_ci_hi": 1.6}
    [row] = records(frame([measured(method, 0.4)]))
    found = {**row, **UNMATCHED, **good, **changes}
    return {"videos": found["n_videos"]} | found


def only(**changes: Any) -> Evidence:
    [found] = evidence.judge([cell(**changes)])
    return found


def test_a_sound_row_is_claimed() -> None:
    found = only()
    assert found.speed.state is State.better
    assert found.accuracy.state is State.unclear
    assert found.no_loss


@pytest.mark.parametrize(("lo", "state"), [(1.0, State.unclear), (1.001, State.better)])
def test_an_interval_of_speed_that_touches_1_excludes_nothing(lo: float, state: State) -> None:
    assert only(speedup=1.3, speedup_ci_lo=lo, speedup_ci_hi=1.6).speed.state is state


@pytest.mark.parametrize(("hi", "state"), [(1.0, State.unclear), (0.999, State.worse)])
def test_slower_is_claimed_by_the_same_rule(hi: float, state: State) -> None:
    assert only(speedup=0.9, speedup_ci_lo=0.82, speedup_ci_hi=hi).speed.state is state


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aa_ratio": None, "aa_ci_lo": None, "aa_ci_hi": None}, "not timed against itself"),
        ({"noisy": True}, "noisy"),
        ({"noisy": True, "aa_ci_hi": 1.03, "load_before": 0.5, "n_threads": 2}, "noisy"),
        ({"noisy": True, "aa_ci_hi": 1.03, "throttled": True}, "noisy"),
        ({"noisy": None}, "not recorded"),
        ({"n_rounds": 5}, "5 rounds"),
        ({"speedup": None}, "not timed"),
    ],
)
def test_no_claim_on_speed(changes: dict[str, Any], why: str) -> None:
    speed = only(**changes).speed
    assert speed.state is State.none
    assert why in speed.why


@pytest.mark.parametrize(
    ("lo", "hi", "discount"),
    [(1.0001, 1.02, 1.02), (0.98, 0.9999, 1 / 0.98), (0.979, 1.0201, 1 / 0.979), (0.981, 1.019, 1)],
)
def test_dense_that_differs_from_itself_takes_as_much_from_the_claim(lo: float, hi: float, discount: float) -> None:
    speed = only(aa_ratio=(lo + hi) / 2, aa_ci_lo=lo, aa_ci_hi=hi, noisy=discount != 1).speed
    assert speed.state is State.better
    assert (speed.at_least, speed.at_most) == pytest.approx((1.4 / discount, 1.6 * discount))
    slower = only(aa_ci_lo=lo, aa_ci_hi=hi, speedup=0.95, speedup_ci_lo=0.9, speedup_ci_hi=0.985).speed
    assert slower.state is (State.worse if discount == 1 else State.unclear)


def test_bounds_of_speed_hold_for_all_settings_and_follow_the_number_of_processes() -> None:
    """Three processes leave two degrees of freedom: 4.303 standard errors for one setting, 19.96 for twenty."""
    twenty = [cell(n_process=3) for _ in range(20)]
    assert only(n_process=3).speed.at_least == pytest.approx(1.4)
    [first, *_] = evidence.judge(twenty)
    assert first.speed.at_least == pytest.approx(1.5 * (1.4 / 1.5) ** (19.9625 / 4.30265), rel=1e-4)
    [many, *_] = evidence.judge([cell(n_process=1) for _ in range(20)])
    assert many.speed.at_least == pytest.approx(1.5 * (1.4 / 1.5) ** (3.02334 / 1.95996), rel=1e-4)


@pytest.mark.parametrize(
    "changes", [{"aa_ci_lo": 1.0, "aa_ci_hi": 1.02}, {"aa_ci_lo": 0.98, "aa_ci_hi": 1.0}, {"n_rounds": 6}]
)
def test_on_the_line_a_control_is_sound(changes: dict[str, Any]) -> None:
    assert only(**changes).speed.state is State.better


@pytest.mark.parametrize(("hi", "state"), [(0.0, State.unclear), (-0.01, State.worse)])
def test_a_loss_whose_interval_touches_0_is_not_shown(hi: float, state: State) -> None:
    found = only(disc_b=200, disc_c=100, delta_pp=-1.0, delta_ci_lo=-1.3, delta_ci_hi=hi)
    assert found.accuracy.state is state


def test_a_gain_needs_its_p_value_too() -> None:
    gain = {"delta_pp": 0.5, "delta_ci_lo": 0.01, "delta_ci_hi": 1.0}
    assert only(disc_b=10, disc_c=60, **gain).accuracy.state is State.better
    assert only(disc_b=30, disc_c=40, **gain).accuracy.state is State.unclear


@pytest.mark.parametrize(("lo", "no_loss"), [(-0.5, False), (-0.49, True)])
def test_a_loss_of_epsilon_is_ruled_out_or_not(lo: float, no_loss: bool) -> None:
    assert only(delta_ci_lo=lo).no_loss is no_loss


def test_without_a_discordant_video_no_loss_wants_many_videos() -> None:
    alike = {"disc_b": 0, "disc_c": 0, "delta_pp": 0.0, "delta_ci_lo": 0.0, "delta_ci_hi": 0.0}
    few, many = (only(n_clips=n, n_videos=n, **alike) for n in (300, 3000))
    assert not few.no_loss, "a bootstrap of 300 equal answers has no width, and shows nothing"
    assert few.loss_bound_pp == pytest.approx(100 * 1.96**2 / (300 + 1.96**2), abs=0.01)
    assert many.no_loss


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"weights_kind": "random", "delta_pp": None}, "weights are random"),
        ({"delta_pp": None, "delta_ci_lo": None}, "no accuracy"),
        ({"n_videos": 1, "n_clips": 1, "disc_b": 0, "disc_c": 1}, "1 video is too few"),
        ({"n_videos": 19, "n_clips": 19, "disc_b": 0, "disc_c": 15}, "19 videos are too few"),
        ({"status": "incomplete", "n_failed": 9, "n_expected": 100}, "9 of 100 videos"),
    ],
)
def test_no_claim_on_accuracy(changes: dict[str, Any], why: str) -> None:
    found = only(**changes)
    assert found.accuracy.state is State.none
    assert why in found.accuracy.why
    assert not found.no_loss
    assert found.loss_bound_pp is None


def test_several_comparisons_are_corrected() -> None:
    """A difference that would be claimed alone is not among twenty that show nothing."""
    alone = cell(disc_b=60, disc_c=38, delta_pp=-0.22, delta_ci_lo=-0.4, delta_ci_hi=-0.02)
    narrow = {"speedup": 1.03, "speedup_ci_lo": 1.005, "speedup_ci_hi": 1.056}
    alone |= narrow
    others = [cell(speedup=1.0, speedup_ci_lo=0.9, speedup_ci_hi=1.1) for _ in range(20)]
    [found] = evidence.judge([alone])
    assert (found.speed.state, found.accuracy.state) == (State.better, State.worse)
    among = evidence.judge([alone, *others])[0]
    assert (among.speed.state, among.accuracy.state) == (State.unclear, State.unclear)


@pytest.mark.parametrize(
    ("changes", "state", "why"),
    [
        ({}, State.none, "no random cell to compare with"),
        ({"vs_random_pp": 5.0}, State.none, "no random cell with as many tokens"),
        ({"vs_random_pp": 5.0, "vs_random_pp_lo": 0.0, "vs_random_pp_hi": 9.0}, State.unclear, ""),
        ({"vs_random_pp": 5.0, "vs_random_pp_lo": 2.0, "vs_random_pp_hi": 8.0}, State.better, ""),
        ({"vs_random_pp": -5.0, "vs_random_pp_lo": -8.0, "vs_random_pp_hi": -2.0}, State.worse, ""),
        ({"vs_random_pp": 5.0, "vs_random_pp_lo": 5.0, "vs_random_pp_hi": 5.0}, State.unclear, ""),
    ],
)
def test_against_random(changes: dict[str, Any], state: State, why: str) -> None:
    found = only(**changes).random
    assert (found.state, found.why) == (state, why)


def test_a_detector_is_judged_by_its_interval() -> None:
    detector: dict[str, Any] = {"task": "detection", "disc_b": None, "disc_c": None, "n_videos": None, "videos": 500}
    lost = only(**detector, delta_pp=-2.0, delta_ci_lo=-3.0, delta_ci_hi=-1.0)
    assert lost.accuracy.state is State.worse
    flat = only(**detector, delta_pp=0.0, delta_ci_lo=0.0, delta_ci_hi=0.0)
    assert not flat.no_loss, "an interval without width comes from samples that were all alike"
    few = only(**detector | {"videos": 6}, delta_pp=-2.0, delta_ci_lo=-3.0, delta_ci_hi=-1.0)
    assert few.accuracy.why == "6 videos are too few for an interval"
    unknown = only(**detector | {"videos": None}, delta_pp=-2.0, delta_ci_lo=-3.0, delta_ci_hi=-1.0)
    assert unknown.accuracy.state is State.none


def test_dense_and_failures_are_not_judged() -> None:
    assert evidence.judge([{**records(frame([measured()]))[0], **UNMATCHED}]) == []
    assert evidence.judge([cell(status="failed")]) == []
