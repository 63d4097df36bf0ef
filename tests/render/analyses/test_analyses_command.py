"""Analyses of a results folder, by `vpbench table`, `plot` and `report`."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_rows import VIDEOS, clip_rows, measured, video_rows
from typer.testing import CliRunner

from vpbench import cli
from vpbench.errors import NothingMeasured, UsageError, VpbenchError
from vpbench.rows.store import Store

CELLS = (("dense", None), ("random", 0.4), ("rlt", 0.4))


def vpbench(*arguments: object) -> tuple[str, str]:
    """Return what a command prints; our own errors are raised."""
    done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if isinstance(done.exception, VpbenchError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("analyses") / "out")
    for method, keep in CELLS:
        row = measured(method, keep, n_videos=VIDEOS)
        clips = [row | {"motion": 0.001 * i} for i, row in enumerate(clip_rows(method, keep))]
        name = str(row["config_id"])
        store.write("results", name, [row])
        store.write_together(name, {"clips": clips, "videos": video_rows(method, keep)})
    return store.folder


def test_tables_and_figures_by_name(folder: Path, tmp_path: Path) -> None:
    out, _ = vpbench("table", folder, "--analysis", "hard,strata")
    assert "accuracy on hard videos" in out
    assert "where rows lose, by motion" in out
    assert "no strata-still: still of the clips is not stored with these rows" in out
    out, err = vpbench("plot", folder, "--figure", "hard,views", "--format", "pdf", "--out", tmp_path)
    assert out.splitlines() == [str(tmp_path / "hard.pdf")]
    assert err.splitlines() == ["no figure views: one view of each video was taken: there is nothing to average"]
    written, _ = vpbench("table", folder, "--analysis", "hard", "--out", tmp_path / "hard.csv")
    assert Path(written.strip()).read_text().startswith("context,config_id,method")


def test_what_is_not_there_is_an_error_where_nothing_else_was_asked(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingMeasured, match="nothing to show: views: one view"):
        vpbench("table", folder, "--analysis", "views")
    with pytest.raises(UsageError, match="name an analysis: hard, overlap"):
        vpbench("table", folder, "--analysis", "")
    with pytest.raises(UsageError, match="unknown figure 'overlp'; did you mean 'overlap'"):
        vpbench("plot", folder, "--figure", "overlp")
    with pytest.raises(NothingMeasured, match="nothing to draw of views, frames"):
        vpbench("plot", folder, "--figure", "views,frames", "--out", tmp_path)


def test_the_report_has_a_part_for_each(folder: Path, tmp_path: Path) -> None:
    out, _ = vpbench("report", folder, "--out", tmp_path / "report.html")
    page = Path(out.strip()).read_text()
    for words in (
        "Accuracy on hard videos",
        "Where rows lose, by motion",
        "overlap: no tokens of these rows were followed",
    ):
        assert words in page
