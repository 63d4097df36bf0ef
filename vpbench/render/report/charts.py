"""Points, curves and fronts of one context, as the page's script draws them."""

from collections.abc import Mapping, Sequence
from typing import Any

from vpbench.render import points
from vpbench.render.points import Cost, costs
from vpbench.render.style import look_of
from vpbench.rows import kinds
from vpbench.rows.contexts import MEASURED
from vpbench.rows.schema import Result
from vpbench.rows.statistics import controls, pareto


def chart(cells: Sequence[Result], named: Mapping[str, str]) -> dict[str, Any]:
    """Return axes, curves, points and fronts of a context as plain JSON.

    cells: rows in the order of the table, whose lines `row` of a point counts; named: by `config_id`. Points without a
    value on an axis have none there; without any quality or cost there is no point.
    """
    good = [cell for cell in cells if cell["status"] in MEASURED and cell["gmacs_executed"] is not None]
    found = {key: [p for cell in good if (p := points.point(cell, key)) is not None] for key in kinds.QUALITIES}
    qualities = [key for key, own in found.items() if own]
    axes = [cost for cost in costs(kinds.unit(cells[0])) if any(_costed(cell, cost) for cell in good)]
    groups = {"dense": [cell for cell in good if cell["method"] == "dense"], **points.curves(good)}
    groups = {name: members for name, members in groups.items() if members}
    ordered = [cell for members in groups.values() for cell in members] if qualities else []
    curve_of = {cell["config_id"]: i for i, members in enumerate(groups.values()) for cell in members}
    line_of = {cell["config_id"]: i for i, cell in enumerate(cells)}
    return {
        "qualities": [
            {"key": key, "name": kinds.QUALITIES[key], "range": points.shown_range(found[key])} for key in qualities
        ],
        "costs": [
            {"key": cost.key, "name": cost.name, "timed": cost.timed, "range": points.log_range(cost.ends(good))}
            for cost in axes
        ],
        "curves": [
            {"name": name, "method": members[0]["method"], "kind": _kind(members[0])}
            for name, members in groups.items()
        ],
        "points": [
            {
                "row": line_of[cell["config_id"]],
                "curve": curve_of[cell["config_id"]],
                "name": named[cell["config_id"]],
                "noisy": bool(cell["noisy"]),
                "x": {cost.key: _costed(cell, cost) for cost in axes},
                "y": {key: _quality(cell, key) for key in qualities},
            }
            for cell in ordered
        ],
        "fronts": {f"{key}/{cost.key}": _front(ordered, key, cost) for key in qualities for cost in axes},
    }


def give_looks(charts: Sequence[dict[str, Any]]) -> None:
    """Say what curves look like: as on paper, and the same name has the same look in all charts."""
    curves = [curve for each in charts for curve in each["curves"]]
    names: dict[str, set[str]] = {}
    for curve in curves:
        names.setdefault(curve["method"], set()).add(curve["name"])
    for curve in curves:
        own = look_of(curve["method"], sorted(names[curve["method"]]).index(curve["name"]))
        curve["colour"] = f"light-dark({own.colour}, {own.night})"
        curve["marker"], curve["dashes"] = own.path, " ".join(f"{1.6 * length:g}" for length in own.dashes)


def _kind(row: Result) -> str:
    return "dense" if row["method"] == "dense" else "random" if controls.is_random(row) else "method"


def _costed(row: Result, cost: Cost) -> list[float | None] | None:
    """Return value and interval; None where there is no value, or none that a logarithmic axis can show."""
    value = cost.value(row)
    if value is None or value <= 0:
        return None
    return [value, *((None, None) if cost.interval is None else (row[cost.interval[0]], row[cost.interval[1]]))]


def _quality(row: Result, key: str) -> list[float] | None:
    found = points.point(row, key)
    return None if found is None else [found.y, found.lo, found.hi]


def _front(rows: Sequence[Result], key: str, cost: Cost) -> list[int]:
    """Return the points on the front by ascending cost; what has a caveat takes no place there."""
    sign = -1 if cost.rate else 1
    known: list[tuple[int, float, float]] = []
    for i, row in enumerate(rows):
        x, y = _costed(row, cost), _quality(row, key)
        if x is not None and x[0] is not None and y is not None and not row["caveat"]:
            known.append((i, sign * x[0], y[0]))
    return [known[i][0] for i in pareto.front([x for _, x, _ in known], [y for _, _, y in known])]
