"""`vpbench plot` on stored rows, and a run that measured its stages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from golden_rows import CURVES, clip_rows, identity, measured
from helpers import unwatched, weightless
from typer.testing import CliRunner

from vpbench import cli, plan
from vpbench.errors import NothingMeasured, UsageError, VpbenchError
from vpbench.measure import stages
from vpbench.rows.store import Store
from vpbench.run import group, resolve
from vpbench.tasks.recognition import Recognition


def vpbench(*arguments: object) -> tuple[str, str]:
    """Return what a command prints; our own errors are raised."""
    done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if isinstance(done.exception, VpbenchError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path / "out")
    for method, keep in [("dense", None), *((name, 0.4) for name in CURVES)]:
        row = measured(method, keep)
        store.write("results", str(row["config_id"]), [row])
        store.write("clips", str(row["config_id"]), clip_rows(method, keep))
    return store.folder


def test_figures_lie_beside_the_rows_and_their_paths_are_printed(folder: Path) -> None:
    out, err = vpbench("plot", folder, "--format", "png")
    expected = [folder / "figures" / f"{name}.png" for name in ("pareto", "speed_vs_flops", "keep", "tokens")]
    assert out.splitlines() == [str(path) for path in expected]
    assert all(path.stat().st_size > 5000 for path in expected)
    first, *analyses = err.splitlines()
    assert first == "no figure stages: no row knows its stages; measure with --stages"
    assert {line.split(":")[0] for line in analyses} == {
        f"no figure {name}"
        for name in ("hard", "overlap", "strata-class", "strata-motion", "strata-still", "frames", "views")
    }


def test_figures_formats_folder_and_size_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    out, err = vpbench(
        "plot", folder, "--figure", "keep, tokens", "--format", "pdf", "--size", "slide", "--out", tmp_path
    )
    assert out.splitlines() == [str(tmp_path / "keep-slide.pdf"), str(tmp_path / "tokens-slide.pdf")]
    assert not err


def test_files_of_one_figure_are_one_line(folder: Path, tmp_path: Path) -> None:
    out, _ = vpbench("plot", folder, "--figure", "keep,tokens", "--out", tmp_path)
    assert out.splitlines() == [f"{tmp_path / name}.png, .pdf, .svg" for name in ("keep", "tokens")]


def test_methods_axes_panels_and_words_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    asked = ("--figure", "pareto", "--format", "svg", "--out", tmp_path)
    out, _ = vpbench("plot", folder, *asked, "--method", "rlt", "--x", "gmacs", "--title", "Mine", "--caption", "")
    whole, _ = vpbench("plot", folder, *asked[:-1], tmp_path / "whole")
    assert Path(out.strip()).stat().st_size < 0.7 * Path(whole.strip()).stat().st_size
    vpbench("plot", folder, *asked, "--panels", "method")
    with pytest.raises(UsageError, match="nothing here of method 'rtl'; did you mean 'rlt'"):
        vpbench("plot", folder, *asked, "--method", "rtl")


def test_torn_files_are_named_and_the_rest_is_drawn(folder: Path) -> None:
    (folder / "results.parquet" / "sta-0.4.parquet").write_bytes(b"PAR1")
    out, err = vpbench("plot", folder, "--figure", "keep", "--format", "png")
    assert out
    assert "sta-0.4.parquet: not a whole results file" in err


def test_one_clear_line_where_nothing_can_be_drawn(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'tokens'"):
        vpbench("plot", folder, "--figure", "token")
    with pytest.raises(NothingMeasured, match="no row knows its stages"):
        vpbench("plot", folder, "--figure", "stages")
    failed = Store(tmp_path / "failed")
    failed.write("results", "a", [identity("rlt", 0.4, error="ValueError: broken")])
    with pytest.raises(NothingMeasured, match="none of 1 rows was measured; the first says: ValueError: broken"):
        vpbench("plot", failed.folder)


@pytest.mark.usefixtures("small")
def test_a_run_with_stages_stores_them_and_draws_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recognition, "stage_rounds", 3)
    weightless(monkeypatch)
    unwatched(monkeypatch)
    monkeypatch.setitem(plan.PROFILES, "ci", plan.Profile(3, 0.0, 0.0, 0.0))
    given = {"weights": "random", "limit": 2, "profile": "ci", "threads": 1, "out": tmp_path, "stages": True}
    asked = plan.options({"method": ("sta",), "keep": (0.4,), **given})
    shared, digests = resolve.resolve(asked)
    cells = plan.cells(asked, shared, digests)
    group.run(cells, digests({cell.method for cell in cells}), Store(tmp_path), " ".join(sys.argv), False)
    rows = Store(tmp_path).read("results").set_index("method")
    assert set(rows["status"]) == {"ok"}
    names = [f"stage_{name}_ms" for name in (*stages.STAGES, stages.REST)]
    assert rows[names].sum(axis=1).tolist() == pytest.approx(rows["stage_total_ms"].tolist())
    assert set(rows["n_stage_rounds"]) == {3}
    scoring = rows["stage_scoring_ms"].astype(float)
    assert scoring["sta"] > 5 * scoring["dense"]
    assert set(rows["stage_dense_ms"]) == {rows.loc["dense", "stage_total_ms"]}
    out, _ = vpbench("plot", tmp_path, "--figure", "stages", "--format", "svg")
    drawn = Path(out.strip()).read_text()
    assert "sta 0.4" in drawn
    assert "share of dense" in drawn


def test_stages_are_refused_where_code_is_compiled(tmp_path: Path) -> None:
    asked = plan.options({"method": ("rlt",), "keep": (0.4,), "mode": "compile", "stages": True, "out": tmp_path})
    shared, digests = resolve.resolve(asked)
    cells = plan.cells(asked, shared, digests)
    with pytest.raises(UsageError, match="time --stages in mode eager"):
        group.run(cells, digests({"dense"}), Store(tmp_path), "", False)
