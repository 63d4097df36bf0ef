"""Which results folder is read where none is named, or one that holds several."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from golden_rows import clip_rows, measured, sweep_videos
from typer.testing import CliRunner, Result

from vpbench import cli
from vpbench.errors import NothingMeasured, UsageError
from vpbench.rows.store import Store, results_folders


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored(folder: str, written: int, name: str = "Some CPU") -> Path:
    """Write a small results folder whose files are from `written`, on a machine of this name."""
    store = Store(Path(folder))
    for method, keep in (("dense", None), ("random", 0.4), ("rlt", 0.4)):
        row = measured(method, keep, device_name=name)
        store.write("results", str(row["config_id"]), [row])
        store.write("clips", str(row["config_id"]), clip_rows(method, keep))
    store.write("videos", "all", sweep_videos())
    for path in store.folder.glob("*.parquet/*.parquet"):
        os.utime(path, (written, written))
    return store.folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


@pytest.mark.parametrize("command", ["table", "plot", "report", "finish"])
def test_with_no_results_a_line_says_what_to_do(command: str) -> None:
    Store(Path("out"))  # as a dry run leaves it
    with pytest.raises(NothingMeasured, match=r"below out: run `vpbench demo` or `vpbench run`, or name") as raised:
        run(command)
    assert raised.value.exit_code == 3
    with pytest.raises(NothingMeasured, match=r"no (results|plans)"):
        run(command, "out")


def test_finish_takes_one_folder_bare_or_named() -> None:
    Store(Path("out"))
    with pytest.raises(NothingMeasured, match="no plans"):
        run("finish", "--out", "out")
    with pytest.raises(UsageError, match="two results folders are named"):
        run("finish", "out", "--out", "other")


@pytest.mark.parametrize("inside", ["results.parquet", "results.parquet/dense.parquet", "clips.parquet"])
def test_a_table_in_place_of_its_folder_says_which_to_give(inside: str) -> None:
    folder = stored("results.json", 1000)
    for path in folder.glob("results.parquet/*.parquet"):
        shutil.copy(path, folder / "results.parquet" / "dense.parquet")
    with pytest.raises(UsageError, match=r"is a table of a results folder.*; give the folder above: results\.json$"):
        run("table", f"results.json/{inside}")


@pytest.mark.parametrize("arguments", [("table",), ("table", "out")], ids=["none", "out"])
def test_one_folder_below_out_is_found(arguments: tuple[str, ...]) -> None:
    stored("out/demo", 1000)
    done = run(*arguments)
    assert done.exit_code == 0
    assert done.stderr == "reading out/demo\n"
    assert done.stdout.startswith("method")


def test_the_one_written_last_is_read_alone_and_the_others_are_named() -> None:
    stored("out/a", 1000, "CPU of a")
    stored("out/deep/er/b", 3000, "CPU of b")
    stored("out/c", 2000, "CPU of c")
    for given in ((), ("out",)):
        done = run("table", *given)
        assert done.stderr == "reading out/deep/er/b, written last; name another to read it: out/c, out/a\n"
        assert "CPU of b" in done.stdout
        assert "CPU of a" not in done.stdout
    assert run("table", "out/deep").stderr == "reading out/deep/er/b\n"
    named = run("table", "out/a")
    assert named.stderr == ""
    assert "CPU of a" in named.stdout


def test_one_new_file_makes_a_folder_the_newest_and_many_are_counted() -> None:
    for number in range(6):
        stored(f"out/{number}", 1000 + number)
    os.utime("out/2/videos.parquet/all.parquet", (5000, 5000))
    assert (
        "reading out/2, written last; name another to read it: out/5, out/4, out/3 and 2 more\n" in run("table").stderr
    )


def test_out_itself_counts_and_is_read_where_it_is_named() -> None:
    stored("out", 1000, "CPU of out")
    stored("out/demo", 2000, "CPU of demo")
    assert run("table").stderr == "reading out/demo, written last; name another to read it: out\n"
    named = run("table", "out")
    assert named.stderr == ""
    assert "CPU of out" in named.stdout


def test_figures_and_the_page_lie_in_the_folder_that_was_read() -> None:
    stored("out/demo", 1000)
    assert run("plot", "--figure", "pareto", "--format", "svg").stdout == "out/demo/figures/pareto.svg\n"
    assert run("report").stdout == "out/demo/report.html\n"
    with pytest.raises(UsageError, match=r"mine\.py: give a name that ends in \.html"):
        run("report", "--out", "mine.py")


def test_published_figures_stand_beside_what_is_there_and_need_nothing() -> None:
    assert run("published", "--method", "rlt", "--backbone", "videomae_b").stderr == ""
    stored("out/demo", 1000)
    assert run("published", "--method", "rlt", "--backbone", "videomae_b").stderr == "reading out/demo\n"


def test_rows_are_derived_where_there_are_plans() -> None:
    stored("out/rows", 2000)
    assert results_folders(Path("out"), "plans/*.json") == []
    (Path("out/stopped") / "plans").mkdir(parents=True)
    (Path("out/stopped") / "plans" / "x.json").write_text("{}")
    assert results_folders(Path("out"), "plans/*.json") == [Path("out/stopped")]
    assert results_folders(Path("out")) == [Path("out/rows")]
