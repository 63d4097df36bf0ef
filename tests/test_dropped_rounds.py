"""Columns of time where some rounds do not count, where something was compiled, and where the tail can be told."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from vpbench.measure.clock import Sample
from vpbench.measure.rounds import TWIN, Timed
from vpbench.tasks import columns

DENSE, OWN = "dense-id", "own-id"


def timed(rounds: int, held_back: set[int] = frozenset(), dropped: bool = True, **more: Any) -> Timed:  # type: ignore[assignment]
    """Dense takes 20 ms and the cell 10 ms, but 1000 ms in rounds in which the GPU was held back."""
    samples = []
    for number in range(rounds):
        held = number in held_back
        for name, ms in ((DENSE, 20), (TWIN, 20), (OWN, 10)):
            took = 1000 if held else ms
            own = Sample(name, number, 0, took * 10**6 + number, None, held_back=held, dropped=held and dropped)
            samples.append(own)
    macs = {DENSE: [400] * rounds, OWN: [100 if n in held_back else 200 for n in range(rounds)]}
    settled = dict.fromkeys((DENSE, TWIN, OWN), True)
    return Timed(samples, 1, settled, macs, 0.0, 0.0, **more)


def test_rounds_in_which_the_gpu_was_held_back_change_no_column_but_their_count() -> None:
    calm, held = columns.time(timed(40), OWN, DENSE), columns.time(timed(45, {40, 41, 42, 43, 44}), OWN, DENSE)
    assert held.pop("n_dropped") == 5
    assert held.pop("throttled")
    assert calm.pop("n_dropped") == 0
    assert not calm.pop("throttled")
    assert held == calm
    assert calm["speedup"] == pytest.approx(2)
    assert calm["efficiency"] == pytest.approx(1)
    assert not calm["noisy"]


def test_a_gpu_that_was_held_back_in_rounds_that_count_makes_rows_noisy() -> None:
    row = columns.time(timed(40, {3}, dropped=False), OWN, DENSE)
    assert row["throttled"]
    assert row["noisy"]
    assert row["n_dropped"] == 0


def test_what_was_compiled_during_rounds_makes_rows_noisy() -> None:
    found = timed(40, compile_s={OWN: 12.5, DENSE: 10.0}, recompiles={OWN: 2, DENSE: 0})
    own, dense = columns.time(found, OWN, DENSE), columns.time(found, DENSE, DENSE)
    assert (own["compile_s"], own["recompiles"], own["noisy"]) == (12.5, 2, True)
    assert (dense["compile_s"], dense["recompiles"], dense["noisy"]) == (10.0, 0, False)


def test_the_slowest_hundredth_has_an_interval_or_is_not_told() -> None:
    few, many = (columns.time(timed(rounds), OWN, DENSE) for rounds in (367, 400))
    assert few["wall_ms_p99"] is None
    assert many["wall_ms_p99_ci_lo"] < many["wall_ms_p99"] < many["wall_ms_p99_ci_hi"]
    batches = columns.time(dataclasses.replace(timed(400), clips_per_call=8), OWN, DENSE)
    assert batches["wall_ms_p99"] is None, "a batch has no slowest clip"


def test_processors_are_named() -> None:
    assert columns.time(timed(40, pinned=(0, 2)), OWN, DENSE)["pinned"] == "0,2"
    assert columns.time(timed(40), OWN, DENSE)["pinned"] is None
