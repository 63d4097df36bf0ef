"""`vpbench table` and `vpbench published` as typed: formats, files, mistakes, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_rounds import with_samples
from golden_rows import clip_rows, identity, sweep, sweep_videos
from typer.testing import CliRunner

from vpbench import cli
from vpbench.errors import NothingMeasured, UsageError, VpbenchError
from vpbench.rows.store import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("results"))
    rows, samples = with_samples(sweep())
    store.write("results", "all", [{k: v for k, v in row.items() if k != "schema_version"} for row in rows])
    store.write("videos", "all", sweep_videos())
    store.write("samples", "all", samples)
    store.write("clips", "dense-None", clip_rows())
    return store.folder


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_format_follows_the_name_of_the_file(folder: Path, tmp_path: Path) -> None:
    for name, start in (("t.md", "| method"), ("t.tex", "% needs"), ("t.csv", "context,"), ("t.txt", "method ")):
        target = tmp_path / "new" / name
        assert run("table", folder, "--out", target).strip() == str(target)
        assert target.read_text().startswith(start)
    run("table", folder, "--format", "csv", "--out", tmp_path / "odd.name")
    with pytest.raises(UsageError, match=r"give --format, or a name that ends in \.md"):
        run("table", folder, "--out", tmp_path / "odd.name")
    with pytest.raises(VpbenchError, match="cannot write"):
        run("table", folder, "--out", tmp_path / "odd.name" / "t.md")


def test_methods_and_columns_can_be_chosen_and_claims_stay_as_they_were(folder: Path, tmp_path: Path) -> None:
    text = run("table", folder, "--method", "rlt", "--columns", "delta_pp,top1", "--format", "markdown")
    head, _, *lines = text.splitlines()
    assert [name.strip() for name in head.split("|")[1:-1]] == ["method", "vs dense pp", "top-1 %"]
    assert {line.split("|")[1].split()[0] for line in lines[:6]} == {"dense", "rlt"}
    assert "Holm-corrected over 10 comparisons, controls apart" in text, "of all settings, whichever are shown"
    whole = run("table", folder, "--format", "markdown")
    kept = next(line for line in whole.splitlines() if "knob=0.4" in line and line.startswith("| rlt"))
    assert lines[2].split("|")[2].strip() in kept
    rows = run("table", folder, "--method", "sta", "--columns", "top1", "--format", "csv").splitlines()
    assert rows[0] == "context,method,setting,top1,top1_lo,top1_hi"
    assert len(rows) == 7
    run("table", folder, "--across", "column", "--out", tmp_path / "narrow.tex")
    assert "\\begin{table}[t]" in (tmp_path / "narrow.tex").read_text()
    with pytest.raises(UsageError, match="unknown column 'top2'; did you mean 'top1'"):
        run("table", folder, "--columns", "top2")
    with pytest.raises(UsageError, match="nothing here of backbone 'vivit'"):
        run("table", folder, "--backbone", "vivit")


def test_metrics_come_below_and_against_random_reads_the_rounds(folder: Path) -> None:
    text = run("table", folder, "--metrics", "--against", "random")
    assert text.index("over random") < text.index("Pareto metrics")
    assert "only where both were timed" not in text
    assert run("table", folder, "--metrics", "--format", "csv").startswith("context,name,method,cost,")


def test_nothing_to_show_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NothingMeasured, match="holds no results"):
        run("table", Store(tmp_path / "empty").folder)
    store = Store(tmp_path / "failed")
    store.write("results", "all", [identity("rlt", 0.4, error="it broke")])
    assert "it broke" in run("table", store.folder)
    with pytest.raises(NothingMeasured, match="nothing but dense"):
        run("table", store.folder, "--metrics")


def test_published_can_be_narrowed_and_written(folder: Path, tmp_path: Path) -> None:
    text = run("published", "--backbone", "vitdet_b_672", "--results", folder)
    assert "vid672_keep384" in text
    assert "vid1024" not in text
    own = run("published", "--method", "stts", "--backbone", "videoswin_b")
    assert "dense" in own, "what is to be held against"
    assert "videoswin_b_t9" in own
    assert "videoswin_b_t8" in own
    run("published", "--method", "rlt", "--out", tmp_path / "rlt.tex")
    assert (tmp_path / "rlt.tex").read_text().count("\\begin{table*}") == 4
    with pytest.raises(UsageError, match="did you mean 'rgtp'"):
        run("published", "--method", "rgpt")
    with pytest.raises(NothingMeasured, match="no figure of sta on vitdet_b_672"):
        run("published", "--method", "sta", "--backbone", "vitdet_b_672")
    with pytest.raises(UsageError, match="no such results folder"):
        run("published", "--method", "rlt", "--results", tmp_path / "nowhere")
