"""What is in the figures, not how their pixels fall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from golden_rows import frame, identity, measured, sweep

from vpbench import plot, stats
from vpbench.errors import NothingMeasured, UsageError
from vpbench.table import records


def figures(rows: list[dict[str, Any]], y: str | None = None) -> dict[str, Any]:
    return dict(plot._figures(records(frame(rows)), y))


def lines(axis: Any) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_xdata()) for line in axis.get_lines()}


def test_three_panels_with_a_curve_per_method_against_realised_cost() -> None:
    rows = sweep()
    axes = figures(rows)["pareto"].axes
    assert len(axes) == 3
    for axis, column in zip(axes, ("gmacs_executed", "wall_ms_p50", "mem_peak_rss_mb"), strict=True):
        drawn = lines(axis)
        for method in ("random", "rlt", "sta"):
            expected = sorted(row[column] for row in rows if row["method"] == method)
            assert set(expected) <= {x for name, xs in drawn.items() if name == method for x in xs}, (method, column)
        assert axis.get_xscale() == "log"
        assert "dense" in drawn


def test_the_front_is_the_front() -> None:
    rows = sweep()
    drawn = lines(figures(rows)["pareto"].axes[0])["Pareto front"]
    best = stats.front([row["gmacs_executed"] for row in rows], [row["top1"] for row in rows])
    assert drawn == pytest.approx([rows[i]["gmacs_executed"] for i in best])


def test_a_method_with_a_caveat_says_so_and_takes_no_place_on_the_front() -> None:
    rows = [row | {"caveat": "reads the labels" if row["method"] == "rlt" else None} for row in sweep()]
    drawn = figures(rows)
    fair = [row for row in rows if row["method"] != "rlt"]
    best = stats.front([row["gmacs_executed"] for row in fair], [row["top1"] for row in fair])
    panel = lines(drawn["pareto"].axes[0])
    assert panel["Pareto front"] == pytest.approx([fair[i]["gmacs_executed"] for i in best])
    assert "rlt (reads the labels)" in panel
    assert not [name for name in lines(drawn["speed_vs_flops"].axes[0]) if "rlt" in name]


def test_schedules_that_follow_the_keep_ratio_are_one_curve() -> None:
    rows = [
        row | {"method_params": f'{{"schedule": "{n}/2"}}'} if row["method"] == "sta" else row
        for n, row in enumerate(sweep())
    ]
    assert "sta" in lines(figures(rows)["pareto"].axes[0])


def test_caption_names_hardware_precision_and_data() -> None:
    figure = figures(sweep())["pareto"]
    text = " ".join(t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text"))).replace("\n", " ")
    for word in ("Intel Xeon", "fp32", "batch 1", "synthmotion", "300 videos", "eager"):
        assert word in text, word


def test_agreement_is_drawn_where_accuracy_is_unknown() -> None:
    rows = [row | {"top1": None, "delta_pp": None} for row in sweep()]
    assert "agreement" in figures(rows)["pareto"].axes[0].get_ylabel()
    with pytest.raises(NothingMeasured, match="agree"):
        plot.draw(frame(rows), Path("unused"), y="top1")


def test_files_and_determinism(tmp_path: Path) -> None:
    first = plot.draw(frame(sweep()), tmp_path / "a")
    second = plot.draw(frame(sweep()), tmp_path / "b")
    assert {p.suffix for p in first} == {".png", ".pdf", ".svg"}
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "rows",
    [[measured()], [measured("rlt", 0.4)], [measured(), measured("rlt", 0.4, noisy=True), identity("sta", 0.4)]],
    ids=["dense alone", "one point without dense", "noisy and failed"],
)
def test_sparse_results_still_draw(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    assert plot.draw(frame(rows), tmp_path, formats=("png",))


def test_two_machines_are_two_figures(tmp_path: Path) -> None:
    drawn = plot.draw(frame([*sweep(), measured(device_name="Other CPU")]), tmp_path, formats=("png",))
    assert len([p for p in drawn if p.name.startswith("pareto")]) == 2


def test_nothing_to_draw(tmp_path: Path) -> None:
    for rows in ([], [identity("rlt", 0.4, error="broken")]):
        with pytest.raises(NothingMeasured):
            plot.draw(frame(rows), tmp_path)
    with pytest.raises(UsageError):
        plot.draw(frame(sweep()), tmp_path, y="speed")
