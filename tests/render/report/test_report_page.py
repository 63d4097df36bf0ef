"""What is in the page, without a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from golden_rows import frame, identity, measured, sweep, sweep_videos
from helpers import ROOT
from PIL import Image
from report_pages import Page, html, many, many_samples, many_videos, sections
from typer.testing import CliRunner

from vpbench import cli
from vpbench.commands import plot, report, run
from vpbench.errors import NothingMeasured, UsageError, VpbenchError
from vpbench.render.report import page
from vpbench.render.style import look_of
from vpbench.render.tables import cells
from vpbench.rows import fates
from vpbench.rows.fates import DROPPED, Fate, Stage
from vpbench.rows.statistics import pareto
from vpbench.rows.store import Store

EVIL = "</script><img src=x onerror=alert(1)> & \"quoted\" 'too' \u2028"


@pytest.fixture(scope="module")
def golden() -> Page:
    return Page(html([*sweep(), identity("tome", 0.4, error="out of memory")], sweep_videos()))


def test_nothing_comes_from_elsewhere(golden: Page) -> None:
    sources = [value for _, attributes in golden.tags for name, value in attributes.items() if name in ("src", "href")]
    assert [value for value in sources if not str(value).startswith(("#", "data:"))] == []
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in golden.tags}
    assert "http" not in "".join(golden.styles)
    assert set(re.findall(r"https?://[^\"\s]*", "".join(golden.scripts[1:]))) == {"http://www.w3.org/2000/svg"}


def test_the_policy_lets_our_own_script_and_style_run_and_nothing_else(golden: Page) -> None:
    [policy] = [a["content"] for _, a in golden.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind, text in (("script", "".join(golden.scripts[1:])), ("style", "".join(golden.styles))):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_text_that_is_not_ours_stays_text() -> None:
    rows = [measured(command=EVIL), identity(EVIL, 0.4, error=EVIL), measured("rlt", 0.4, caveat=EVIL)]
    shown = Page(html(rows, problems=(EVIL,)))
    assert sum(tag == "script" for tag, _ in shown.tags) == 2
    assert not [tag for tag, _ in shown.tags if tag == "img"]
    assert "".join(shown.words).count(EVIL) >= 4
    assert any(EVIL in row[0] for row in shown.data[0]["table"]["rows"])


def test_points_are_the_rows(golden: Page) -> None:
    chart = golden.data[0]["chart"]
    rows = {(row["method"], row["keep_nominal"]): row for row in sweep()}
    assert len(chart["points"]) == len(rows)
    lines = golden.data[0]["table"]["rows"]
    for point in chart["points"]:
        method = chart["curves"][point["curve"]]["name"]
        keep = re.search(r"keep ([\d.]+)", point["name"])
        row = rows[method, float(keep[1]) if keep else None]
        assert point["x"]["gmacs"] == [row["gmacs_executed"], None, None]
        assert point["x"]["ms"] == [row["wall_ms_p50"], row["wall_ms_ci_lo"], row["wall_ms_ci_hi"]]
        assert point["x"]["memory"][0] == row["mem_peak_rss_mb"]
        assert point["y"]["top1"][0] == row["top1"]
        assert lines[point["row"]][0].startswith(method)
    assert [curve["kind"] for curve in chart["curves"]] == ["dense", "random", "method", "method"]


def test_intervals_of_quality_are_those_of_the_difference(golden: Page) -> None:
    points = {point["name"]: point for point in golden.data[0]["chart"]["points"]}
    row = next(row for row in sweep() if row["method"] == "rlt" and row["keep_nominal"] == 0.4)
    dense = row["top1"] - row["delta_pp"]
    bars = [row["top1"], dense + row["delta_ci_lo"], dense + row["delta_ci_hi"]]
    assert points["rlt at keep 0.4"]["y"]["top1"] == pytest.approx(bars)


def test_fronts_are_fronts(golden: Page) -> None:
    chart = golden.data[0]["chart"]
    for cost in ("gmacs", "ms", "memory"):
        x, y = ([p[a][k][0] for p in chart["points"]] for a, k in (("x", cost), ("y", "top1")))
        assert chart["fronts"][f"top1/{cost}"] == pareto.front(x, y)


def test_more_clips_per_second_are_better() -> None:
    rows = [measured(clips_per_s=10.0), measured("rlt", 0.4, clips_per_s=30.0), measured("sta", 0.4, clips_per_s=20.0)]
    chart = sections(rows)[0].chart
    names = [chart["points"][i]["name"] for i in chart["fronts"]["top1/rate"]]
    assert names == ["rlt at keep 0.4", "dense"]


def test_noisy_points_and_caveats() -> None:
    rows = [measured(), measured("rlt", 0.4, noisy=True), measured("sta", 0.8, caveat="reads the labels")]
    chart = sections(rows)[0].chart
    assert [p["noisy"] for p in chart["points"]] == [False, True, False]
    assert "sta (reads the labels)" in [curve["name"] for curve in chart["curves"]]
    assert 2 not in chart["fronts"]["top1/gmacs"]


def test_the_table_has_the_columns_of_vpbench_table(golden: Page) -> None:
    shown = golden.data[0]["table"]
    titles = [column["title"] for column in shown["columns"]]
    printed = cells.report(frame(sweep()), frame(sweep_videos(), "videos"), "markdown").splitlines()
    header = [name.strip() for name in next(line for line in printed if line.startswith("| method")).split("|")[1:-1]]
    assert titles == [*header, "status", "what is shown"]
    assert len(shown["rows"]) == 17
    assert shown["measured"] == [True] * 16 + [False]
    speeds = [row[titles.index("speed-up")] for row in shown["keys"]]
    assert speeds[:-1] == pytest.approx([float(row[titles.index("speed-up")].split()[0]) for row in shown["rows"][:-1]])
    assert speeds[-1] is None
    assert shown["rows"][-1][titles.index("status")] == "failed"


def test_sentences_failures_and_provenance_are_plain_text(golden: Page) -> None:
    for words in (
        "5 methods, 17 settings; 1 failed or incomplete.",
        "rlt at keep 0.8 (of its settings faster than dense, the one whose loss is bounded best): at least 1.2",
        "tome at keep 0.4: failed: out of memory",
        "Intel Xeon Processor @ 2.70GHz",
        "vpbench sweep",
        "cd" * 32,
        "embedded, " + "ab" * 32,
        "Pareto metrics of each method",
        "A/A control",
    ):
        assert words in golden.text, words


def test_two_machines_are_two_sections_with_the_same_looks() -> None:
    rows = sweep()
    other = [row | {"device_name": "Other CPU"} for row in rows if row["method"] != "rlt"]
    shown = Page(html([*rows, *other]))
    assert len(shown.data) == 2
    links = [a["href"] for tag, a in shown.tags if tag == "a"]
    assert links == ["#main", "#section-0", "#section-1"]
    assert {"section-0", "section-1"} <= {str(a.get("id")) for _, a in shown.tags}
    looks = [
        {curve["name"]: (curve["colour"], curve["marker"], curve["dashes"]) for curve in section["chart"]["curves"]}
        for section in shown.data
    ]
    assert looks[0]["sta"] == looks[1]["sta"]
    assert look_of("sta").colour in looks[0]["sta"][0], "as on paper"


@pytest.mark.parametrize(
    "rows",
    [
        [measured()],
        [measured("rlt", 0.4)],
        [identity("rlt", 0.4, error="broken"), identity("sta", 0.4, status="oom")],
        [measured(), measured("rlt", 0.4, top1=None, delta_pp=None, agree=None, disc_b=None)],
        [measured(), measured("rlt", 0.4, n_videos=0, n_clips=0, top1=None, delta_pp=None)],
    ],
    ids=["dense alone", "one point", "all failed", "no quality", "no video"],
)
def test_sparse_results_give_a_page(rows: list[dict[str, object]]) -> None:
    shown = Page(html(rows))
    assert len(shown.data[0]["table"]["rows"]) == len(rows)
    assert "1 setting" in shown.text or "2 settings" in shown.text


def test_pictures_show_what_is_left() -> None:
    frames = np.arange(4 * 16 * 16 * 3, dtype=np.uint8).reshape(4, 16, 16, 3)
    ids = np.arange(16, dtype=np.int32)
    kept = np.where(ids % 4 == 0, ids, DROPPED).astype(np.int32)
    whole, some = (Fate("clip-0", (4, 2, 2), (2, 8, 8), (Stage("end", token),)) for token in (ids, kept))
    clip = fates.Shown("clip-0", "clip", frames, {"dense-None": whole, "rlt-0.4": some, "rlt-0.8": some})
    rows = [measured(), measured("rlt", 0.4), measured("rlt", 0.8), measured("sta", 0.4)]
    found = sections(rows, shown=(clip,))[0].pictures
    assert [picture.caption for picture in found] == [
        "clip-0: the first frame of each slot",
        "rlt at keep 0.4 on clip-0: 4 of 16 tokens left",
    ]
    for picture in found:
        kind, _, content64 = picture.source.partition(",")
        assert kind == "data:image/webp;base64"
        image = Image.open(io.BytesIO(base64.b64decode(content64)))
        assert image.size == (64, 16)
    assert sections(rows)[0].pictures == []
    assert "vpbench show" in Page(html(rows)).text


@pytest.mark.slow
def test_two_hundred_cells_are_quick_and_small(tmp_path: Path) -> None:
    rows = many(10, 20)
    store = Store(tmp_path)
    store.write("videos", "all", many_videos(rows, 500))
    store.write("samples", "all", many_samples(rows, 40))
    store.write("results", "all", rows)
    began = time.process_time()  # other processes do not count
    path = report.write(tmp_path)
    assert time.process_time() - began < 20
    assert path.stat().st_size < 5e6
    data = Page(path.read_text()).data[0]
    assert len(data["table"]["rows"]) == 201
    assert len(data["metrics"]["rows"]) == 20


def test_the_command_writes_the_page_and_says_where(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    store.write("results", "all", sweep())
    store.write("videos", "all", sweep_videos())
    done = CliRunner().invoke(cli.app, ["report", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    path = tmp_path / "out" / "report.html"
    assert done.stdout == f"{path}\n"
    assert "rlt at keep 0.6" in Page(path.read_text()).text
    assert [file.name for file in path.parent.glob(".report*")] == []


def test_a_damaged_file_is_named_in_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    store.write("results", "good", [measured()])
    (tmp_path / "results.parquet" / "torn.parquet").write_bytes(b"PAR1")
    shown = Page(report.write(tmp_path).read_text())
    assert "torn.parquet: not a whole results file" in shown.text
    assert "torn.parquet" in capsys.readouterr().err


def test_errors_are_one_line(tmp_path: Path) -> None:
    Store(tmp_path / "empty")
    with pytest.raises(NothingMeasured, match="holds no results"):
        report.write(tmp_path / "empty")
    with pytest.raises(UsageError, match="no such results folder"):
        report.write(tmp_path / "nowhere")
    Store(tmp_path / "full").write("results", "one", [measured()])
    (tmp_path / "file").touch()
    with pytest.raises(VpbenchError, match="cannot write"):
        report.write(tmp_path / "full", tmp_path / "file" / "report.html")


def test_the_demo_ends_with_the_path_of_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(asked: object, dry_run: bool, force: bool) -> int:
        Store(tmp_path).write("results", "all", sweep())
        return 1

    monkeypatch.setattr(run, "execute", measure)
    monkeypatch.setattr(plot, "refresh", lambda folder, backbone, figure: None)
    done = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"open {tmp_path / 'report.html'}"
    assert (tmp_path / "report.html").exists()


def test_sections_are_named_in_few_words_where_that_will_do() -> None:
    rows = [measured(), measured(backbone="videomae_b"), measured(backbone="videomae_b", dtype="bf16")]
    titles = [section.title for section in sections(rows)]
    assert titles[2] == "videomae_embedded on synthmotion"
    assert len(set(titles)) == 3
    assert "bf16" in titles[0]


def test_the_wheel_holds_what_the_page_is_made_of() -> None:
    kept = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    parts = list((Path(page.__file__).parent / "assets").iterdir())
    assert parts
    assert {f"*{part.suffix}" for part in parts} <= set(kept)


def test_what_could_not_be_read_is_listed_once_with_its_reason() -> None:
    torn = json.dumps([{"video": "v007", "reason": "moov atom not found"}])
    shown = Page(html([measured(failures=torn, n_failed=1), measured("rlt", 0.4, failures=torn, n_failed=1)]))
    assert shown.text.count("v007: moov atom not found") == 1
    assert "1 could not be read" in shown.text
