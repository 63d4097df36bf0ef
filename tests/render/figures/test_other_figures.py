"""What is in the figures of speed-up, keep ratios, stages and tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from drawn import STAGES, bars, figures, full, lines, text, timed
from golden_rows import measured, sweep

from vpbench.measure.stages import REST
from vpbench.measure.stages import STAGES as MEASURED_STAGES
from vpbench.render.figures import stages


def test_speed_up_against_saved_operations_with_the_diagonal() -> None:
    rows = sweep()
    [axis] = figures(rows, "speed_vs_flops")["speed_vs_flops"].axes
    drawn = {line.get_label(): line for line in axis.get_lines()}
    rlt = sorted((r["gmacs_dense"] / r["gmacs_executed"], r["speedup"]) for r in rows if r["method"] == "rlt")
    assert drawn["rlt"].get_xydata() == pytest.approx(np.array(rlt[::-1]))
    x, y = drawn["time = GMACs"].get_data()
    assert list(x) == list(y)
    assert "dense" not in drawn


def test_a_method_with_a_caveat_is_not_on_it() -> None:
    rows = [row | {"caveat": "reads the labels" if row["method"] == "rlt" else None} for row in sweep()]
    [axis] = figures(rows, "speed_vs_flops")["speed_vs_flops"].axes
    assert not [name for name in lines(axis) if "rlt" in name]


def test_realised_against_nominal_keep_with_the_spread_of_clips() -> None:
    row = measured("rlt", 0.4)
    row |= {"tokens_kept_p5": 0.5 * row["tokens_kept_mean"], "tokens_kept_p95": 2 * row["tokens_kept_mean"]}
    [axis] = figures([measured(), row, measured("sta", 0.6)], "keep")["keep"].axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
    assert drawn["rlt"] == [[0.4, pytest.approx(row["keep_realised"])]]
    assert drawn["sta"] == [[0.6, pytest.approx(0.6 * 1.09)]]
    assert drawn["as asked"] == [[0, 0], [1, 1]]
    spread = next(s for s in bars(axis) if s[0, 0] == 0.4)
    assert spread[:, 1] == pytest.approx([0.5 * row["keep_realised"], 2 * row["keep_realised"]])


def stacks(axis: Any) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for container in axis.containers:
        found[container.get_label()] = [bar.get_width() for bar in container]
    return found


def test_stages_are_stacked_in_ms_and_as_shares_of_dense() -> None:
    rows = timed([measured(), measured("random", 0.4), measured("rlt", 0.4)])
    figure = figures(rows, "stages")["stages"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["dense", "random 0.4", "rlt 0.4"]
    ms, share = (stacks(axis) for axis in figure.axes)
    assert ms["scoring"] == [0, 4, 4]
    assert ms["attention"] == pytest.approx([row["wall_ms_p50"] for row in rows])
    assert share["mlp"] == pytest.approx([20, 20, 20])
    assert "restore" not in ms  # nobody restored anything
    whole = [sum(each) for each in zip(*ms.values(), strict=True)]
    assert whole == pytest.approx([row["stage_total_ms"] for row in rows])
    assert "15 rounds of their own" in text(figure)


def test_the_figure_has_every_stage_that_is_measured() -> None:
    assert tuple(stages.LOOKS) == (*MEASURED_STAGES, REST) == STAGES


def test_of_many_cells_some_are_drawn_and_the_caption_says_how_many_are_not() -> None:
    rows = timed([measured(), *(measured("rlt", 0.4, config_id=f"rlt-0.4-{n}") for n in range(50))])
    figure = figures(rows, "stages")["stages"]
    assert len(figure.axes[0].get_yticklabels()) == 1 + stages.MOST
    assert "30 more cells are not drawn" in text(figure)


def test_stages_without_dense_are_shares_of_the_dense_of_their_rounds() -> None:
    figure = figures(timed([measured("rlt", 0.4)]), "stages")["stages"]
    assert stacks(figure.axes[1])["mlp"] == pytest.approx([20])
    assert "Dense was not measured" in text(figure)


def test_tokens_of_clips_are_shapes_where_they_differ_and_bars_where_they_do_not() -> None:
    figure = figures(full(), "tokens")["tokens"]
    mean, last = figure.axes
    # rlt at five keep ratios
    shapes = [body for body in mean.collections if len(body.get_paths()) == 1]
    assert len(shapes) == 5
    medians = {line.get_label(): line.get_ydata()[0] for line in mean.get_lines()}
    assert medians["random"] == 102
    assert medians["dense"] == 512
    assert {line.get_label(): line.get_ydata()[0] for line in last.get_lines()}["sta"] == 102
    assert medians["sta"] == (512 + 102) / 2
    low, high = (np.array([shape.get_paths()[0].vertices[:, 1] for shape in shapes[:1]]).flatten()[[0, -1]]).tolist()
    assert {round(low), round(high)} <= set(range(82, 123))
    assert [label.get_text() for label in last.get_xticklabels()][:5] == ["0.2", "0.4", "0.6", "0.8", "1"]
