"""Tables as text: on a console, in Markdown, and in LaTeX with booktabs."""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

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

    `text`: columns that are words and go to the left; `groups`: for each line what it belongs together with.
    """

    columns: Mapping[str, Sequence[str]]
    text: Set[str]
    groups: Sequence[str]


@dataclass(frozen=True)
class Layout:
    """How grids, headings and notes become text in one format.

    `split`: what stands between a value and its interval; `grouped`: a method has lines of its own and is named once.
    """

    name: str
    split: str = " "
    grouped: bool = False

    @classmethod
    def of(cls, fmt: str) -> "Layout":
        """Return the layout of a format by name; raises UsageError with near matches."""
        if fmt not in FORMATS:
            raise UsageError(f"unknown table format {fmt!r}{near_matches(fmt, FORMATS)}")
        return cls(fmt, "\n" if fmt == "console" else " ", fmt == "latex")

    def page(self, label: str, grid: Grid, notes: Sequence[str]) -> str:
        """Write one table with its heading (none if empty) and what has to be known to read it."""
        if self.name == "latex":
            return _latex_page(label, grid, notes)
        heading = [f"### {label}" if self.name == "markdown" else label, ""] if label else []
        bullet = "- " if self.name == "markdown" else "  "
        return "\n".join([*heading, self._grid(grid), "", *(bullet + self._plain(line) for line in notes)])

    def line(self, text: str) -> str:
        """Write a line that stands in place of a table."""
        return f"{latex(text)}." if self.name == "latex" else self._plain(text)

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
