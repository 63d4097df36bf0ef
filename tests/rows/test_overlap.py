from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from answered import cell, results

from vpbench.errors import NothingMeasured
from vpbench.rows.fates import DROPPED, INPUT, PIXELS, Fate, Shown, Stage
from vpbench.rows.statistics import overlap

GRID = (2, 4, 4)
TOKENS = 32


def fate(kept: Collection[int], stage: str = INPUT) -> Fate:
    token = np.array([i if i in kept else DROPPED for i in range(TOKENS)], np.int32)
    return Fate("c", GRID, (1, 2, 2), (Stage(stage, token),))


def shown(number: int, fates: dict[str, Fate], frames: np.ndarray | None = None) -> Shown:
    still = np.zeros((2, 8, 8, 3), np.uint8)
    return Shown(f"c{number}", f"v{number}", still if frames is None else frames, fates)


def test_by_hand() -> None:
    """Of 6 tokens, two sets of 3 share 0, 1, 2, 3 in 1, 9, 9, 1 of 20 cases."""
    chance = (9 * (1 / 5) + 9 * (2 / 4) + 1 * 1) / 20
    assert overlap.by_chance(3, 3, 6) == pytest.approx(chance)
    assert overlap.above_chance(2 / 4, 3, 3, 6) == pytest.approx((0.5 - chance) / (1 - chance))
    assert overlap.by_chance(1, 4, 5) == pytest.approx(0.8 / 4)  # one of five: in the four, or not


def test_one_that_holds_the_other_is_as_far_as_sizes_allow() -> None:
    assert overlap.above_chance(100 / 400, 100, 400, 1568) == pytest.approx(1)
    assert np.isnan(overlap.above_chance(1.0, 32, 32, 32))
    assert np.isnan(overlap.above_chance(0.0, 0, 5, 32))
    assert overlap.above_chance(0.0, 10, 10, 32) < 0


def test_sets_at_random_are_at_chance_whatever_their_sizes() -> None:
    rng = np.random.default_rng(0)
    for a, b in ((20, 20), (10, 40), (60, 75)):
        found = []
        for _ in range(300):
            one, other = (set(rng.choice(100, size, replace=False).tolist()) for size in (a, b))
            found.append(overlap.above_chance(len(one & other) / len(one | other), a, b, 100))
        assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))


def test_of_merged_tokens_the_one_that_stands_for_all_is_kept() -> None:
    token = np.arange(TOKENS, dtype=np.int32)
    token[[1, 2]] = 0
    token[3] = DROPPED
    assert np.flatnonzero(~overlap.kept(Fate("c", GRID, (1, 2, 2), (Stage("block 0", token),)))).tolist() == [1, 2, 3]


def test_ties_share_what_is_left() -> None:
    np.testing.assert_allclose(overlap.top(np.array([3.0, 1, 1, 1, 0]), 2), [1, 1 / 3, 1 / 3, 1 / 3, 0])
    assert overlap.top(np.ones(4), 0).tolist() == [0, 0, 0, 0]
    assert overlap.top(np.arange(4.0), 4).tolist() == [1, 1, 1, 1]


def test_motion_and_centre_are_where_they_were_put() -> None:
    """One token of 2x2 pixels changes between the slots; it moves in both."""
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    frames[1, 2:4, 4:6] = 90  # row 1, column 2
    found = overlap.motion(fate([0]), frames)
    assert found is not None
    assert np.flatnonzero(found).tolist() == [6, 22]
    assert found[6] == 90
    middle = overlap.centre(fate([0]))
    assert sorted(np.argsort(-middle, kind="stable")[:8].tolist()) == [5, 6, 9, 10, 21, 22, 25, 26]


def test_rows_are_compared_on_all_clips() -> None:
    moving = np.zeros((2, 8, 8, 3), np.uint8)
    moving[1, :4] = 200  # the upper half
    upper, lower = {i for i in range(32) if i % 16 < 8}, {i for i in range(32) if i % 16 >= 8}
    own = {"rlt-0.4": fate(upper), "sta-0.4": fate(lower), "tdiff-0.2": fate({0, 1, 16, 17})}
    own |= {"downsample-0.4": fate({0}, PIXELS)}
    rows = results(cell(), *(cell(m, k) for m, k in (("rlt", 0.4), ("sta", 0.4), ("tdiff", 0.2), ("downsample", 0.4))))
    found = overlap.of(rows, [shown(number, own, moving) for number in range(3)])
    assert [row["method"] for row in found.rows] == ["rlt", "sta", "tdiff"]
    assert [row["method"] for row in found.left_out] == ["downsample"]
    assert found.counts[:, 0].tolist() == [16, 16, 4]
    assert found.iou[0, 1].tolist() == [0, 0, 0]
    assert found.above[0, 2].tolist() == pytest.approx([1, 1, 1])
    assert found.motion[0].tolist() == pytest.approx([1, 1, 1])
    assert found.motion[1, 0] == pytest.approx(found.above[0, 1, 0])
    assert found.motion[1, 0] < -0.4


def test_what_several_runs_stored_of_a_clip_is_joined() -> None:
    each = [shown(number, {"rlt-0.4": fate(range(8))}) for number in range(3)]
    again = [shown(number, {"again": fate(range(4, 12))}) for number in range(3)]
    rows = results(cell("rlt", 0.4), cell("rlt", 0.4, config_id="again", prediction_id="again", seed=1))
    found = overlap.of(rows, [*each, *again])
    assert found.iou[0, 1].tolist() == pytest.approx([4 / 12] * 3)


def test_what_is_not_there_is_said() -> None:
    rows = results(cell(), cell("rlt", 0.4), cell("sta", 0.4))
    with pytest.raises(NothingMeasured, match="no tokens of these rows were followed"):
        overlap.of(rows, [])
    own = {"rlt-0.4": fate(range(8))}
    with pytest.raises(NothingMeasured, match="no two settings keep a set of tokens"):
        overlap.of(rows, [shown(number, own) for number in range(3)])
    with pytest.raises(NothingMeasured, match="2 clips that all were followed on are too few, 3 are the fewest"):
        overlap.of(rows, [shown(number, own | {"sta-0.4": fate(range(4))}) for number in range(2)])
