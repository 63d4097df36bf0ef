"""Rounds found again: in the right block of the right run, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from golden_rounds import BLOCK, rounds, with_samples
from golden_rows import frame, measured, sweep

from vpbench.rows.contexts import records
from vpbench.rows.schema import Result
from vpbench.rows.statistics import intervals
from vpbench.rows.statistics.rounds import StoredRounds

RNG = np.random.default_rng(3)
FIRST, SECOND = (np.round(38e6 * RNG.lognormal(0, 0.1, 31)) for _ in range(2))
OWN = np.round(20e6 * RNG.lognormal(0, 0.05, 31))


def row(config_id: str, block: str | None = BLOCK, run_id: str = "r1") -> Result:
    return {"config_id": config_id, "run_id": run_id, "block": block}


def test_a_row_finds_dense_of_its_own_block() -> None:
    """Dense was timed in two blocks of the run, under one name; the second begins anew with round 0."""
    both = [*rounds("dense", FIRST), *rounds("dense", SECOND, block="b2"), *rounds("rlt", OWN, block="b2")]
    stored = StoredRounds(frame(both, "samples"), ["dense"])
    found = stored.against_dense(row("rlt", "b2"))
    assert found is not None
    np.testing.assert_array_equal(found.ratio, SECOND / OWN)
    assert stored.against_dense(row("rlt", "b1")) is None
    itself = stored.against_dense(row("dense"))
    assert itself is not None
    assert (itself.ratio == 1).all()


def test_rounds_of_another_or_of_no_known_block_are_not_taken() -> None:
    parts = [*rounds("dense", FIRST), *rounds("rlt", OWN, block="b2")]
    parts += [*rounds("dense", FIRST, block=None), *rounds("sta", OWN, block=None)]
    stored = StoredRounds(frame(parts, "samples"), ["dense"])
    assert stored.against_dense(row("rlt")) is None
    assert stored.against_dense(row("rlt", "b2")) is None, "no dense was timed beside it"
    assert stored.against_dense(row("sta", None)) is None


def test_a_block_that_a_second_run_went_on_with_is_one() -> None:
    """A killed run leaves rounds of a block; the next adds the rest, with the next rounds, in a process of its own."""
    later = [
        sample | {"round": sample["round"] + 31}
        for name, wall in (("dense", SECOND), ("rlt", OWN))
        for sample in rounds(name, wall, run_id="r2", process=1)
    ]
    parts = [*later, *rounds("dense", FIRST), *rounds("rlt", OWN)]
    found = StoredRounds(frame(parts, "samples"), ["dense"]).against_dense(row("rlt", run_id="r2"))
    assert found is not None
    np.testing.assert_array_equal(found.ratio, np.concatenate([FIRST / OWN, SECOND / OWN]))


def test_dropped_rounds_are_left_out() -> None:
    parts = [*rounds("dense", FIRST), *rounds("rlt", OWN)]
    cut = [sample | {"dropped": True} if sample["round"] == 5 else sample for sample in parts]
    found = StoredRounds(frame(cut, "samples"), ["dense"]).against_dense(row("rlt"))
    assert found is not None
    np.testing.assert_array_equal(found.ratio, np.delete(FIRST / OWN, 5))


def test_processes_are_kept() -> None:
    parts = [*rounds("dense", FIRST), *rounds("dense", SECOND, process=1)]
    parts += [*rounds("rlt", OWN), *rounds("rlt", OWN, process=1)]
    found = StoredRounds(frame(parts, "samples"), ["dense"]).against_dense(row("rlt"))
    assert found is not None
    assert found.process.tolist() == [0] * 31 + [1] * 31


def test_speed_over_another_row_only_side_by_side() -> None:
    parts = [*rounds("rlt", OWN), *rounds("random", SECOND), *rounds("random", FIRST, block="b2")]
    stored = StoredRounds(frame(parts, "samples"), ["dense"])
    assert stored.speedup(row("rlt"), row("random")) == intervals.speedup(SECOND, OWN, np.zeros(31))
    # the control's row may come from another block; both were timed in this one
    assert stored.speedup(row("rlt"), row("random", "b2")) == stored.speedup(row("rlt"), row("random"))
    assert stored.speedup(row("random", "b2"), row("rlt")) is None, "rlt was not timed beside it"
    assert stored.speedup(row("rlt", None), row("random")) is None


def test_every_row_of_a_sweep_is_found() -> None:
    rows, samples = with_samples(sweep())
    stored = StoredRounds(frame(samples, "samples"), ["dense-None"])
    for each in records(frame(rows)):
        found = stored.against_dense(each)
        assert found is not None
        assert np.median(found.ratio) == pytest.approx(each["speedup"])
    assert stored.against_dense(records(frame([measured("rlt", 0.4, block=None)]))[0]) is None
