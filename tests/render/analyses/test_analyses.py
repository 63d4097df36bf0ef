"""Analyses as people see them: tables, numbers, figures, a part of the report, and reasons where they are not there."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from golden_rows import VIDEOS, Row, clip_rows, frame, measured, sweep, sweep_videos

from vpbench.errors import NothingMeasured, UsageError
from vpbench.render.analyses import catalog
from vpbench.render.analyses.part import Missing, Part, Stored
from vpbench.render.report import content, page
from vpbench.render.style import PAGES
from vpbench.rows import fates
from vpbench.rows.fates import DROPPED, Fate, Sample, Stage

GRID = (4, 4, 4)


def fate_rows(methods: dict[str, float | None]) -> list[Row]:
    """Return three followed clips: each cell keeps the first tokens, as many as its keep ratio says."""
    found = []
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
        sample = Sample(f"v{number}/0", f"v{number}", frames, None)
        for name, keep in methods.items():
            token = np.where(np.arange(64) < 64 * (keep or 1), np.arange(64), DROPPED).astype(np.int32)
            fate = Fate(sample.clip_id, GRID, (2, 4, 4), (Stage("input", token),))
            own = {"run_id": "r1", "prediction_id": name, "dense_id": "dense-None"}
            found.append(own | fates.row_of(fate, sample, frames=keep is None))
    return found


def stored(rows: list[Row], videos: list[Row], clips: list[Row] = [], followed: list[Row] = []) -> Stored:  # noqa: B006
    tables = {name: frame(own, name) for name, own in (("videos", videos), ("clips", clips), ("fates", followed))}

    def predictions(table: str, results: pd.DataFrame, columns: Any = None) -> pd.DataFrame:
        found = tables[table][tables[table]["config_id"].isin(results["config_id"])]
        return found if columns is None else found[["config_id", *columns]]

    return Stored(frame(rows), predictions)


@pytest.fixture(scope="module")
def whole() -> Stored:
    """A sweep over 300 videos of 6 classes whose clips move, each in its own way."""
    named = [
        row | {"label": (label := int(row["video_id"][1:]) % 6), "label_name": f"kind {label}"}
        for row in sweep_videos()
    ]
    moving = [row | {"motion": 0.001 * i, "still": 1 + 0.01 * i} for i, row in enumerate(clip_rows())]
    rows = [row | {"n_videos": VIDEOS} for row in sweep()]
    return stored(rows, named, moving, fate_rows({row["config_id"]: row["keep_nominal"] for row in rows}))


NAMES = ["hard", "overlap", "strata-class", "strata-motion", "strata-still"]


def test_all_that_rows_allow_and_a_reason_for_the_others(whole: Stored) -> None:
    began = time.process_time()
    found = catalog.every(whole)
    assert time.process_time() - began < 5
    assert [part.name for part in found if isinstance(part, Part)] == NAMES
    assert [(each.name, each.reason.split(";")[0]) for each in found if isinstance(each, Missing)] == [
        ("frames", "clips of one length were measured"),
        ("views", "one view of each video was taken: there is nothing to average"),
    ]


@pytest.mark.parametrize("fmt", ["console", "markdown", "latex"])
def test_tables_in_every_format(whole: Stored, fmt: str) -> None:
    text = catalog.report(whole, ["hard", "overlap", "strata"], fmt)
    for word in ("accuracy on hard videos", "overlap of kept tokens", "by motion", "kind 3", "sta"):
        assert word in text
    if fmt == "markdown":  # a line per row
        assert all(line.startswith(("|", "#", "-")) or not line for line in text.splitlines())


def test_numbers_are_those_of_the_tables(whole: Stored) -> None:
    numbers = pd.read_csv(io.StringIO(catalog.report(whole, ["hard"], "csv")))
    rlt = numbers[(numbers["method"] == "rlt") & (numbers["keep_nominal"] == 0.4)].iloc[0]
    assert rlt["hard_by"] == "random-0.4"
    assert rlt["hard_videos"] + rlt["other_videos"] == VIDEOS
    assert 0 < rlt["hard_top1"] < 100
    assert f"{rlt['hard_top1']:.1f}" in catalog.report(whole, ["hard"])
    pairs = pd.read_csv(io.StringIO(catalog.report(whole, ["overlap"], "csv")))
    own = pairs[(pairs["config_id"] == "rlt-0.2") & (pairs["with"] == "sta-0.4")].iloc[0]
    assert own["above_chance"] == pytest.approx(1), "the first tokens are among the first tokens"
    groups = pd.read_csv(io.StringIO(catalog.report(whole, ["strata"], "csv")))
    assert set(groups["by"]) == {"class", "motion", "still"}
    with pytest.raises(UsageError, match="name one analysis"):
        catalog.report(whole, ["hard", "strata"], "csv")


def test_a_narrow_console_shows_what_fits(whole: Stored) -> None:
    text = catalog.report(whole, ["overlap"], "console", 60)
    assert max(map(len, text.splitlines())) <= 60
    assert "`vpbench table --analysis overlap --wide`" in " ".join(text.split())


@pytest.mark.parametrize(("size", "names"), [("paper", NAMES), ("slide", ["overlap", "strata-class"])])
def test_nothing_of_a_figure_is_cut_off(whole: Stored, size: str, names: list[str]) -> None:
    for part in catalog.every(whole):
        if isinstance(part, Part) and part.name in names:
            figure = part.draw(PAGES[size])
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert min(box.x0, box.y0) >= -0.01, part.name
            assert box.x1 <= width + 0.01, part.name
            assert box.y1 <= height + 0.01, part.name


def test_too_few_clips_are_said_and_not_drawn(tmp_path: Path) -> None:
    rows = [measured(), measured("rlt", 0.4), measured("random", 0.4)]
    few = [row for row in sweep_videos() if row["video_id"] < "v010"]
    followed = [
        row for row in fate_rows({"dense-None": None, "rlt-0.4": 0.4, "random-0.4": 0.4}) if row["video_id"] < "v2"
    ]
    small = stored(rows, few, followed=followed)
    drawn = catalog.draw(small, ["hard", "overlap", "strata"], tmp_path, ["png"], "paper", PAGES["paper"])
    assert drawn.files == []
    said = " ".join(drawn.left_out)
    assert "0 hard videos are too few, 20 are the fewest" in said
    assert "2 clips that all were followed on are too few, 3 are the fewest" in said
    assert "10 videos in a group are too few" in said
    with pytest.raises(NothingMeasured, match="nothing to show: hard: 0 hard videos are too few"):
        catalog.report(small, ["hard"])


def test_detectors_have_another_reason_than_old_rows() -> None:
    detectors = [row | {"task": "detection", "top1": None} for row in sweep()]
    found = catalog.every(stored(detectors, []))
    said = {each.name: each.reason for each in found if isinstance(each, Missing)}
    assert {name for name, reason in said.items() if reason.startswith("detectors have no answer per video")} == {
        "hard",
        "strata-class",
        "strata-motion",
        "strata-still",
    }


def test_unknown_names_are_named(whole: Stored) -> None:
    with pytest.raises(UsageError, match="unknown analysis 'overlaps'; did you mean 'overlap'"):
        catalog.report(whole, ["overlaps"])


def test_the_report_has_them(whole: Stored) -> None:
    results, videos = whole.results, whole.videos
    analysed = [part for part in catalog.every(whole) if part.name in ("overlap", "views")]
    [section] = content.sections(
        content.Stored(results, videos, frame([], "samples"), frame([], "clips"), [], analysed)
    )
    assert [answer.name for answer, _ in section.answers] == ["overlap"]
    html = page.render([section], "out", [])
    for words in ("Overlap of kept tokens", 'data-of="overlap"', "data:image/webp;base64,", "views: one view"):
        assert words in html


def test_marks_of_methods_come_along() -> None:
    rows = [measured(), measured("random", 0.4), measured("rlt", 0.4, caveat="untrained scorers")]
    text = catalog.report(stored(rows, sweep_videos()), ["hard"])
    assert "rlt†" in text
    assert "† rlt: untrained scorers" in text


def lengths() -> tuple[list[Row], list[Row]]:
    """Return rows and videos of dense and RLT at one budget over clips of two lengths, two views each."""
    rows, videos = [], []
    for frames, keep in ((8, None), (16, 0.5)):
        for method, own in (("dense", None), *((("rlt", keep),) if keep else ())):
            name = f"{method}{frames}"
            tokens = {"frames": frames, "tokens_dense": 32 * frames, "views": 2, "protocol": "spread_2x1"}
            changes = {"config_id": name, "prediction_id": name, "keep_nominal": own, "n_videos": VIDEOS}
            rows.append(measured(method, 0.4 if own else None, **tokens, **changes))
            videos += [
                row | changes for row in sweep_videos() if row["prediction_id"] == ("rlt-0.4" if own else "dense-None")
            ]
    names = {"run_id", "prediction_id", "video_id", "label", "pred", "top5", "correct", "kl", "agree"}
    return rows, [{key: value for key, value in row.items() if key in names} for row in videos]


def test_budgets_and_views_are_drawn_where_rows_have_them(tmp_path: Path) -> None:
    rows, videos = lengths()
    clips = [
        row | {"prediction_id": own["prediction_id"], "clip_id": f"{row['clip_id']}{view}", "view": view}
        for own in rows
        for row in clip_rows("dense" if own["method"] == "dense" else "rlt", None if own["method"] == "dense" else 0.4)
        for view in range(2)
    ]
    both = stored(rows, videos, clips)
    drawn = catalog.draw(both, ["frames", "views"], tmp_path, ["png"], "paper", PAGES["paper"])
    assert [path.name for path in drawn.files] == ["frames.png", "views-frames-8.png", "views-frames-16.png"]
    text = catalog.report(both, ["frames", "views"])
    assert "256  rlt" in text
    assert "frames=16: accuracy over views" in text
