"""How rows name their settings in tables and figures: in each row what varies, once below what does not."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vpbench.rows.schema import Result

#: methods with at most so many parameters name all of them in every row
FEW = 2


def own_params(row: Result) -> dict[str, Any]:
    """Return a row's method parameters without `keep` and `seed`, which have columns of their own."""
    return {k: v for k, v in json.loads(row["method_params"]).items() if k not in ("keep", "seed")}


class Names:
    """The names of the rows of one table; each row is read once, however many ask."""

    def __init__(self, rows: Sequence[Result]) -> None:
        self._rows = rows
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["matched_to"] is None:
                found.setdefault(row["method"], []).append(own_params(row))
        self._varying = {method: _varying(params) for method, params in found.items()}

    def setting(self, row: Result) -> str:
        """Name a row's setting: all of a few parameters, of many those that differ between rows."""
        params = own_params(row)
        if len(params) > FEW:
            params = {k: v for k, v in params.items() if k in self._of(row["method"])}
        return " ".join(map(_assignment, params.items()))

    def shared(self) -> list[str]:
        """Return lines `method: parameter=value ...` of what `setting` leaves out of the rows."""
        first: dict[str, Result] = {}
        for row in self._rows:
            if row["matched_to"] is None:
                first.setdefault(row["method"], row)
        lines = []
        for method, row in first.items():
            params = own_params(row)
            same = {k: v for k, v in params.items() if len(params) > FEW and k not in self._of(method)}
            if same:
                lines.append(f"{method}: " + " ".join(map(_assignment, same.items())))
        return lines

    def variant(self, row: Result) -> str:
        """Name what sets a row's curve apart from others of its method: differing words and switches, not numbers.

        A list of counts ("24/12/6") follows the keep ratio like any number.
        """
        different = self._of(row["method"])
        words = {k: v for k, v in own_params(row).items() if k in different and _is_word(v)}
        return " ".join(f"{k}={v}" for k, v in words.items())

    def _of(self, method: str) -> set[str]:
        return self._varying.get(method, set())


def _varying(found: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the parameters that not all of these have with the same value."""
    first = found[0]
    return {k for params in found for k, v in params.items() if k not in first or v != first[k]} | {
        k for params in found for k in first if k not in params
    }


def _is_word(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and re.search("[A-Za-z]", value) is not None)


def _assignment(param: tuple[str, Any]) -> str:
    name, value = param
    return (
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value!r}" if value == "" else f"{name}={value}"
    )
