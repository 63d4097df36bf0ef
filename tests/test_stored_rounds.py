"""Rounds found again: in the right block of the right run, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from golden_rounds import rounds, with_samples
from golden_rows import frame, measured, sweep

from vpbench.rows.statistics import intervals
from vpbench.rows.statistics.rounds import StoredRounds

RNG = np.random.default_rng(3)
FIRST, SECOND = (np.round(38e6 * RNG.lognormal(0, 0.1, 31)) for _ in range(2))
OWN = np.round(20e6 * RNG.lognormal(0, 0.05, 31))


def row(config_id: str, speedup: float, run_id: str = "r1") -> dict[str, object]:
    return {"config_id": config_id, "run_id": run_id, "speedup": speedup}


def test_a_row_finds_dense_of_its_own_block() -> None:
    """Dense was timed in two blocks of the run, under one name."""
    samples = frame([*rounds("dense", FIRST), *rounds("dense", SECOND), *rounds("rlt", OWN)], "samples")
    stored = StoredRounds(samples, ["dense"])
    for dense in (FIRST, SECOND):
        found = stored.against_dense(row("rlt", float(np.median(dense / OWN))))
        assert found is not None
        np.testing.assert_array_equal(found.ratio, dense / OWN)
    assert stored.against_dense(row("rlt", 1.2345)) is None, "no block gives this speed-up"


def test_rounds_of_another_run_are_not_taken() -> None:
    samples = frame([*rounds("dense", FIRST), *rounds("rlt", OWN, run_id="r0")], "samples")
    stored = StoredRounds(samples, ["dense"])
    assert stored.against_dense(row("rlt", float(np.median(FIRST / OWN)), "r0")) is None
    assert stored.against_dense(row("sta", 2.0)) is None


def test_blocks_of_different_length_and_dropped_rounds_are_told_apart() -> None:
    longer = np.round(38e6 * RNG.lognormal(0, 0.1, 40))
    other = np.round(20e6 * RNG.lognormal(0, 0.1, 40))
    cut = [sample | {"dropped": True} if sample["round"] == 5 else sample for sample in rounds("dense", longer)]
    also = [sample | {"dropped": True} if sample["round"] == 5 else sample for sample in rounds("sta", other)]
    samples = frame([*rounds("dense", FIRST), *cut, *rounds("rlt", OWN), *also], "samples")
    stored = StoredRounds(samples, ["dense"])
    kept = np.delete(np.arange(40), 5)
    found = stored.against_dense(row("sta", float(np.median((longer / other)[kept]))))
    assert found is not None
    np.testing.assert_array_equal(found.ratio, (longer / other)[kept])


def test_processes_are_kept() -> None:
    parts = [*rounds("dense", FIRST), *rounds("dense", SECOND, process=1)]
    parts += [*rounds("rlt", OWN), *rounds("rlt", OWN, process=1)]
    ratio = np.concatenate([FIRST / OWN, SECOND / OWN])
    found = StoredRounds(frame(parts, "samples"), ["dense"]).against_dense(row("rlt", float(np.median(ratio))))
    assert found is not None
    assert found.process.tolist() == [0] * 31 + [1] * 31


def test_speed_over_another_row_only_side_by_side() -> None:
    both = [*rounds("dense", FIRST), *rounds("rlt", OWN), *rounds("random", SECOND)]
    stored = StoredRounds(frame(both, "samples"), ["dense"])
    rlt, random = (row(name, float(np.median(FIRST / wall))) for name, wall in (("rlt", OWN), ("random", SECOND)))
    assert stored.speedup(rlt, random) == intervals.speedup(SECOND, OWN, np.zeros(31))
    apart = [*rounds("dense", FIRST), *rounds("dense", SECOND), *rounds("rlt", OWN), *rounds("random", OWN + 1)]
    stored = StoredRounds(frame(apart, "samples"), ["dense"])
    random = row("random", float(np.median(SECOND / (OWN + 1))))
    assert stored.speedup(rlt, random) is None


def test_every_row_of_a_sweep_is_found() -> None:
    rows, samples = with_samples(sweep())
    stored = StoredRounds(frame(samples, "samples"), ["dense-None"])
    for each in rows:
        found = stored.against_dense(each)
        assert found is not None
        assert np.median(found.ratio) == pytest.approx(each["speedup"])
    assert stored.against_dense(measured("rlt", 0.4) | {"speedup": None}) is None
