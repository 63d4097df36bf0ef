"""Published figures beside counts and measurements: every row, the reasons, and what is not run."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from golden_rows import frame, measured
from helpers import slowness
from rgtp_counts import ROWS

from vpbench import plan, registry
from vpbench.api.method import load_method
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.commands.published import counts
from vpbench.commands.published import lines as published_lines
from vpbench.errors import UsageError, VpbenchError
from vpbench.plan import presets
from vpbench.render.tables import published as published_table
from vpbench.render.tables.published import Line
from vpbench.rows import published
from vpbench.rows.published import Figure

FIGURES = published.figures()
REASONS = published.reasons()


def of(figures: list[Figure], rows: list[dict[str, Any]] | None = None) -> list[Line]:
    return published_lines.lines(figures, None if rows is None else frame(rows))


def chosen(**wanted: str) -> list[Figure]:
    return [f for f in FIGURES if all(getattr(f, name) == value for name, value in wanted.items())]


@pytest.fixture(scope="module")
def everything() -> list[Line]:
    """All figures, each setting counted: 8 s on an idle core."""
    began = time.process_time()
    found = published_lines.lines(FIGURES, None, {})
    assert time.process_time() - began < 30 * slowness()
    return found


@pytest.fixture(scope="module")
def vitdet(everything: list[Line]) -> list[Line]:
    return [line for line in everything if line.figure.backbone in ("vitdet_b_672", "vitdet_b_1024")]


def test_counts_that_are_kept_are_those_made_anew(everything: list[Line]) -> None:
    """If this fails, and it is meant, write them down anew: python tests/published_counts.py."""
    kept = published_lines.lines(FIGURES, None, known := counts.stored())
    assert known.keys() == counts.stored().keys(), "all of them are kept, by the code that there is now"
    assert kept == everything


def test_what_other_code_counted_is_counted_anew() -> None:
    """Digests of code end the keys."""
    [figure] = [f for f in chosen(preset="rgtp/vid672_keep64") if f.metric == "gmacs_per_frame"]
    stale: counts.Kept = {f"{key}0": (1.0, 1.0) for key in counts.stored()}
    [line] = published_lines.lines([figure], None, stale)
    assert line.counted == pytest.approx(36.01, abs=0.01)


def test_every_row_of_the_papers_is_there() -> None:
    """Rows as the papers' tables have them: settings by paper, and their number of figures."""
    rgtp = {f.preset for f in FIGURES if f.preset.startswith("rgtp/")}
    assert len(rgtp) == 23
    stts = {f.preset for f in FIGURES if f.preset.startswith("stts/")}
    assert stts == {name for name in presets.summaries() if name.startswith("stts/")}
    readme = [f for f in FIGURES if f.source == "RLT README"]
    assert sorted((f.method, f.backbone[-1], f.value) for f in readme) == [
        (method, size, value) for method in ("dense", "rlt") for size, value in (("b", 80.9), ("h", 86.2), ("l", 84.7))
    ]
    abstract = [(f.dataset, f.metric, f.value) for f in FIGURES if f.source == "RGTP paper (ICIP 2025) abstract"]
    assert abstract == [("imagenet_vid", "gmacs_change_pct", -65), ("epic100", "gmacs_change_pct", -60)]
    [mvit] = [f for f in FIGURES if f.backbone == "mvit_b_16x4" and f.value == 70.5]
    assert mvit.source == "MViT paper (arXiv 2104.11227) Table 4"
    inferred = [f for f in FIGURES if f.metric == "verb_top1_pct" and f.source == "RGTP README"]
    assert len(inferred) == 7
    assert all("inferred_verb" in f.why.split() for f in inferred)
    swin = [f.preset for f in FIGURES if f.backbone == "videoswin_b" and f.value == 121.6]
    assert swin == ["stts/videoswin_b_t9", "stts/videoswin_b_t8"], "by 9 slices and by 8"
    notes = [f for f in FIGURES if f.source.startswith("third-party notes of the paper (Table 2)")]
    assert [f.value for f in notes] == [0.1, -0.2, -0.5, -1.0, -0.2]
    merging = [f for f in FIGURES if "2506.03885" in f.source]
    assert len(merging) == 6 + 6 + 6 + 5 + 1 + 4 + 5
    zoo = chosen(source="VideoMAE README and model zoo")
    assert len(zoo) == 10 + 6
    assert {f.source for f in chosen(value="")} == set()
    assert len([f for f in FIGURES if f.source == "TAdaConv model zoo"]) == 2


