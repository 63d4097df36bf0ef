"""The same cells with several weights side by side, and never on one front or in one context."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from golden_rows import VIDEOS, Row, correctness, frame, measured, sweep, sweep_videos, video_rows

from vpbench.errors import NothingMeasured
from vpbench.render.tables import by_weights, cells
from vpbench.rows.contexts import contexts, records, setup

WITH = "fine-tuned with rlt (threshold 0.1)"


def tuned(run: int, lost: int) -> tuple[Row, list[Row]]:
    """Return a row of RLT at keep 0.4 with weights of a fine-tuning, and its videos: of dense's answers `lost` less."""
    own = {"config_id": f"tuned-{run}", "prediction_id": f"tuned-{run}", "weights_kind": WITH}
    right = correctness("dense", None).copy()
    right[np.flatnonzero(right)[run : run + lost]] = False
    videos = [
        row | {"prediction_id": f"tuned-{run}", "correct": bool(hit)}
        for row, hit in zip(video_rows("rlt", 0.4), right, strict=True)
    ]
    row = measured("rlt", 0.4) | own | {"weights_sha256": f"{run}" * 64, "top1": 100 * float(right.mean())}
    return row, videos


RUNS = [tuned(run, lost=3 + run) for run in range(3)]
RESULTS = frame([*sweep(), *(row for row, _ in RUNS)])
SEEN = frame([*sweep_videos(), *(video for _, videos in RUNS for video in videos)], "videos")


def test_a_cell_gains_what_its_videos_gain_on_average_over_runs() -> None:
    text = by_weights.report(RESULTS, SEEN, "csv")
    found = pd.read_csv(io.StringIO(text))
    own = found[(found["method"] == "rlt") & (found["keep_nominal"] == 0.4)].set_index("weights")
    shelf = 100 * correctness("rlt", 0.4).mean()
    after = 100 * correctness("dense", None).mean() - 100 * 4 / VIDEOS
    assert own.loc[WITH, "top1"] == pytest.approx(after)
    assert own.loc[WITH, "gain_pp"] == pytest.approx(after - shelf)
    assert own.loc[WITH, "gain_pp_lo"] < after - shelf < own.loc[WITH, "gain_pp_hi"]
    assert own.loc[WITH, "runs"] == 3
    assert found[found["method"] == "sta"]["gain_pp"].isna().all()


def test_the_table_names_its_weights_off_the_shelf_first() -> None:
    text = by_weights.report(RESULTS, SEEN, "markdown")
    first = measured()["weights_kind"]
    assert f"A: {first} weights" in text
    assert f"B: weights {WITH}, mean of 3 runs" in text
    assert text.index("A: ") < text.index("B: ")
    [header] = [line for line in text.splitlines() if line.startswith("| method")]
    assert [cell.strip() for cell in header.strip("|").split("|")][-3:] == ["A top-1, %", "B top-1, %", "B - A pp"]


def test_fine_tuned_rows_are_a_context_of_their_own_and_say_so() -> None:
    split = contexts(RESULTS)
    assert len(split) == 4
    assert sum(WITH in label for label, _ in split) == 3
    assert all(len(set(group["weights_kind"])) == 1 for _, group in split)
    assert f"weights {WITH}" in setup(records(split[-1][1])[0]) + setup(records(split[0][1])[0])
    assert WITH in cells.report(RESULTS, SEEN)


def test_rows_of_the_same_weights_alone_are_no_comparison() -> None:
    with pytest.raises(NothingMeasured, match="with several weights"):
        by_weights.report(frame(sweep()), frame(sweep_videos(), "videos"))
