from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from answered import cell, results, videos
from golden_rows import frame

from vpbench.errors import NothingMeasured
from vpbench.rows.statistics import strata
from vpbench.rows.statistics.intervals import critical
from vpbench.rows.statistics.paired import mcnemar, paired_score_bound

ROWS = results(cell(), cell("rlt", 0.4))
LABELS = [i % 2 for i in range(80)]  # even videos are of class 0


def of_class(right: list[bool], label_names: list[str] | None = None) -> tuple[pd.DataFrame, strata.Groups]:
    columns: dict[str, Any] = {"label": LABELS}
    columns |= {} if label_names is None else {"label_name": label_names}
    seen = videos({"dense-None": [True] * 80, "rlt-0.4": right}, **columns)
    return seen, strata.classes(seen[seen["config_id"] == "dense-None"])


def test_by_hand() -> None:
    """RLT loses 12 of the 40 videos of class 1, and none of class 0."""
    seen, groups = of_class([i % 2 == 0 or i > 24 for i in range(80)])
    [own] = strata.of(ROWS, seen, groups)
    assert groups.names == ["class 0", "class 1"]
    even, odd = own.groups
    assert even is not None
    assert odd is not None
    assert (even.videos, even.lost, even.gained, even.difference.value, even.p_holm) == (40, 0, 0, 0.0, 1.0)
    assert (odd.videos, odd.dense, odd.lost, odd.gained) == (40, 100.0, 12, 0)
    assert odd.difference.value == pytest.approx(-30)
    away = critical(2)  # both groups at once
    assert odd.difference.lo == pytest.approx(100 * float(paired_score_bound(12, 0, 40, away)))
    assert odd.difference.hi == pytest.approx(-100 * float(paired_score_bound(0, 12, 40, away)))
    assert odd.p_holm == pytest.approx(2 * mcnemar(12, 0)[1])
    # 12 lost videos all fall on 40 of 80 in C(40, 12) / C(80, 12) = 0.0001 of cases, on either side
    assert own.p_holm < 0.003


def test_the_same_loss_everywhere_is_no_difference_between_groups() -> None:
    seen, groups = of_class([i > 23 for i in range(80)])
    [own] = strata.of(ROWS, seen, groups)
    assert [each and each.lost for each in own.groups] == [12, 12]
    assert own.p_holm == 1


def test_a_p_value_of_no_difference_is_as_often_small_as_it_says() -> None:
    rng, small = np.random.default_rng(0), 0
    for _ in range(100):
        lost, gained = (rng.multinomial(number, (0.25, 0.25, 0.5)) for number in (30, 12))
        group = np.repeat(np.arange(3), (100, 100, 200))
        gain = np.zeros(400, np.int8)
        for g in range(3):
            places = np.flatnonzero(group == g)
            gain[places[: lost[g]]] = -1
            gain[places[lost[g] : lost[g] + gained[g]]] = 1
        dense = (gain <= 0).astype(np.int8)
        line = strata._Line(ROWS[1], dense, (dense + gain).astype(np.int8), group, 3)
        assert line.lost.tolist() == lost.tolist()
        small += line.p_alike(rng) < 0.05
    assert small <= 13  # of 100; 5 expected, more than 13 in 0.05 % of cases


def test_classes_have_the_names_that_rows_have() -> None:
    names = ["walk", "run"] * 40
    assert of_class([True] * 80, names)[1].names == ["run", "walk"]


def test_thirds_are_by_the_mean_over_views() -> None:
    clips = frame(
        [
            {"run_id": "r", "prediction_id": "d", "clip_id": f"{i}/{view}", "video_id": f"v{i:03d}", "view": view}
            | {"motion": 0.01 * i + 0.2 * (view - 0.5)}
            for i in range(90)
            for view in range(2)
        ],
        "clips",
    )
    groups = strata.thirds(clips, "motion")
    assert np.bincount(groups.of).tolist() == [30, 30, 30]
    assert [name.split(" ")[0] for name in groups.names] == list(strata.THIRDS)
    assert groups.of[groups.videos.index("v000")] == 0
    assert groups.of[groups.videos.index("v089")] == 2
    with pytest.raises(NothingMeasured, match="still of the clips is not stored"):
        strata.thirds(clips, "still")
    with pytest.raises(NothingMeasured, match="alike in most of the videos"):
        strata.thirds(clips.assign(motion=0.5), "motion")


def test_holm_and_intervals_are_over_all_rows_and_controls_apart() -> None:
    more = results(cell(), cell("rlt", 0.4), cell("sta", 0.4), cell("random", 0.4))
    lost = [i % 2 == 0 or i > 24 for i in range(80)]
    seen = videos({"dense-None": [True] * 80} | dict.fromkeys(("rlt-0.4", "sta-0.4", "random-0.4"), lost), label=LABELS)
    rlt, sta, control = strata.of(more, seen, strata.classes(seen[seen["config_id"] == "dense-None"]))
    p = mcnemar(12, 0)[1]
    assert [own.groups[1] and own.groups[1].p_holm for own in (rlt, sta, control)] == pytest.approx(
        [4 * p, 4 * p, 2 * p]
    )
    widths = [g.difference.hi - g.difference.lo for own in (rlt, control) if (g := own.groups[1]) is not None]
    assert widths[0] > widths[1]


def test_small_groups_are_left_out_and_said() -> None:
    labels = [0] * 40 + [1] * 25 + [2] * 15
    seen = videos({"dense-None": [True] * 80, "rlt-0.4": [True] * 80}, label=labels)
    [own] = strata.of(ROWS, seen, strata.classes(seen[seen["config_id"] == "dense-None"]))
    assert [each is None for each in own.groups] == [False, False, True]
    few = videos({"dense-None": [True] * 80, "rlt-0.4": [True] * 80}, label=[i // 19 for i in range(80)])
    with pytest.raises(NothingMeasured, match="19 videos in a group are too few, 20 are the fewest"):
        strata.of(ROWS, few, strata.classes(few[few["config_id"] == "dense-None"]))
    with pytest.raises(NothingMeasured, match="nothing was measured beside dense"):
        strata.of(results(cell()), few, strata.classes(few))