def test_all_of_rgtp_counts_to_its_figures(everything: list[Line]) -> None:
    counted = [line for line in everything if line.way == "rgtp" and line.figure.method != "eventful"]
    assert len({line.figure.preset for line in counted}) == len(counted) == 23
    for line in counted:
        by_rules = ROWS[line.figure.preset.removeprefix("rgtp/")][1]
        assert line.counted == pytest.approx(by_rules, abs=0.06 if by_rules > 500 else 0.006)
        assert line.counted == pytest.approx(line.figure.value, rel=0.006)
        assert abs(line.counted_off_pct or 99) < 0.6
        assert line.ours is not None
        assert line.ours != line.counted


def test_all_of_eventful_counts_to_its_figures(everything: list[Line]) -> None:
    """But for rows whose content decides; the largest rounding is that of 18.0 to a digit behind the point."""
    counted = [line for line in everything if line.figure.method == "eventful" and line.way == "rgtp"]
    assert len(counted) == 2 + 2 * 4 * 6 + 3 + 3 + 13
    left = [line.figure.preset for line in counted if line.counted is None]
    assert len(left) == 2 * 6 + 3
    assert all("pooled_k" in name or "threshold" in name for name in left)
    for line in counted:
        if line.counted is not None:
            digit = 10 if "epic" in line.figure.preset else 1 if "k400" in line.figure.preset else 0.1
            assert line.counted == pytest.approx(line.figure.value, abs=0.501 * digit)
            assert abs(line.counted_off_pct or 0) < 0.5


def test_clips_are_counted_by_the_convention_of_the_figure(everything: list[Line]) -> None:
    swin = [line for line in everything if line.figure.backbone == "videoswin_b" and line.counted is not None]
    found = {line.figure.preset: line for line in swin}
    # fvcore's way where none is named, mmcv's where it gives the figure
    assert found[""].counted == pytest.approx(281.92, abs=0.01)
    assert found["stts/videoswin_b_t10"].counted == pytest.approx(181.42, abs=0.01)
    assert found["stts/videoswin_b_t10"].ours == pytest.approx(220.29, abs=0.01)
    assert found["stts/videoswin_b_t14"].counted_off_pct == pytest.approx(3.6, abs=0.05)
    [video] = [line for line in everything if line.counted and line.figure.preset == "rgtp/epic_fg_28s05_bg_00"]
    assert video.counted == pytest.approx(1341.6, abs=0.1)


def test_whatever_differs_says_why(everything: list[Line]) -> None:
    """A count off by more than the last printed digit has a reason, and so has a figure that no setting stands for."""
    for line in everything:
        if line.counted_off_pct is not None and abs(line.counted_off_pct) > 0.05:
            assert line.figure.why, line
        if line.state == "no setting here":
            assert line.figure.why, line
    unexplained = {line.figure.preset for line in everything if line.counted_off_pct and abs(line.counted_off_pct) > 2}
    assert unexplained == {
        "stts/mvit_b_t4_s12", "stts/mvit_b_t3_s11", "stts/videoswin_b_t14", "stts/videoswin_b_t12",
        "stts/videoswin_b_t9",
    }  # fmt: skip


def test_reasons_are_texts_with_a_name_and_all_are_used() -> None:
    assert {name for f in FIGURES for name in f.why.split()} == set(REASONS)
    assert all(len(text) > 5 for text in REASONS.values())


def test_nothing_measured_is_not_run_with_what_it_takes(vitdet: list[Line]) -> None:
    states = {line.figure.metric: line.state for line in vitdet}
    assert states == {"map50_pct": "not run: weights, imagenet_vid", "gmacs_per_frame": "not run"}
    text = published_table.report(vitdet, REASONS, "console")
    assert text.count("not run: weights, imagenet_vid") == 12 + 2 + 48 + 3
    assert "it takes fine-tuned weights (--weights FILE) and the dataset (--root)" in text
    other = of(chosen(backbone="", method="rlt"))
    assert {line.state for line in other} == {"no setting here", "not measured here"}


def stts(preset: str = "stts/mvit_b_t6_s13", **changes: Any) -> dict[str, Any]:
    asked = plan.options(presets.find(preset))
    cells = plan.cells(asked, plan.setting(asked, 1))
    params = dict(next(cell for cell in cells if cell.method == "stts").params)
    row = measured(
        "rlt", 0.4, method_params=json.dumps(params | {"score": "tpool"}), backbone="mvit_b_16x4", dataset="k400",
        resolution=224, keep_nominal=None, top1=77.5, gmacs_executed=47.06, weights_kind="finetuned",
        protocol="mvit_5x1",
    )  # fmt: skip
    return row | {"method": "stts"} | changes


