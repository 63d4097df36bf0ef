"""Tables as text: on a console, in Markdown, and in LaTeX with booktabs."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from tabulate import tabulate

from vpbench.errors import UsageError, near_matches

FORMATS = ("console", "markdown", "latex", "csv")
#: what LaTeX reads as commands, and signs that its default fonts lack
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "†": r"\textsuperscript{\dag}", "°": r"\textsuperscript{$\circ$}",
    "*": r"\textsuperscript{*}", "\u2265": r"$\geq$", "\u2264": r"$\leq$", "\u00b1": r"$\pm$",
    "\u00d7": r"$\times$", "\u2212": r"$-$", "\u2013": r"\textendash{}",
}  # fmt: skip
_INTERVAL = re.compile(r" (\[[^\]]*\])$")
_NUMBER = re.compile(r"^-(?=\d)")


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

    def fitted(self, width: int) -> tuple[list[str], list[str]]:
        """Return the table with a line per row, at most `width` signs wide, and the names of what had no room.

        The first two ranks are shown however narrow it is.
        """
        shown: dict[str, int] = {}
        ranks = [name for name in self.ranks or (*self.columns, *self.columns) if name in self.columns]
        for rank, name in enumerate(ranks):
            more = shown | {name: shown.get(name, 0) + 1}
            if rank < 2 or max(map(len, self._lines(more, width))) <= width:
                shown = more
        return self._lines(shown, width), list(self._left_out(shown))

    def _lines(self, shown: Mapping[str, int], width: int) -> list[str]:
        """Lay out columns, of their cells so many lines side by side; long words are cut, numbers never."""
        columns = []
        for name in (name for name in self.columns if name in shown):
            cells = [" ".join(cell.split("\n")[: shown[name]]) for cell in self.columns[name]]
            if name in self.text:
                cells = [cell if len(cell) <= width // 2 else f"{cell[: width // 2 - 3].rstrip()}..." for cell in cells]
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
    `width`: signs in a line of the console, None for as many as it takes; `command`: what prints the whole table.
    """

    name: str
    split: str = " "
    grouped: bool = False
    width: int | None = None
    command: str = "vpbench table"

    @classmethod
    def of(cls, fmt: str, width: int | None = None, command: str = "vpbench table") -> "Layout":
        """Return the layout of a format by name; `width` is the console's. Raises UsageError with near matches."""
        if fmt not in FORMATS:
            raise UsageError(f"unknown table format {fmt!r}{near_matches(fmt, FORMATS)}")
        if fmt != "console":
            return cls(fmt, grouped=fmt == "latex")
        return cls(fmt, "\n", width=width, command=command)

    def page(self, label: str, grid: Grid, notes: Sequence[str]) -> str:
        """Write one table with its heading (none if empty) and what has to be known to read it."""
        if self.name == "latex":
            return _latex_page(label, grid, notes)
        heading = [f"### {label}" if self.name == "markdown" else self._folded(label), ""] if label else []
        bullet = "- " if self.name == "markdown" else "  "
        lines, left_out = self._grid(grid).splitlines(), list[str]()
        if self.width is not None and max(map(len, lines)) > self.width:
            lines, left_out = grid.fitted(self.width)
        if left_out:
            notes = [*notes, f"no room here for {'; '.join(left_out)}: `{self.command} --wide` shows all"]
        return "\n".join([*heading, *lines, "", *(self._folded(bullet + self._plain(line)) for line in notes)])

    def line(self, text: str) -> str:
        """Write a line that stands in place of a table."""
        return f"{latex(text)}." if self.name == "latex" else self._folded(self._plain(text))

    def _folded(self, text: str) -> str:
        """Break a line of words where the console is narrower."""
        if self.width is None:
            return text
        return textwrap.fill(text, self.width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)

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


def latex(text: str) -> str:
    """Escape a text for LaTeX; raises nothing, signs outside its table are left to the fonts of the document."""
    return "".join(_LATEX.get(sign, sign) for sign in text).replace("--", "-{}-")  # no dash out of two hyphens


def _latex_cell(text: str) -> str:
    """Escape a cell; intervals are set small, and a minus is one."""
    bare, interval = text, ""
    if found := _INTERVAL.search(text):
        bare, interval = text[: found.start()], f" {{\\scriptsize {latex(found.group(1))}}}"
    return _NUMBER.sub("$-$", latex(bare)) + interval.replace("[-", "[$-$").replace(" -", " $-$")


def _latex_page(label: str, grid: Grid, notes: Sequence[str]) -> str:
    names = list(grid.columns)
    shape = "".join("l" if name in grid.text else "r" for name in names)
    caption = ": ".join(part for part in (label, notes[0] if notes else "") if part)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-").lower() or "results"
    lines = [
        "\\begin{table*}[t]",
        "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
        f"\\caption{{{latex(caption)}.}}",
        f"\\label{{tab:{slug}}}",
        f"\\begin{{tabular}}{{{shape}}}",
        "\\toprule",
        " & ".join(latex(name.replace("\n", " ")) for name in names) + " \\\\",
        "\\midrule",
        *_latex_lines(grid),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    if notes[1:]:
        lines += ["\\par\\medskip", "\\begin{minipage}{\\linewidth}\\scriptsize"]
        # a paragraph each: behind a line break an opening bracket or a star would be read as part of the command
        lines += [f"{latex(note)}{'' if note.endswith(('.', ':')) else '.'}\\par" for note in notes[1:]]
        lines += ["\\end{minipage}"]
    return "\n".join([*lines, "\\end{table*}"])


def _latex_lines(grid: Grid) -> list[str]:
    lines, before = [], None
    for group, cells in zip(grid.groups, zip(*grid.columns.values(), strict=True), strict=True):
        if before not in (None, group):
            lines.append("\\addlinespace")
        first = "" if group == before else _latex_cell(cells[0])
        lines.append(" & ".join([first, *map(_latex_cell, cells[1:])]) + " \\\\")
        before = group
    return lines
