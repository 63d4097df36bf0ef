from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from answered import cell, results, videos
from golden_rows import frame

from vpbench.errors import NothingMeasured
from vpbench.rows.statistics import views

ROWS = results(cell(views=3), cell("rlt", 0.4, views=3))


def clips(answers: dict[str, np.ndarray[Any, Any]], label: Sequence[int]) -> pd.DataFrame:
    """Return rows of the clips table of predictions `[n, V]`."""
    rows = [
        {"run_id": "r", "prediction_id": name, "clip_id": f"v{i:03d}/{view}", "video_id": f"v{i:03d}", "view": view}
        | {"pred": int(pred), "correct": bool(pred == label[i])}
        for name, own in answers.items()
        for i, each in enumerate(own)
        for view, pred in enumerate(each)
    ]
    return frame(rows, "clips")


def test_votes_by_hand() -> None:
    """Two of three; one of three that all differ; none; all of three."""
    pred = np.array([[1, 1, 2], [1, 2, 3], [2, 2, 3], [1, 1, 1]])
    right = pred == 1
    assert views.votes_right(pred, right, 3) == pytest.approx((1 + 1 / 3 + 0 + 1) / 4)
    assert views.votes_right(pred, pred == 2, 3) == pytest.approx((0 + 1 / 3 + 1 + 0) / 4)


def test_votes_of_one_view_are_single_views() -> None:
    pred = np.random.default_rng(0).integers(0, 3, (50, 4))
    assert views.votes_right(pred, pred == 0, 1) == pytest.approx((pred == 0).mean())
    assert views.votes_right(pred, pred == 0, 2) == pytest.approx((pred == 0).mean(), abs=0.05), "ties are halves"


def test_pruning_that_costs_less_over_all_views_is_seen() -> None:
    """Dense is always right. RLT misses one of three views, another one of each video, and none of the averages."""
    label = [0] * 40
    right, missed = np.zeros((40, 3), int), np.zeros((40, 3), int)
    missed[np.arange(40), np.arange(40) % 3] = 1
    seen = videos({"dense-None": [True] * 40, "rlt-0.4": [True] * 40})
    dense, rlt = views.of(
        ROWS, clips({"dense-None": right, "rlt-0.4": missed}, label).sample(frac=1, random_state=1), seen
    )
    assert (dense.counts, dense.votes, dense.shift_pp) == ([1, 2, 3], [100, 100, 100], None)
    assert rlt.single.value == pytest.approx(100 * 2 / 3)
    assert rlt.votes[2] == 100
    assert rlt.votes[0] == pytest.approx(rlt.single.value)
    assert rlt.single_pp is not None
    assert rlt.averaged_pp is not None
    assert rlt.shift_pp is not None
    assert (rlt.averaged.value, rlt.averaged_pp.value) == (100, 0)
    assert (rlt.single_pp.value, rlt.shift_pp.value) == pytest.approx((-100 / 3, 100 / 3))
    assert rlt.shift_pp.lo > 20


def test_only_videos_that_both_have_all_views_of_count() -> None:
    label = [0] * 30
    own = clips({"dense-None": np.zeros((30, 3), int), "rlt-0.4": np.zeros((30, 3), int)}, label)
    gone = (own["config_id"] == "rlt-0.4") & (own["clip_id"] == "v004/1")
    wrong = videos({"dense-None": [True] * 30, "rlt-0.4": [i != 4 for i in range(30)]})
    _, rlt = views.of(ROWS, own[~gone], wrong)
    assert rlt.averaged.value == 100, "the video without one of its views is the one that is wrong"
    _, rlt = views.of(ROWS, own, wrong)
    assert rlt.averaged.value == pytest.approx(100 * 29 / 30)


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(NothingMeasured, match="one view of each video"):
        views.of(results(cell(), cell("rlt", 0.4)), frame([], "clips"), frame([], "videos"))
    few = clips({"dense-None": np.zeros((19, 3), int)}, [0] * 19)
    with pytest.raises(NothingMeasured, match="19 videos with all views are too few"):
        views.of(ROWS[:1], few, videos({"dense-None": [True] * 19}))
