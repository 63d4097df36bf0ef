"""How rows name their settings in tables and figures: in each row what varies, once below what does not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

#: methods with at most so many parameters name all of them in every row
FEW = 2


def own_params(row: Row) -> dict[str, Any]:
    """Return a row's method parameters without `keep` and `seed`, which have columns of their own."""
    return {k: v for k, v in json.loads(row["method_params"]).items() if k not in ("keep", "seed")}


def setting(row: Row, rows: Sequence[Row]) -> str:
    """Name a row's setting among the rows of a table: all of a few parameters, of many those that differ."""
    params = own_params(row)
    if len(params) > FEW:
        params = {k: v for k, v in params.items() if k in _varying(row["method"], rows)}
    return " ".join(map(_assignment, params.items()))


def shared(rows: Sequence[Row]) -> list[str]:
    """Return lines `method: parameter=value ...` of what `setting` leaves out of the rows."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows if row["matched_to"] is None):
        params = own_params(next(row for row in rows if row["method"] == method))
        same = {k: v for k, v in params.items() if len(params) > FEW and k not in _varying(method, rows)}
        if same:
            lines.append(f"{method}: " + " ".join(map(_assignment, same.items())))
    return lines


def variant(row: Row, rows: Sequence[Row]) -> str:
    """Name what sets a row's curve apart from others of its method: differing words and switches, not numbers.

    A list of counts ("24/12/6") follows the keep ratio like any number.
    """
    different = _varying(row["method"], rows)
    words = {k: v for k, v in own_params(row).items() if k in different and _is_word(v)}
    return " ".join(f"{k}={v}" for k, v in words.items())


def _varying(method: str, rows: Sequence[Row]) -> set[str]:
    found = [own_params(row) for row in rows if row["method"] == method and row["matched_to"] is None]
    return {k for params in found for k, v in params.items() if any(v != other.get(k) for other in found)}


def _is_word(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and re.search("[A-Za-z]", value) is not None)


def _assignment(param: tuple[str, Any]) -> str:
    name, value = param
    return (
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value!r}" if value == "" else f"{name}={value}"
    )
