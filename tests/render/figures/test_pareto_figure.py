"""What is in the figures of quality against cost, not how their pixels fall."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from drawn import bars, clips, figures, full, lines, text
from golden_rows import identity, measured, sweep

from vpbench.render.figures import catalog, pareto
from vpbench.render.points import Context
from vpbench.render.style import PAGES
from vpbench.rows.statistics import pareto as statistics_pareto

COSTS = ("gmacs_executed", "wall_ms_p50", "clips_per_s", "mem_peak_rss_mb")


def panels(rows: list[dict[str, Any]], y: str | None = None) -> list[Any]:
    return [axis for axis in figures(rows, "pareto", y=y)["pareto"].axes if axis.axison]


def test_a_panel_for_each_cost_that_is_known_with_a_curve_per_method() -> None:
    rows = full()
    axes = panels(rows)
    assert [axis.get_xlabel() for axis in axes] == [
        "GMACs per clip, as executed",
        "ms per clip, median",
        "clips per second",
        "peak memory, MB",
        "ms per clip, file to answer",
    ]
    for axis, column in zip(axes, COSTS, strict=False):
        drawn = lines(axis)
        for method in ("random", "rlt", "sta"):
            expected = sorted(row[column] for row in rows if row["method"] == method)
            assert sorted(drawn[method]) == pytest.approx(expected), (method, column)
        assert axis.get_xscale() == "log"
        assert "dense" in drawn
    whole = sorted(r["wall_ms_p50"] + 10 for r in rows if r["method"] == "rlt")
    assert sorted(lines(axes[4])["rlt"]) == pytest.approx(whole)
    assert len(panels(sweep())) == 3


def test_points_are_joined_in_order_of_their_cost_in_operations_on_every_axis() -> None:
    few = measured("rlt", 0.2, mem_peak_rss_mb=30.0), measured("rlt", 0.4, mem_peak_rss_mb=20.0)
    last = panels([measured(), measured("rlt", 0.8, mem_peak_rss_mb=25.0), *few])[-1]
    assert lines(last)["rlt"] == [30, 20, 25]


def test_bars_are_the_intervals() -> None:
    rows = [measured(), measured("rlt", 0.4, wall_ms_p50=20.0, wall_ms_ci_lo=18.0, wall_ms_ci_hi=21.0)]
    row, axis = rows[1], panels(rows)[1]
    found = [segment for segment in bars(axis) if segment[0, 0] == 20 or segment[0, 0] == 18]
    vertical = next(s for s in found if s[0, 0] == s[1, 0])
    horizontal = next(s for s in found if s[0, 1] == s[1, 1])
    dense = row["top1"] - row["delta_pp"]
    assert vertical[:, 1] == pytest.approx([dense + row["delta_ci_lo"], dense + row["delta_ci_hi"]])
    assert horizontal[:, 0] == pytest.approx([18, 21])


def test_the_front_is_the_front_on_costs_and_on_rates() -> None:
    rows = full()
    axes = panels(rows)
    for axis, column in zip(axes[:4], COSTS, strict=True):
        costs = [1 / row[column] if column == "clips_per_s" else row[column] for row in rows]
        best = statistics_pareto.front(costs, [row["top1"] for row in rows])
        assert lines(axis)["Pareto front"] == pytest.approx([rows[i][column] for i in best]), column
    fastest = max(row["clips_per_s"] for row in rows)
    assert lines(axes[2])["Pareto front"][0] == pytest.approx(fastest)


def test_a_method_with_a_caveat_says_so_and_takes_no_place_on_the_front() -> None:
    rows = [row | {"caveat": "reads the labels" if row["method"] == "rlt" else None} for row in sweep()]
    fair = [row for row in rows if row["method"] != "rlt"]
    best = statistics_pareto.front([row["gmacs_executed"] for row in fair], [row["top1"] for row in fair])
    panel = lines(panels(rows)[0])
    assert panel["Pareto front"] == pytest.approx([fair[i]["gmacs_executed"] for i in best])
    assert "rlt (reads the labels)" in panel


def test_schedules_that_follow_the_keep_ratio_are_one_curve() -> None:
    rows = [
        row | {"method_params": f'{{"schedule": "{n}/2"}}'} if row["method"] == "sta" else row
        for n, row in enumerate(sweep())
    ]
    assert "sta" in lines(panels(rows)[0])


def test_caption_names_hardware_precision_and_data() -> None:
    words = text(figures(sweep(), "pareto")["pareto"])
    for word in ("Intel Xeon", "fp32", "batch 1", "synthmotion", "300 videos", "eager", "95 % intervals"):
        assert word in words, word


def test_nominal_keep_is_written_beside_points_and_in_a_legend_all_names() -> None:
    words = text(figures(sweep(), "pareto")["pareto"]).split()
    assert {"0.2", "0.4", "dense", "random", "rlt", "sta"} <= set(words)


def test_agreement_is_drawn_where_accuracy_is_unknown() -> None:
    rows = [row | {"top1": None, "delta_pp": None} for row in sweep()]
    assert "agreement" in panels(rows)[0].get_ylabel()
    assert "draw agree instead" in figures(rows, "pareto", y="top1")["pareto"]


def test_random_is_a_band_that_leaves_the_height_to_the_others() -> None:
    axis = panels(full())[0]
    [band] = [each for each in axis.collections if each.get_gid() == "band"]
    places = band.get_paths()[0].vertices
    rows = [row for row in full() if row["method"] == "random"]
    assert {round(float(x), 6) for x in places[:, 0]} == {round(row["gmacs_executed"], 6) for row in rows}
    low, high = axis.get_ylim()
    own = [row["top1"] for row in full() if row["method"] in ("rlt", "sta")]
    assert (max(own) - min(own)) / (high - low) > 0.6
    lowered = [row | {"top1": 5.0, "delta_pp": None} if row["method"] == "random" else row for row in full()]
    assert panels(lowered)[0].get_ylim()[0] > 40
    assert "Band: random selection, likewise; it goes on below." in text(figures(lowered, "pareto")["pareto"])


def test_labels_lie_on_nothing() -> None:
    figure = figures(full(), "pareto")["pareto"]
    axis = figure.axes[0]
    boxes = [each.get_window_extent() for each in axis.texts]
    assert len(boxes) >= 4
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    for line in axis.get_lines():
        if line.get_marker() != "None":
            spots = axis.transData.transform(np.asarray(line.get_xydata()))
            assert not any(box.count_contains(spots) for box in boxes), line.get_label()


def test_costs_and_their_order_can_be_chosen() -> None:
    drawn = figures(full(), "pareto", costs=("memory", "gmacs"))["pareto"]
    names = [axis.get_xlabel() for axis in drawn.axes if axis.axison]
    assert names == ["peak memory, MB", "GMACs per clip, as executed"]
    assert "no row knows rgtp: draw gmacs, ms" in figures(full(), "pareto", costs=("rgtp",))["pareto"]


def test_a_panel_for_each_method_has_its_curve_and_the_references() -> None:
    figure = figures(full(), "pareto", panels="method")["pareto"]
    axes = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in axes] == ["rlt", "sta"]
    for axis in axes:
        drawn = lines(axis)
        assert {"random", "dense", f"_{axis.get_title()}"} <= set(drawn)
        assert axis.get_xlabel() == "GMACs per clip, as executed"
        faint = [line for line in axis.get_lines() if line.get_color() == "#c9cdd2"]
        assert len(faint) == 1, "the other one"
    assert "Steps: the Pareto front of all methods" in text(figure)


def test_title_and_caption_are_ours_or_theirs() -> None:
    own = text(figures(full(), "pareto", title="Mine", caption="What I say.")["pareto"])
    assert "Mine" in own
    assert "What I say." in own
    assert "Intel" not in own
    assert "Intel" not in text(figures(full(), "keep", caption="")["keep"])


def test_noisy_rows_are_half_filled_on_axes_of_time_only() -> None:
    axes = panels([measured(), measured("rlt", 0.4, noisy=True)])
    marked = [[line for line in axis.get_lines() if line.get_gid() == "noisy"] for axis in axes]
    assert [len(found) for found in marked] == [0, 1, 0]
    assert marked[1][0].get_fillstyle() == "bottom"


def published(rows: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    found = {}
    for axis in panels(rows):
        own = [line for line in axis.get_lines() if line.get_gid() == "published"]
        assert all(line.get_markerfacecolor() == "none" for line in own)
        assert all(line.get_linestyle() == "None" for line in own)
        points = [point for line in own for point in zip(line.get_xdata(), line.get_ydata(), strict=True)]
        if points:
            found[axis.get_xlabel()] = sorted(points)
    return found


def k400(rows: Sequence[dict[str, Any]], backbone: str = "vivit_b_k400") -> list[dict[str, Any]]:
    return [row | {"backbone": backbone, "dataset": "k400"} for row in rows]


def test_published_points_are_hollow_beside_measured_ones_and_never_on_time_or_front() -> None:
    rows = k400([measured(), measured("rlt", 0.4), measured("rlt", 0.8)])
    found = published(rows)
    points = [(610 / 12, 75.5), (1010 / 12, 75.93), (1790 / 12, 78.0), (280.0, 79.06)]
    [drawn] = found.values()
    assert list(found) == ["GMACs per clip, as executed"]
    assert all(any(each == pytest.approx(point) for each in drawn) for point in points)
    assert max(lines(panels(rows)[0])["Pareto front"]) < 10
    words = text(figures(rows, "pareto")["pareto"])
    assert re.search(r"Hollow markers: as published \(.*RGTP README.*\), not measured here", words)
    assert "RGTP's way" in words
    assert "rgtp, published" in words


def test_published_points_need_the_same_backbone_dataset_and_quality_from_one_source() -> None:
    rows = [measured(), measured("rlt", 0.4)]
    assert not published(rows)
    assert not published([row | {"backbone": "vivit_b_k400"} for row in rows])
    assert not published([row | {"top1": None} for row in k400(rows)])
    # VideoMAE's accuracy and GMACs were printed by different people
    assert not published(k400(rows, "videomae_b"))
    # MViT's accuracy is from a model zoo and its GMACs are not, so that dense is not drawn
    mvit = published(k400(rows, "mvit_b_16x4"))["GMACs per clip, as executed"]
    assert (56.4, 78.1) in mvit
    assert len(mvit) == 5


def test_published_detections_have_an_axis_in_their_own_way_of_counting() -> None:
    precision = {"map50": 82.0, "map50_ci_lo": 81.0, "map50_ci_hi": 83.0, "top1": None}
    data = {"task": "detection", "backbone": "vitdet_b_672", "dataset": "imagenet_vid", "gmacs_rgtp": 100.0}
    own: dict[str, Any] = precision | data
    found = published([measured(**own), measured("rlt", 0.4, **own)])
    assert list(found) == ["GMACs per frame, as RGTP counts"]
    assert (62.1, 82.38) in found["GMACs per frame, as RGTP counts"]


@pytest.mark.parametrize(
    "rows",
    [[measured()], [measured("rlt", 0.4)], [measured(), measured("rlt", 0.4, noisy=True), identity("sta", 0.4)]],
    ids=["dense alone", "one point without dense", "noisy and failed"],
)
def test_sparse_rows_still_draw_and_the_caption_says_what_is_missing(rows: list[dict[str, Any]]) -> None:
    words = text(figures(rows, "pareto")["pareto"])
    methods = {row["method"] for row in rows}
    assert ("Dense was not measured" in words) == ("dense" not in methods)
    assert "Random was not measured" in words


def test_ten_thousand_rows_are_drawn_in_seconds() -> None:
    blank, few = dict.fromkeys(catalog_columns()), full()
    rows: list[Any] = [{**blank, **row, "config_id": f"{n}-{k}"} for n in range(625) for k, row in enumerate(few)]
    for n, row in enumerate(rows):
        row["gmacs_executed"] *= 1 + n / 1e6
    began = time.perf_counter()
    figure = pareto.draw(Context(rows, "top1", PAGES["paper"], clips))
    assert time.perf_counter() - began < 8
    assert not isinstance(figure, str)
    assert sum(len(xs) for name, xs in lines(figure.axes[0]).items() if name in ("random", "rlt", "sta")) == 9375


def catalog_columns() -> list[str]:
    from vpbench.rows.schema import SCHEMAS

    assert catalog.FIGURES["pareto"] is pareto.draw
    names: list[str] = SCHEMAS["results"].names
    return names
