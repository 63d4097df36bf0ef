"""Tables on terminals of any width: a row is a line, what counts most is there, and what is not is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from golden_rounds import with_samples
from golden_rows import clip_rows, frame, identity, measured, sweep, sweep_videos
from helpers import ROOT
from typer.testing import CliRunner

from vpbench import cli
from vpbench.render.tables import cells
from vpbench.rows.store import Store

ROWS, ROUNDS = with_samples(sweep())
RESULTS, SEEN, SAMPLES = frame(ROWS), frame(sweep_videos(), "videos"), frame(ROUNDS, "samples")


def body(text: str) -> list[str]:
    """Return the rows of a table: the lines between its rule and the empty one."""
    lines = text.splitlines()
    [rule] = [number for number, line in enumerate(lines) if line.startswith("---")]
    return lines[rule + 1 : lines.index("", rule)]


def shown(against: cells.Against = "dense", width: int | None = None) -> str:
    return cells.report(RESULTS, SEEN, samples=SAMPLES, against=against, width=width)


@pytest.mark.parametrize("width", [50, 80, 100, 120])
@pytest.mark.parametrize("against", ["dense", "random"])
def test_every_row_is_one_line_that_fits(width: int, against: cells.Against) -> None:
    text = shown(against, width)
    assert max(map(len, text.splitlines())) <= width
    keeps = [(row["method"], "" if row["keep_nominal"] is None else f"{row['keep_nominal']:g}") for row in ROWS]
    rows = body(text)
    assert len(rows) == len(keeps)
    for line, (method, keep) in zip(rows, keeps, strict=True):
        assert line.split()[: 1 + bool(keep)] == [method, keep][: 1 + bool(keep)]


def test_eighty_columns_show_accuracy_difference_cost_and_speed() -> None:
    text = shown(width=80)
    head = text.splitlines()[0].split()
    assert head == ["method", "keep", "kept", "top-1", "vs", "dense", "GMACs", "speed-up"]
    line = next(line for line in body(text) if line.startswith("rlt      0.4"))
    row = ROWS[next(n for n, r in enumerate(ROWS) if (r["method"], r["keep_nominal"]) == ("rlt", 0.4))]
    assert f"{row['delta_pp']:+.1f}* [{row['delta_ci_lo']:+.1f}, {row['delta_ci_hi']:+.1f}]" in line
    assert f"{row['speedup']:.2f} [{row['speedup_ci_lo']:.2f}, {row['speedup_ci_hi']:.2f}]" in line
    flat = " ".join(text.split())
    assert (
        "no room here for settings; intervals of top-1 %; loses at most, pp; p (Holm); vs random pp; ms/clip; peak MB; "
        "agree %: "
        "`vpbench table --wide` shows all"
    ) in flat


def test_where_there_is_room_nothing_is_left_out() -> None:
    assert shown(width=1000) == shown()
    assert "no room" not in shown()


def test_method_and_keep_are_there_however_narrow_it_is() -> None:
    text = shown(width=10)
    assert text.splitlines()[0].split() == ["method", "keep"]
    assert body(text)[6].split() == ["rlt", "0.2"]


def test_settings_tell_rows_apart_that_nothing_else_does() -> None:
    params = [f'{{"depth": {depth}, "of": "{"x" * 60}"}}' for depth in (3, 6)]
    rows = [measured("rlt", 0.4, config_id=each, method_params=each) for each in params]
    text = cells.report(frame([measured(), *rows]), SEEN, width=80)
    names = [" ".join(line.split()[:2]) for line in body(text)[1:]]
    assert names == ["rlt depth=3", "rlt depth=6"]
    assert all(line.split()[2].endswith("...") for line in body(text)[1:])
    assert max(map(len, text.splitlines())) <= 80


def test_without_labels_agreement_is_the_quality_and_failures_are_seen() -> None:
    blind: dict[str, Any] = {"top1": None, "disc_b": None, "disc_c": None, "delta_pp": None}
    rows = [measured(**blind), measured("rlt", 0.4, **blind), identity("sta", 0.4, error="broke", status="failed")]
    text = cells.report(frame(rows), SEEN, width=60)
    assert {"agree", "status", "GMACs", "speed-up"} <= set(text.splitlines()[0].split())
    assert body(text)[-1].split() == ["sta", "0.4", "failed"]


def test_detectors_have_their_precision_in_front() -> None:
    precision = {"task": "detection", "map50": 81.6, "map50_ci_lo": 75.0, "map50_ci_hi": 88.0, "map_definition": "voc"}
    speeds = {"map50_slow": 76.7, "map50_medium": 70.6, "map50_fast": 67.2, "top1": None}
    rows = [measured(method, keep, **precision, **speeds) for method, keep in (("dense", None), ("rlt", 0.4))]
    text = cells.report(frame(rows), SEEN, width=60)
    assert "mAP50" in text.splitlines()[0]
    assert "slow" not in text.splitlines()[0]
    assert max(map(len, text.splitlines())) <= 60


def test_metrics_have_a_line_per_method_and_cost() -> None:
    text = cells.metrics_report(RESULTS, SEEN, SAMPLES, width=80).partition("\n\n")[2]
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[0] for line in body(text)] == ["GMACs"] * 3 + ["time,"] * 3
    assert "`vpbench table --metrics --wide` shows all" in " ".join(text.split())


@pytest.mark.parametrize("fmt", ["markdown", "csv"])
def test_other_formats_know_no_width(fmt: str) -> None:
    assert cells.report(RESULTS, SEEN, fmt, width=40) == cells.report(RESULTS, SEEN, fmt)
    whole = cells.metrics_report(RESULTS, SEEN, SAMPLES, None, fmt)
    assert cells.metrics_report(RESULTS, SEEN, SAMPLES, None, fmt, 40) == whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path / "results")
    store.write("results", "all", [{k: v for k, v in row.items() if k != "schema_version"} for row in ROWS])
    store.write("videos", "all", sweep_videos())
    store.write("clips", "dense-None", clip_rows())
    return store.folder


def test_pipes_and_files_get_all_columns_and_so_does_who_asks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, ["table", str(folder), *arguments], catch_exceptions=False)
        return done.stdout.rstrip("\n")

    whole = cells.report(RESULTS, SEEN)
    assert printed() == whole
    monkeypatch.setenv("COLUMNS", "80")
    assert printed() == cells.report(RESULTS, SEEN, width=80)
    assert printed("--wide") == whole
    printed("--out", str(tmp_path / "t.txt"))
    assert (tmp_path / "t.txt").read_text() == whole + "\n"


def test_a_terminal_of_eighty_columns(folder: Path) -> None:
    """In a pseudo-terminal: the table as wide as that, and a mistake broken at words."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")

    def typed(*arguments: str) -> list[str]:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        command = [sys.executable, "-m", "vpbench", *arguments]
        with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            pieces = []
            while piece := _read(ours):
                pieces.append(piece)
        os.close(ours)
        assert process.returncode in (0, 2)
        return b"".join(pieces).decode().replace("\r\n", "\n").rstrip("\n").split("\n")

    assert "\n".join(typed("table", str(folder))) == cells.report(RESULTS, SEEN, width=80)
    wrong = typed("run", "--method", "rtl")
    assert wrong[0].startswith("error: unknown method 'rtl'; did you mean 'rlt'")
    assert len(wrong) > 1
    assert max(map(len, wrong)) <= 80


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # on Linux this is how the end is told
        return b""
