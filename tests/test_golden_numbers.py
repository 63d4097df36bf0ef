"""Whoever changes a number says so: what was measured before must not be taken for what is measured now."""

from __future__ import annotations

import json
from typing import Any

import pytest
from golden_numbers import FILE, measure

from vpbench.commands.check.facts import TOLERANCE
from vpbench.plan import identity

AGAIN = "then write the numbers down again with `python tests/golden_numbers.py`"


def test_numbers_are_those_that_ids_stand_for() -> None:
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    assert golden["numbers"] == identity.NUMBERS, f"NUMBERS was raised: {AGAIN.removeprefix('then ')}"
    found = measure()["cells"]
    changed = [key for key in {**golden["cells"], **found} if not _same(golden["cells"].get(key), found.get(key))]
    assert not changed, (
        f"numbers of {', '.join(changed)} changed. Raise NUMBERS in vpbench/plan/identity.py, so that no stored "
        "prediction is taken for a new one (leave it where only files of these methods changed, whose code is in their "
        f"ids, or where cells came or went); {AGAIN}"
    )


def _same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    if one is None or other is None or (one["tokens"], one["macs"]) != (other["tokens"], other["macs"]):
        return False
    largest = max(map(abs, one["values"]), default=0.0)
    return bool(other["values"] == pytest.approx(one["values"], rel=0, abs=TOLERANCE * largest))
