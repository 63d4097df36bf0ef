from __future__ import annotations

import numpy as np
import pytest
from answered import cell, results, videos

from vpbench.errors import NothingMeasured
from vpbench.rows.statistics import hard
from vpbench.rows.statistics.intervals import wilson
from vpbench.rows.statistics.paired import mcnemar

DENSE, RANDOM, RLT = cell(), cell("random", 0.4), cell("rlt", 0.4)


def first(number: int, of: int = 100) -> list[bool]:
    return [i < number for i in range(of)]


def test_by_hand() -> None:
    """Random is wrong on the last 40 of 100; there dense gets 30 right, RLT 20 of these."""
    seen = videos({"dense-None": first(90), "random-0.4": first(60), "rlt-0.4": first(80)})
    [own] = hard.of(results(DENSE, RANDOM, RLT), seen)
    assert (own.row["method"], own.control["method"], own.luck) == ("rlt", "random", False)
    assert (own.hard.videos, own.hard.top1.value, own.hard.dense.value) == (40, 50.0, 75.0)
    assert own.hard.top1.lo == pytest.approx(100 * wilson(20, 40).lo)
    assert own.hard.difference.delta_pp.value == pytest.approx(-25)
    assert (own.hard.difference.b, own.hard.difference.c) == (10, 0)
    assert own.p_holm == pytest.approx(mcnemar(10, 0)[1])
    assert own.easy is not None
    assert (own.easy.videos, own.easy.top1.value, own.easy.difference.delta_pp.value) == (60, 100.0, 0.0)


def test_the_cheapest_control_of_as_many_tokens_decides() -> None:
    near, far = cell("downsample", 0.43, tokens_kept_mean=512 * 0.4 * 1.09), cell("downsample", 0.5)
    stride = cell("frame_stride", 0.4)
    everything = results(DENSE, RANDOM, RLT, near, far, stride)
    rlt = next(row for row in everything if row["method"] == "rlt")
    names = ("downsample-0.43", "frame_stride-0.4", "random-0.4")
    for number in range(3):
        found = hard.cheapest(rlt, [row for row in everything if row["config_id"] not in names[:number]])
        assert found is not None
        assert found["config_id"] == names[number]
    assert hard.cheapest(rlt, [row for row in everything if row["config_id"] not in names]) is None


def test_another_draw_of_the_control_is_right_by_luck() -> None:
    """Both draws miss a third at random: each is right on two thirds of what the other misses."""
    rng = np.random.default_rng(0)
    again = cell("random", 0.4, config_id="again", prediction_id="again", seed=1)
    seen = videos(
        {"dense-None": first(300, 300), "random-0.4": rng.random(300) > 1 / 3, "again": rng.random(300) > 1 / 3}
    )
    found = hard.of(results(DENSE, RANDOM, again), seen)
    assert [(each.row["config_id"], each.control["config_id"], each.luck) for each in found] == [
        ("random-0.4", "again", True),
        ("again", "random-0.4", True),
    ]
    assert all(55 < each.hard.top1.value < 80 for each in found)


def test_of_several_draws_that_of_the_same_seed_is_the_control() -> None:
    other = cell("random", 0.4, config_id="other", prediction_id="other", seed=1)
    [rlt] = results(cell("rlt", 0.4, seed=1))
    assert (hard.cheapest(rlt, results(RANDOM, other)) or {})["config_id"] == "other"


def test_holm_is_over_settings_and_controls_apart() -> None:
    more = [cell("sta", 0.4), cell("centre", 0.4, notes="control")]
    answers = {"dense-None": first(90), "random-0.4": first(60), "rlt-0.4": first(82)}
    seen = videos(answers | {"sta-0.4": first(82), "centre-0.4": first(82)})
    found = {each.row["method"]: each for each in hard.of(results(DENSE, RANDOM, RLT, *more), seen)}
    p = mcnemar(8, 0)[1]
    assert found["rlt"].p_holm == pytest.approx(2 * p)
    assert found["centre"].p_holm == pytest.approx(p)


@pytest.mark.parametrize(
    ("right", "rows", "said"),
    [
        (81, (DENSE, RANDOM, RLT), "19 hard videos are too few, 20 are the fewest"),
        (60, (DENSE, RLT), "no downsample, frame_stride, random with as many tokens as a method"),
        (60, (RANDOM, RLT), "dense was not measured"),
    ],
)
def test_what_is_not_there_is_said(right: int, rows: tuple[dict[str, object], ...], said: str) -> None:
    seen = videos({"dense-None": first(90), "random-0.4": first(right), "rlt-0.4": first(80)})
    with pytest.raises(NothingMeasured, match=said):
        hard.of(results(*rows), seen)
