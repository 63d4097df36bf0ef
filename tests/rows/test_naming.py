from __future__ import annotations

import json
from typing import Any

from vpbench.rows.names import Names
from vpbench.rows.schema import Result


def row(method: str = "tome", matched_to: str | None = None, **params: Any) -> Result:
    return {"method": method, "matched_to": matched_to, "method_params": json.dumps(params)}


ROWS = [row(r=r, form=f, weighted=True, schedule="") for r in (3, 5) for f in ("merge", "drop")]


def test_rows_of_many_parameters_name_what_differs_and_share_the_rest() -> None:
    assert [Names(ROWS).setting(r) for r in ROWS[:2]] == ["r=3 form=merge", "r=3 form=drop"]
    assert Names(ROWS).shared() == ["tome: weighted=True schedule=''"]


def test_rows_of_few_parameters_name_all() -> None:
    rows = [row("rlt", threshold=0.1), row("tdiff", keep=0.5, pair="ends"), row("random", "x", seed=3)]
    assert [Names(rows).setting(r) for r in rows] == ["threshold=0.1", "pair=ends", ""]
    assert Names(rows).shared() == []


def test_curves_are_named_by_differing_words() -> None:
    assert [Names(ROWS).variant(r) for r in ROWS[:2]] == ["form=merge", "form=drop"]
    follows_keep = [row("vidtldr", schedule=s, proportional=True) for s in ("64/21", "43/14")]
    assert [Names(follows_keep).variant(r) for r in follows_keep] == ["", ""]
