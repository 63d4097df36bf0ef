"""Columns of time where some rounds do not count, where something was compiled, and where the tail can be told."""

from __future__ import annotations

from typing import Any

import pytest
from golden_rows import frame

from vpbench.measure.rounds import TWIN
from vpbench.run import columns

DENSE, OWN = "dense-id", "own-id"


def timed(rounds: int, held_back: set[int] = frozenset(), dropped: bool = True, **more: Any) -> columns.Rounds:  # type: ignore[assignment]
    """Dense takes 20 ms and the cell 10 ms, but 1000 ms in rounds in which the GPU was held back.

    `more`: columns of the table `work`, where a dict has one value for each configuration.
    """
    shared = {"run_id": "r", "block": "b", "process": 0}
    samples = []
    for number in range(rounds):
        held = number in held_back
        for name, ms in ((DENSE, 20), (f"{DENSE}-{TWIN}", 20), (OWN, 10)):
            took = 1000 if held else ms
            own = {"config_id": name, "round": number, "order": 0, "scope": "model", "clips": more.get("units", 1)}
            samples.append(shared | own | {"wall_ns": took * 10**6 + number, "held_back": held})
            samples[-1]["dropped"] = held and dropped
    macs = {DENSE: [400] * rounds, OWN: [100 if n in held_back else 200 for n in range(rounds)]}
    plain = {"units": 1, "settled": True, "macs": macs, "busy_before": 0.0, "busy_after": 0.0} | more
    work = [
        shared
        | {"config_id": name, "kind": "rounds", "status": "ok", "timestamp_utc": 0}
        | {column: value[name] if isinstance(value, dict) else value for column, value in plain.items()}
        for name in (DENSE, OWN)
    ]
    return columns.Rounds(frame(samples, "samples"), frame(work, "work"), DENSE)


def test_rounds_in_which_the_gpu_was_held_back_change_no_column_but_their_count() -> None:
    calm, held = columns.time(timed(40), OWN), columns.time(timed(45, {40, 41, 42, 43, 44}), OWN)
    assert held.pop("n_dropped") == 5
    assert held.pop("throttled")
    assert calm.pop("n_dropped") == 0
    assert not calm.pop("throttled")
    assert held == calm
    assert calm["speedup"] == pytest.approx(2)
    assert calm["efficiency"] == pytest.approx(1)
    assert not calm["noisy"]


def test_a_gpu_that_was_held_back_in_rounds_that_count_makes_rows_noisy() -> None:
    row = columns.time(timed(40, {3}, dropped=False), OWN)
    assert row["throttled"]
    assert row["noisy"]
    assert row["n_dropped"] == 0


def test_what_was_compiled_during_rounds_makes_rows_noisy() -> None:
    found = timed(40, compile_s={OWN: 12.5, DENSE: 10.0}, recompiles={OWN: 2, DENSE: 0})
    own, dense = columns.time(found, OWN), columns.time(found, DENSE)
    assert (own["compile_s"], own["recompiles"], own["noisy"]) == (12.5, 2, True)
    assert (dense["compile_s"], dense["recompiles"], dense["noisy"]) == (10.0, 0, False)


def test_what_did_not_settle_makes_its_own_row_noisy_and_what_nobody_could_tell_does_not() -> None:
    for kind, of_own in ((False, True), (None, False)):
        found = timed(40, settled={OWN: kind, DENSE: True})
        assert columns.time(found, OWN)["noisy"] == of_own
        assert not columns.time(found, DENSE)["noisy"]


def test_the_slowest_hundredth_has_an_interval_or_is_not_told() -> None:
    few, many = (columns.time(timed(rounds), OWN) for rounds in (367, 400))
    assert few["wall_ms_p99"] is None
    assert many["wall_ms_p99_ci_lo"] < many["wall_ms_p99"] < many["wall_ms_p99_ci_hi"]
    batches = columns.time(timed(400, units=8), OWN)
    assert batches["wall_ms_p99"] is None, "a batch has no slowest clip"


def test_processors_are_named() -> None:
    assert columns.time(timed(40, pinned="0,2"), OWN)["pinned"] == "0,2"
    assert columns.time(timed(40), OWN)["pinned"] is None
