"""Tables as TeX sets them: across a column and a page of a paper, nothing sticks out."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from golden_rounds import with_samples
from golden_rows import frame, identity, measured, sweep, sweep_videos

from vpbench.render.tables import cells, columns, latex, layout
from vpbench.render.tables import published as published_table
from vpbench.render.tables.latex import WIDTHS
from vpbench.render.tables.published import Line
from vpbench.rows import published
from vpbench.rows.contexts import plain

needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no pdflatex found: install texlive-latex-base to set the tables"
)
ROWS, ROUNDS = with_samples(sweep())
DOCUMENT = r"""\documentclass[10pt,twocolumn]{article}
\usepackage[textwidth=%gpt,textheight=650pt]{geometry}
\usepackage{booktabs}
\setlength{\columnsep}{%gpt}
\begin{document}
%s
\end{document}
"""
PRECISION = {"task": "detection", "map50": 81.6, "map50_ci_lo": 75.0, "map50_ci_hi": 88.0, "map_definition": "COCO"}
SPEEDS = {"map50_slow": 76.7, "map50_medium": 70.6, "map50_fast": 67.2, "top1": None}
LATEX = layout.Layout.of("latex")
LONG = "ValueError: /a/very/long/path/to/some/videos/of/mine/that/cannot/be/read/class_of_videos/video_0000_0001.mp4"


def overfull(folder: Path, *tables: str) -> list[float]:
    """Set tables in two columns as wide as those they are made for; returns by how many points boxes stick out."""
    column, page = WIDTHS["column"], WIDTHS["page"]
    text = DOCUMENT % (page, page - 2 * column, "\n\\clearpage\n".join(tables))
    (folder / "paper.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "paper.tex"], cwd=folder, capture_output=True)
    log = (folder / "paper.log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[log.find("\n!") :][:500]
    return [float(each) for each in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]


def lines() -> list[Line]:
    return [
        Line(figure, "fvcore", figure.value * 1.01, figure.value, figure.value, f"504 of 504 videos of {n % 3}", "")
        if n % 2
        else Line(figure, "", None, None, None, "", "not run: weights, imagenet_vid")
        for n, figure in enumerate(published.figures())
    ]


@needs_tex
@pytest.mark.parametrize("across", ["column", "page"])
def test_nothing_sticks_out(across: str, tmp_path: Path) -> None:
    results, seen, samples = frame(ROWS), frame(sweep_videos(), "videos"), frame(ROUNDS, "samples")
    own: dict[str, Any] = PRECISION | SPEEDS
    long = [measured(), measured("rlt", 0.4, caveat="reads labels & more", noisy=True) | {"method": "a_method_of_mine"}]
    long += [identity("sta", 0.4, error=LONG)]
    tables = [
        cells.report(results, seen, "latex", None, "dense", WIDTHS[across]),
        cells.report(results, seen, "latex", samples, "random", WIDTHS[across]),
        cells.report(frame(long), seen, "latex", width=WIDTHS[across]),
        cells.report(
            frame([measured(**own), measured("rlt", 0.4, **own) | {"method": "rgtp"}]),
            seen,
            "latex",
            width=WIDTHS[across],
        ),
        cells.metrics_report(results, seen, samples, None, "latex", WIDTHS[across]),
        *published_table.report(lines(), published.reasons(), "latex", WIDTHS[across]).split("\n\n")[1:],
    ]
    assert overfull(tmp_path, *tables) == []


@needs_tex
def test_all_columns_are_wider_than_a_page(tmp_path: Path) -> None:
    """Else the test above would find nothing whatever was set."""
    assert max(overfull(tmp_path, cells.report(frame(ROWS), frame(sweep_videos(), "videos"), "latex"))) > 50


def test_a_column_has_what_counts_and_a_page_its_intervals() -> None:
    seen = frame(sweep_videos(), "videos")
    column, page = (cells.report(frame(ROWS), seen, "latex", width=WIDTHS[across]) for across in ("column", "page"))
    assert "\\begin{table}[t]" in column
    assert "method & keep & kept & top-1 & vs dense & GMACs & speed-up \\\\" in column
    assert "no room here for" in column
    assert "\\begin{table*}[t]" in page
    rlt = next(row for row in ROWS if (row["method"], row["keep_nominal"]) == ("rlt", 0.4))
    interval = f"[{rlt['speedup_ci_lo']:.2f}, {rlt['speedup_ci_hi']:.2f}]"
    assert interval in page
    assert interval not in column


@needs_tex
def test_widths_are_never_estimated_too_small(tmp_path: Path) -> None:
    grid = columns.columns(plain(cells.build(frame(ROWS), frame(sweep_videos(), "videos"))), LATEX, "dense")
    texts = sorted({text for column in grid.columns.values() for text in column if text} | {*grid.text, "WOMbatrnq_"})
    boxes = "\n".join(
        f"\\setbox0\\hbox{{\\footnotesize {latex.cell(text)}}}\\typeout{{w=\\the\\wd0}}" for text in texts
    )
    overfull(tmp_path, boxes + "x")
    wide = [float(each) for each in re.findall(r"w=([\d.]+)pt", (tmp_path / "paper.log").read_text())]
    assert len(wide) == len(texts) > 100
    for text, true in zip(texts, wide, strict=True):
        assert true <= latex.size(text) < 1.4 * true + 4, text
