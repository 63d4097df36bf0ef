from __future__ import annotations

import math
import re

import numpy as np
import pytest
from golden_rows import correctness, frame, identity, measured, sweep, sweep_videos, video_rows

from vpbench.errors import NothingMeasured
from vpbench.render.tables import cells
from vpbench.rows.statistics import paired

RESULTS, SEEN = frame(sweep()), frame(sweep_videos(), "videos")


def test_every_cell_is_a_row_dense_and_random_first() -> None:
    built = cells.build(RESULTS, SEEN)
    assert len(built) == 16
    assert built["method"].tolist()[:2] == ["dense", "random"]
    assert built[built["method"] == "rlt"]["keep_nominal"].tolist() == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_p_values_are_corrected_over_settings_and_over_controls() -> None:
    built = cells.build(RESULTS, SEEN)
    for own in (built[built["method"] == "random"], built[~built["method"].isin(["dense", "random"])]):
        raw = own["p_mid"].dropna().tolist()
        assert own["p_holm"].tolist() == paired.holm(raw)
        assert any(abs(a - b) > 1e-9 for a, b in zip(raw, paired.holm(raw), strict=True))


def test_against_random_at_the_same_count_is_paired_clip_by_clip() -> None:
    built = cells.build(RESULTS, SEEN)
    rlt, sta = (built[(built["method"] == m) & (built["keep_nominal"] == 0.4)].iloc[0] for m in ("rlt", "sta"))
    assert not rlt["vs_random_interpolated"]
    difference = 100 * (correctness("rlt", 0.4).mean() - correctness("random", 0.4).mean())
    assert rlt["vs_random_pp"] == pytest.approx(difference)
    assert rlt["vs_random_pp_lo"] < difference < rlt["vs_random_pp_hi"]
    assert sta["vs_random_interpolated"]


def test_against_interpolated_random_both_curves_see_the_same_videos() -> None:
    """Between the counts of keep 0.4 and 0.6, by the logarithm of GMACs; the interval is that of the same mean."""
    rows = {(row["method"], row["keep_nominal"]): row for row in sweep()}
    sta, low, high = rows["sta", 0.4], rows["random", 0.4], rows["random", 0.6]
    cost, first, last = (row["gmacs_executed"] for row in (sta, low, high))
    assert first < cost < last
    share = math.log(cost / first) / math.log(last / first)
    gain = correctness("sta", 0.4) - (1 - share) * correctness("random", 0.4) - share * correctness("random", 0.6)
    drawn = np.random.default_rng(1).choice(gain, (4000, len(gain))).mean(axis=1)
    built = cells.build(RESULTS, SEEN)
    found = built[(built["method"] == "sta") & (built["keep_nominal"] == 0.4)].iloc[0]
    assert found["vs_random_pp"] == pytest.approx(100 * gain.mean())
    assert (found["vs_random_pp_lo"], found["vs_random_pp_hi"]) == pytest.approx(
        tuple(100 * np.quantile(drawn, [0.025, 0.975])), abs=0.25
    )
    assert found["vs_random_p_mid"] is None or math.isnan(found["vs_random_p_mid"])


@pytest.mark.parametrize("fmt", ["console", "markdown"])
def test_report_shows_numbers_intervals_and_the_machine(fmt: str) -> None:
    text = cells.report(RESULTS, SEEN, fmt)
    for word in ("rlt", "speed-up", "GMACs", "Intel Xeon", "fp32", "2 threads", "batch 1", "A/A control", "300 clips"):
        assert word in text, word
    assert re.search(r"\[[\d.]+, [\d.]+\]", text)


def test_a_caveat_marks_the_method_and_is_said_below() -> None:
    rows = [row | {"caveat": "reads the labels" if row["method"] == "rlt" else None} for row in sweep()]
    shown = cells.report(frame(rows), SEEN)
    assert "rlt†" in shown
    assert "† rlt: reads the labels" in shown
    assert "sta†" not in shown


def test_rows_without_the_dense_they_are_compared_with_say_so() -> None:
    said = "dense has no row here, though differences and speed-ups are to it; `vpbench finish` derives rows anew"
    assert said in cells.report(RESULTS[RESULTS["method"] != "dense"], SEEN)
    assert said not in cells.report(RESULTS, SEEN)
    alone = [row | {"delta_pp": None, "speedup": None} for row in sweep() if row["method"] != "dense"]
    assert said not in cells.report(frame(alone), SEEN), "nothing is compared with it"


def test_csv_is_one_plain_table() -> None:
    lines = cells.report(RESULTS, SEEN, "csv").strip().splitlines()
    assert len(lines) == 17
    assert lines[0].startswith("context,method,setting,")


def test_failed_cells_are_shown_with_their_reason() -> None:
    rows = [measured(), identity("rlt", 0.4, error="it broke", status="failed")]
    text = cells.report(frame(rows), frame(video_rows(), "videos"))
    assert "failed" in text
    assert "it broke" in text
    only = cells.report(frame(rows[1:]), frame([], "videos"))
    assert "it broke" in only


def test_noisy_rows_are_marked_and_two_machines_are_two_tables() -> None:
    rows = [measured(noisy=True), measured(device_name="Other CPU")]
    text = cells.report(frame(rows), frame(video_rows(), "videos"))
    assert "noisy" in text
    assert text.count("A/A control") == 2
    assert "Other CPU" in text


def test_nothing_to_show() -> None:
    with pytest.raises(NothingMeasured):
        cells.report(frame([]), frame([], "videos"))
