"""Tables as LaTeX with booktabs: what is escaped, how wide it comes out, and the environment around it."""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Protocol

from vpbench.render.style import PAGES


class Table(Protocol):
    """What is set: a `Grid`, which is not known here."""

    @property
    def columns(self) -> Mapping[str, Sequence[str]]:
        """Cells by column."""

    @property
    def text(self) -> Set[str]:
        """Columns that are words."""

    @property
    def groups(self) -> Sequence[str]:
        """What each line belongs together with."""

    @property
    def heads(self) -> Mapping[str, str]:
        """Shorter headers."""


#: points of TeX across a column of a paper and across its whole text, the same that figures are drawn for
WIDTHS = {name: 72.27 * inches for name, inches in (("column", PAGES["paper"].narrow), ("page", PAGES["paper"].wide))}
#: points between columns
GAP = 6.0
#: what LaTeX reads as commands, and signs that its default fonts lack
_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "†": r"\textsuperscript{\dag}", "°": r"\textsuperscript{$\circ$}",
    "*": r"\textsuperscript{*}", "\u2265": r"$\geq$", "\u2264": r"$\leq$", "\u00b1": r"$\pm$",
    "\u00d7": r"$\times$", "\u2212": r"$-$", "\u2013": r"\textendash{}",
}  # fmt: skip
_INTERVAL = re.compile(r"[ \n](\[[^\]]*\])$")
_NUMBER = re.compile(r"^-(?=\d)")
#: widths of signs in Computer Modern Roman at 8 pt, in points; Times, which most venues set, is narrower
_NARROW, _WIDE = frozenset(".,:;'![]()|ijl "), frozenset("mwMW%+=<>~&@")
_SIZE, _SMALL = 8.0, 7.0
#: words of notes that are longer than this many signs may be broken behind one of these
_LONG, _BREAKS = 18, re.compile(r"(?<=[/_=,.:-])(?=[^\s\d])")


def escaped(text: str) -> str:
    """Escape a text for LaTeX; raises nothing, signs outside its table are left to the fonts of the document."""
    return "".join(_SIGNS.get(sign, sign) for sign in text).replace("--", "-{}-")  # no dash out of two hyphens


def size(text: str) -> float:
    """Return how many points wide a cell comes out at most; the interval at its end is set small."""
    bare, interval = _split(text)
    bare, interval = _NUMBER.sub("+", bare), interval.replace("-", "+")  # as a minus is
    return _SIZE * _ems(bare) + (_SMALL * (0.35 + 1.05 * _ems(interval)) if interval else 0)


def _ems(text: str) -> float:
    return sum(0.32 if s in _NARROW else 0.92 if s in _WIDE else 0.8 if s.isupper() else 0.56 for s in text)


def page(label: str, grid: Table, notes: Sequence[str], width: float | None, remarks: Sequence[str]) -> str:
    """Write one table in a float: across a column where that is its `width`, else across both; remarks stand above."""
    float_ = "table" if width == WIDTHS["column"] else "table*"
    caption = ": ".join(part for part in (label, notes[0] if notes else "") if part)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-").lower() or "results"
    lines = [
        *(f"% {remark}" for remark in remarks),
        f"\\begin{{{float_}}}[t]",
        f"\\centering\\footnotesize\\sloppy\\setlength{{\\tabcolsep}}{{{GAP / 2:g}pt}}",
        f"\\caption{{{_breakable(caption)}.}}",
        f"\\label{{tab:{slug}}}",
        f"\\begin{{tabular}}{{@{{}}{''.join('l' if name in grid.text else 'r' for name in grid.columns)}@{{}}}}",
        "\\toprule",
        *_heads(grid),
        "\\midrule",
        *_lines(grid),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    if notes[1:]:
        lines += ["\\par\\medskip", "\\begin{minipage}{\\linewidth}\\scriptsize\\raggedright"]
        # a paragraph each: behind a line break an opening bracket or a star would be read as part of the command
        lines += [f"{_breakable(note)}{'' if note.endswith(('.', ':')) else '.'}\\par" for note in notes[1:]]
        lines += ["\\end{minipage}"]
    return "\n".join([*lines, f"\\end{{{float_}}}"])


def _breakable(text: str) -> str:
    """Escape a sentence; names of files, settings and commands in it may be broken like words."""
    words = (_BREAKS.split(word) if len(word) > _LONG else [word] for word in text.split(" "))
    return " ".join("\\allowbreak{}".join(map(escaped, parts)) for parts in words)


def _heads(grid: Table) -> Iterator[str]:
    """Write headers, their units in a line of their own."""
    heads = [grid.heads.get(name, name).partition("\n") for name in grid.columns]
    yield " & ".join(escaped(head) for head, _, _ in heads) + " \\\\"
    if any(unit for _, _, unit in heads):
        yield " & ".join(escaped(unit) for _, _, unit in heads) + " \\\\"


def _lines(grid: Table) -> list[str]:
    lines, before = [], None
    for group, cells in zip(grid.groups, zip(*grid.columns.values(), strict=True), strict=True):
        if before not in (None, group):
            lines.append("\\addlinespace")
        first = "" if group == before else cell(cells[0])
        lines.append(" & ".join([first, *map(cell, cells[1:])]) + " \\\\")
        before = group
    return lines


def cell(text: str) -> str:
    """Escape a cell; intervals are set small, and a minus is one."""
    bare, interval = _split(text)
    small = f" {{\\scriptsize {escaped(interval)}}}".replace("[-", "[$-$").replace(" -", " $-$") if interval else ""
    return _NUMBER.sub("$-$", escaped(bare)) + small


def _split(text: str) -> tuple[str, str]:
    """Part a cell from the interval at its end."""
    found = _INTERVAL.search(text)
    return (text[: found.start()], found.group(1)) if found else (text, "")
