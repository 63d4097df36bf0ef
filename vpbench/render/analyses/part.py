"""What all analyses share: the stored tables that they are made of, and what one comes to for comparable rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from vpbench.errors import NothingMeasured
from vpbench.render.points import cell_names, curves, variants
from vpbench.render.style import Page, look
from vpbench.render.tables.cells import order
from vpbench.render.tables.columns import ALPHA, CAVEAT
from vpbench.render.tables.layout import Grid
from vpbench.rows import fates
from vpbench.rows.contexts import MEASURED, contexts, records
from vpbench.rows.fates import Shown
from vpbench.rows.schema import Result
from vpbench.rows.statistics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Predictions(Protocol):
    """Returns rows of a table of what was predicted, with `config_id` in front; see `rows.store.Store.predictions`."""

    def __call__(self, table: str, results: pd.DataFrame, columns: Sequence[str] | None = None, /) -> pd.DataFrame:
        """Return these columns, or all."""


class Stored:
    """A results folder as analyses read it: `results`, one row per cell, and tables that are read when asked for."""

    def __init__(self, results: pd.DataFrame, predictions: Predictions) -> None:
        self.results, self._predictions = results, predictions

    @cached_property
    def videos(self) -> pd.DataFrame:
        """What all rows answered."""
        columns = ("video_id", "correct", "agree", "label", "label_name")
        return self._predictions("videos", self.results, columns)

    @cached_property
    def shown(self) -> list[Shown]:
        """The clips whose tokens were followed."""
        return fates.shown(self._predictions("fates", self.results))

    def clips(self, rows: Sequence[Result], *columns: str) -> pd.DataFrame:
        """Return columns of the clips table of some rows."""
        own = self.results[self.results["config_id"].isin([row["config_id"] for row in rows])]
        return self._predictions("clips", own, columns)


@dataclass(frozen=True)
class Part:
    """An analysis of comparable rows: a table with what is to be known to read it, all numbers, and a figure.

    `name`: of its figure; `label`: what sets the rows apart from others; `title`: of the table; `rows`: all that it is
    made of. Intervals in cells of `grid` have a line of their own; see `laid`.
    """

    name: str
    label: str
    title: str
    rows: Sequence[Result]
    grid: Grid
    notes: list[str]
    frame: pd.DataFrame
    draw: "Callable[[Page], Figure]"

    def laid(self, split: str) -> Grid:
        """Return the table with `split` between values and their intervals, as a layout has it."""
        columns = {name: [cell.replace("\n", split) for cell in cells] for name, cells in self.grid.columns.items()}
        return replace(self.grid, columns=columns)


@dataclass(frozen=True)
class Missing:
    """Why there is no such part."""

    name: str
    label: str
    reason: str


Found = Part | Missing
#: column of what tells the rows of a method apart
SETTING = "keep or\nsetting"


def each_context(name: str, stored: Stored, make: Callable[[str, Sequence[Result]], Part]) -> Iterator[Found]:
    """Yield what `make` makes of each context, by label and rows in the order of tables.

    Where it raises NothingMeasured, that is the reason why there is none. Contexts of which nothing was measured are
    left out.
    """
    for label, group in contexts(stored.results):
        rows = sorted(records(group), key=order)
        if not any(row["status"] in MEASURED for row in rows):
            continue
        try:
            yield make(label, rows)
        except NothingMeasured as error:
            yield Missing(name, label, str(error))


def names(shown: Sequence[Result], rows: Sequence[Result]) -> list[str]:
    """Name rows by method and keep ratio, or setting among `rows`; with their seed where there are several."""
    several = len({row["seed"] for row in rows}) > 1
    found = []
    for name, row in zip(cell_names(shown, rows), shown, strict=True):
        method, space, setting = name.partition(" ")
        seed = f" seed={row['seed']}" if several else ""
        found.append(f"{method}{CAVEAT if row['caveat'] else ''}{space}{setting}{seed}")
    return found


def naming(shown: Sequence[Result], rows: Sequence[Result]) -> dict[str, list[str]]:
    """Return columns that name rows as `names` does: methods, and their settings."""
    found = names(shown, rows)
    return {part: [name.partition(" ")[at] for name in found] for part, at in (("method", 0), (SETTING, 2))}


def caveats(rows: Sequence[Result]) -> list[str]:
    """Say what marks of methods mean."""
    marked = sorted({(row["method"], row["caveat"]) for row in rows if row["caveat"]})
    return [f"{CAVEAT} {method}: {text}" for method, text in marked]


def looks(rows: Sequence[Result], page: Page) -> dict[str, dict[str, Any]]:
    """Return the looks of rows by `config_id`, as their curves have them in all figures."""
    found: dict[str, dict[str, Any]] = {}
    grouped = curves(rows)
    number = variants(grouped)
    for name, curve in grouped.items():
        found |= {row["config_id"]: look(row["method"], page, number[name]) for row in curve}
    return found


def spanned(interval: Interval, form: str, mark: str = "") -> str:
    """Write a value, and its interval in a line of its own."""
    return f"{interval.value:{form}}{mark}\n[{interval.lo:{form}}, {interval.hi:{form}}]"


def star(p_value: float | None) -> str:
    """Mark what is significant after correction."""
    return "*" if p_value is not None and p_value < ALPHA else ""


def numbers(row: Result, label: str) -> dict[str, Any]:
    """Return what names a row in a table of numbers."""
    named = ("config_id", "method", "method_params", "keep_nominal", "keep_realised", "seed")
    return {"context": label} | {name: row[name] for name in named}  # type: ignore[literal-required]
