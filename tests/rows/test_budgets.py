from __future__ import annotations

import pytest
from answered import cell, results, videos
from golden_rows import Row, frame

from vpbench.errors import NothingMeasured
from vpbench.rows.statistics import budgets
from vpbench.rows.statistics.paired import mcnemar


def length(frames: int, *methods: str, budget: int = 256) -> list[Row]:
    """Return dense over clips of so many frames, 32 tokens each, and methods that leave a budget of tokens."""
    tokens, positions = 32 * frames, None if frames == 16 else "interpolate"
    own = {"frames": frames, "tokens_dense": tokens, "positions": positions}
    named = [("dense", None), *((method, budget / tokens) for method in methods)]
    return [
        cell(method, keep, **own, config_id=f"{method}{frames}", prediction_id=f"{method}{frames}")
        for method, keep in named
    ]


EIGHT, SIXTEEN, LONG = length(8), length(16, "rlt", "random"), length(32, "rlt", "random")


def test_rows_of_one_budget_are_joined_across_lengths() -> None:
    """8 frames are the budget; RLT on 16 loses 10 of 100 videos against them, on 32 none."""
    rows = [*EIGHT, *SIXTEEN, *LONG]
    right = {row["config_id"]: [True] * 100 for row in rows} | {"rlt16": [i >= 10 for i in range(100)]}
    [group] = budgets.joined(frame(rows))
    found = {each.row["config_id"]: each for each in budgets.of(group, videos(right))}
    assert list(found) == ["dense8", "random16", "random32", "rlt16", "rlt32"]
    assert {each.tokens for each in found.values()} == {256}
    assert found["dense8"].difference is None
    lost = found["rlt16"]
    assert lost.difference is not None
    assert (lost.difference.n, lost.difference.delta_pp.value) == (100, -10)
    assert lost.p_holm == pytest.approx(2 * mcnemar(10, 0)[1]), "RLT twice; random apart"
    assert (found["rlt16"].row["positions"], found["rlt32"].row["positions"]) == (None, "interpolate")


def test_other_weights_are_not_joined() -> None:
    other = [row | {"weights_sha256": "ef" * 32} for row in LONG]
    assert budgets.joined(frame([*SIXTEEN, *other])) == []


def test_ratios_that_round_to_one_budget_are_one() -> None:
    [row] = results(*(row for row in length(24, "rlt", budget=512) if row["method"] == "rlt"))
    assert row["keep_nominal"] == 512 / 768
    assert budgets.budget(row) == 512


def test_what_is_not_there_is_said() -> None:
    half = [*length(16, "rlt", budget=256), *length(32, "rlt", budget=512)]
    [group] = budgets.joined(frame([row for row in half if row["method"] == "rlt"]))
    with pytest.raises(NothingMeasured, match="no budget of tokens was spent on clips of several lengths"):
        budgets.of(group, frame([], "videos"))
    [group] = budgets.joined(frame([*EIGHT, *SIXTEEN]))
    with pytest.raises(NothingMeasured, match="5 videos are too few, 20 are the fewest"):
        budgets.of(group, videos({"dense8": [True] * 5, "rlt16": [True] * 5}))
