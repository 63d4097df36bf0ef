"""Tables as text: on a console, in Markdown, and in LaTeX with booktabs."""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from tabulate import tabulate

from vpbench.errors import UsageError, near_matches
from vpbench.render.tables import latex

FORMATS = ("console", "markdown", "latex", "csv")


@dataclass(frozen=True)
class Ruler:
    """What measures cells: `size` of a text, `gap` between columns, and the signs of words that are kept of a cell."""

    size: Callable[[str], float]
    gap: float
    signs: int


@dataclass(frozen=True)
class Grid:
    """The cells of a table as text, by column; a header of two lines has its unit in the second.

    `text`: columns that are words and go to the left; `groups`: for each line what it belongs together with. Where a
    terminal is too narrow, `ranks` has the columns that count most first, and again where the second line of their
    cells (interval, setting) comes in; none: in order. `heads`: shorter headers.
    """

    columns: Mapping[str, Sequence[str]]
    text: Set[str]
    groups: Sequence[str]
    ranks: Sequence[str] = ()
    heads: Mapping[str, str] = field(default_factory=dict)

    def fitted(self, width: float, ruler: Ruler) -> "tuple[Grid, list[str]]":
        """Return the columns that fit into a width, a line per cell, and the names of what had no room.

        The first two ranks are shown however narrow it is.
        """
        shown: dict[str, int] = {}
        ranks = [name for name in self.ranks or (*self.columns, *self.columns) if name in self.columns]
        known: dict[tuple[str, int], float] = {}
        for rank, name in enumerate(ranks):
            more = shown | {name: shown.get(name, 0) + 1}
            for each in more.items():
                if each not in known:
                    known[each] = max(map(ruler.size, self._column(*each, ruler)))
            if rank < 2 or sum(known[each] for each in more.items()) + ruler.gap * (len(more) - 1) <= width:
                shown = more
        cells = {name: self._column(name, shown[name], ruler)[2:] for name in self.columns if name in shown}
        return replace(self, columns=cells), list(self._left_out(shown))

    def _column(self, name: str, lines: int, ruler: Ruler) -> list[str]:
        """Return header, unit and cells of a column, of cells so many lines; long words are cut, numbers never."""
        cells = [" ".join(cell.split("\n")[:lines]) for cell in self.columns[name]]
        if name in self.text:
            most = ruler.signs
            cells = [cell if len(cell) <= most else f"{cell[: most - 3].rstrip()}..." for cell in cells]
        head, _, unit = self.heads.get(name, name).partition("\n")
        return [head, unit, *cells]

    def lines(self) -> list[str]:
        """Lay the table out with a line per row, units below headers."""
        columns = []
        for name, cells in self.columns.items():
            head, _, unit = self.heads.get(name, name).partition("\n")
            wide = max(map(len, (head, unit, *cells)))
            align = str.ljust if name in self.text else str.rjust
            columns.append([align(cell, wide) for cell in (head, unit, "-" * wide, *cells)])
        return [line for each in zip(*columns, strict=True) if (line := "  ".join(each).rstrip())]

    def _left_out(self, shown: Mapping[str, int]) -> Iterator[str]:
        for name, cells in self.columns.items():
            flat = self.heads.get(name, name).replace("-\n", "").replace("\n", " ")
            if name not in shown:
                yield flat
            elif any(cell.count("\n") >= shown[name] for cell in cells):
                yield "settings" if name in self.text else f"intervals of {flat}"


@dataclass(frozen=True)
class Layout:
    """How grids, headings and notes become text in one format.

    `split`: what stands between a value and its interval; `grouped`: a method has lines of its own and is named once;
    `width`: signs in a line of the console, or points of TeX, None for as many as it takes; `command`: what prints the
    whole table.
    """

    name: str
    split: str = " "
    grouped: bool = False
    width: float | None = None
    command: str = "vpbench table"

    @classmethod
    def of(cls, fmt: str, width: float | None = None, command: str = "vpbench table") -> "Layout":
        """Return the layout of a format by name; `width`: signs of the console, or points of LaTeX.

        Raises UsageError with near matches.
        """
        if fmt not in FORMATS:
            raise UsageError(f"unknown table format {fmt!r}{near_matches(fmt, FORMATS)}")
        if fmt in ("markdown", "csv"):
            return cls(fmt)
        return cls(fmt, "\n", fmt == "latex", width, command)

    def page(self, label: str, grid: Grid, notes: Sequence[str]) -> str:
        """Write one table with its heading (none if empty) and what has to be known to read it."""
        if self.name == "latex":
            return self._latex(label, grid, notes)
        heading = [f"### {label}" if self.name == "markdown" else self._folded(label), ""] if label else []
        bullet = "- " if self.name == "markdown" else "  "
        lines, left_out = self._grid(grid).splitlines(), list[str]()
        if self.width is not None and max(map(len, lines)) > self.width:
            narrow, left_out = grid.fitted(self.width, Ruler(len, 2, int(self.width) // 2))
            lines = narrow.lines()
        said = [*notes, *self._no_room(left_out)]
        return "\n".join([*heading, *lines, "", *(self._folded(bullet + self._plain(line)) for line in said)])

    def _latex(self, label: str, grid: Grid, notes: Sequence[str]) -> str:
        left_out: list[str] = []
        if self.width is not None:
            signs = int(self.width / latex.size("n")) // 2
            grid, left_out = grid.fitted(self.width, Ruler(latex.size, latex.GAP, signs))
        return latex.page(label, grid, notes, self.width, self._no_room(left_out))

    def _no_room(self, left_out: Sequence[str]) -> list[str]:
        return [f"no room here for {'; '.join(left_out)}: `{self.command} --wide` shows all"] * bool(left_out)

    def line(self, text: str) -> str:
        """Write a line that stands in place of a table."""
        return f"{latex.escaped(text)}." if self.name == "latex" else self._folded(self._plain(text))

    def _folded(self, text: str) -> str:
        """Break a line of words where the console is narrower."""
        if self.width is None:
            return text
        return textwrap.fill(
            text, int(self.width), subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )

    def document(self, pages: Sequence[str]) -> str:
        """Put tables below each other."""
        head = ["% needs \\usepackage{booktabs}"] if self.name == "latex" else []
        return "\n\n".join([*head, *pages])

    def _grid(self, grid: Grid) -> str:
        columns = {name.replace("\n", self.split): [*map(self._plain, cells)] for name, cells in grid.columns.items()}
        align = ["left" if name in grid.text else "right" for name in grid.columns]
        style = "simple" if self.name == "console" else "github"
        text = tabulate(columns, headers="keys", tablefmt=style, disable_numparse=True, colalign=align)
        return "\n".join(line.rstrip() for line in text.splitlines())

    def _plain(self, text: str) -> str:
        return text.replace("|", "\\|") if self.name == "markdown" else text


def letter(number: int) -> str:
    """Return the mark of the footnote of this number, from 0: a to z, aa, ab, ..."""
    more, last = divmod(number, 26)
    return (letter(more - 1) if more else "") + chr(ord("a") + last)