def test_measured_rows_stand_beside_their_figures() -> None:
    figures = chosen(preset="stts/mvit_b_t6_s13")
    top1, gmacs = of(figures, [stts(), measured()])
    assert (top1.measured, gmacs.measured) == (77.5, 47.06)
    assert top1.measured_off == pytest.approx(77.5 - 77.9)
    # measured operations are compared with our own count of the same
    assert gmacs.measured_off == pytest.approx(100 * (47.06 / (gmacs.ours or 0) - 1))
    assert "300 of 300 videos of k400/test, mvit_5x1; finetuned weights" in top1.how
    text = published_table.report([top1, gmacs], REASONS, "markdown")
    assert "77.50(a)" in text
    assert "-0.4 pp" in text
    assert "- (a) 300 of 300 videos" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "stts_random"},
        {"backbone": "mvit_embedded"},
        {"dataset": "synthmotion"},
        {"resolution": 64},
        {"method_params": '{"time": "0:0.5", "space": "4:0.863"}'},
        {"status": "failed"},
        {"top1": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_setting_is_not_taken_for_it(changes: dict[str, Any]) -> None:
    [top1] = of([f for f in chosen(preset="stts/mvit_b_t6_s13") if f.metric == "top1_pct"], [stts(**changes)])
    assert top1.measured is None
    assert top1.state == "not run: weights, k400"


def test_rows_that_presets_leave_fit_their_figures() -> None:
    """Parameters as rows store them: all of a method's, through JSON."""
    named = {f.preset: f for f in FIGURES if f.preset and f.backbone and f.metric == "gmacs_per_view"}
    named |= {
        f.preset: f for f in FIGURES if f.preset and f.backbone and f.metric.endswith(("_per_video", "_per_frame"))
    }
    assert len(named) == 103
    for preset, figure in named.items():
        cell = published_lines._cell(figure.method, figure.backbone, preset)
        assert cell is not None
        method = load_method(figure.method)(**dict(cell.params))
        config = registry.backbone(figure.backbone).sizes
        row = measured(
            backbone=figure.backbone,
            method_params=json.dumps(dataclasses.asdict(method)),
            frames=config.frames,
            resolution=config.side if isinstance(config, ViTDetConfig) else config.height,
            gmacs_transformer=1.0,
        )
        [line] = of([figure.model_copy(update={"metric": "speedup"})], [row | {"method": figure.method}])
        assert line.measured == row["speedup"], preset


def test_the_newest_measurement_counts() -> None:
    from datetime import UTC, datetime

    old = stts(top1=70.0, timestamp_utc=datetime(2025, 1, 1, tzinfo=UTC))
    [top1] = of([f for f in chosen(preset="stts/mvit_b_t6_s13") if f.metric == "top1_pct"], [stts(), old])
    assert top1.measured == 77.5


def test_every_format_holds_every_line(vitdet: list[Line]) -> None:
    console, markdown = (published_table.report(vitdet, REASONS, fmt) for fmt in ("console", "markdown"))
    assert len(re.findall(r"^(?:\| )?(?:dense|rgtp) ", console, flags=re.MULTILINE)) == 24
    assert markdown.count("### vitdet_b_") == 2
    latex = published_table.report(vitdet, REASONS, "latex")
    assert latex.count("\\toprule") == 2
    assert "vid672\\_keep384" in latex
    rows = list(csv.DictReader(io.StringIO(published_table.report(vitdet, REASONS, "csv"))))
    assert len(rows) == len(vitdet)
    assert {row["state"] for row in rows} == {"not run", "not run: weights, imagenet_vid"}
    counted = [float(row["counted"]) for row in rows if row["method"] in ("dense", "rgtp") and row["counted"]]
    assert any(each == pytest.approx(174.5, abs=0.01) for each in counted)
    with pytest.raises(UsageError, match="did you mean"):
        published_table.report(vitdet, REASONS, "marckdown")


def test_an_unknown_reason_and_bad_reasons_are_named(tmp_path: Path) -> None:
    head = "method,backbone,preset,dataset,metric,value,source,note,why\n"
    (tmp_path / "a.csv").write_text(head + "rlt,,,,top1_pct,80,x,,roundet\n")
    (tmp_path / "reasons.toml").write_text('rounded = "as printed"\n')
    with pytest.raises(VpbenchError, match=r"a\.csv, line 2: unknown reason 'roundet'; did you mean 'rounded'"):
        published.figures(tmp_path)
    (tmp_path / "reasons.toml").write_text("rounded\n")
    with pytest.raises(VpbenchError, match=r"reasons\.toml: not valid TOML"):
        published.reasons(tmp_path)
