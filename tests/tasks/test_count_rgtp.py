"""All 23 rows of RGTP's tables, by the command that users have: counted its way and ours, beside what was published."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from rgtp_counts import ROWS
from typer.testing import CliRunner

from vpbench.api import Classifier
from vpbench.cli import app
from vpbench.commands.flops import clips
from vpbench.plan import Cell, presets
from vpbench.rows import published
from vpbench.tasks.recognition import count
from vpbench.tasks.recognition.count import Count


@pytest.fixture(autouse=True, scope="module")
def dense_once() -> Iterator[None]:
    """Count the dense clip of a backbone once, not again beside each preset."""
    known: dict[str, list[Count]] = {}

    def counts(model: Classifier, cell: Cell, *rest: Any) -> list[Count]:
        if cell.method != "dense":
            return count.counts(model, cell, *rest)
        if cell.config_id not in known:
            known[cell.config_id] = count.counts(model, cell, *rest)
        return known[cell.config_id]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "counts", counts)
        yield


def printed(preset: str) -> list[str]:
    done = CliRunner().invoke(app, ["flops", "--preset", f"rgtp/{preset}"])
    assert done.exit_code == 0, done.output
    lines: list[str] = done.output.splitlines()
    return lines


def pair(preset: str, lines: list[str]) -> tuple[float, float]:
    """Return what was printed of the preset's own cell: ours, and RGTP's way."""
    if preset.startswith("vid"):
        # the control, which is drawn, comes last
        row = next(line for line in lines if line.startswith("dense " if preset.endswith("base") else "rgtp "))
        ours, theirs = row.split()[-2:]
        return float(ours), float(theirs)
    [line] = [line for line in lines if line.startswith("a video of 12 views, ours / RGTP's way:")]
    found = re.findall(r"([\d.]+) / ([\d.]+)", line.partition(":")[2])[-1]
    return float(found[0]), float(found[1])


def under(column: str, lines: list[str]) -> float:
    """Return what a column of the table of clips says of the preset's own cell, which is its last line."""
    [header] = [line for line in lines if line.endswith("tokens entering the blocks")]
    row = [line for line in lines if line.endswith("leave the last attention")][-1]
    return float(row[: header.index(f" {column}") + len(column) + 1].split()[-1])


def test_the_rows_are_the_presets_and_the_figures() -> None:
    named = {f"rgtp/{name}" for name in ROWS}
    assert len(named) == 23
    assert {name for name in presets.summaries() if name.startswith("rgtp/")} == named
    costs = [f for f in published.figures() if f.convention == "rgtp" and f.preset in named]
    assert {f.preset: f.value for f in costs} == {f"rgtp/{name}": figure for name, (figure, _) in ROWS.items()}
    assert len(costs) == 23
    quality = [f.preset for f in published.figures() if f.preset in named and f.metric.endswith("_pct")]
    assert sorted(quality) == sorted(named)


#: of each backbone the base, the most and the least that is kept; all are counted below, and by test_published_table.py
SHOWN = (
    "k400_base", "k400_keep_0066", "epic_base", "epic_fg_300_bg_025", "epic_fg_28s05_bg_00", "vid672_base",
    "vid672_keep768", "vid672_keep64", "vid1024_base", "vid1024_keep75",
)  # fmt: skip


@pytest.mark.parametrize("preset", SHOWN)
def test_flops_answers_in_both_conventions(preset: str) -> None:
    lines, (figure, counted) = printed(preset), ROWS[preset]
    ours, theirs = pair(preset, lines)
    assert theirs == pytest.approx(counted, abs=0.06 if counted > 500 else 0.006)
    assert theirs == pytest.approx(figure, rel=0.006)
    if not preset.startswith("vid"):
        # rounding of K aside, what really runs is what operators show, and tracking
        assert under("torch's", lines) == pytest.approx(under("ours", lines), rel=1e-3)
    # the base of a detector has no method; otherwise embedding against additions and rollout by whole maps
    assert ours != theirs
    [said] = [line for line in lines if "gmacs_per_" in line and f" {figure:g} (" in line and "published:" in line]
    assert "rgtp's way" in said
