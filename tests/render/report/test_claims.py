"""Sentences of the summary: what they say of rows that allow a claim, and of rows that do not."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from golden_rows import KEEPS, frame, identity, measured, sweep, sweep_videos

from vpbench.render.report import claims, evidence
from vpbench.render.report.claims import Claims
from vpbench.render.tables import cells as tables_cells
from vpbench.rows.contexts import contexts, judged, plain, records
from vpbench.rows.kinds import Cell

Row = dict[str, Any]
SURE: Row = {"n_clips": 10_000, "n_videos": 10_000, "disc_b": 50, "disc_c": 50, "n_rounds": 20}
SURE |= {"delta_pp": 0.0, "delta_ci_lo": -0.2, "delta_ci_hi": 0.2}


def cells(rows: list[Row], videos: list[Row] | None = None) -> list[Cell]:
    built = tables_cells.build(frame(rows), frame(videos or [], "videos"))
    [(_, group)] = contexts(frame(rows))
    ordered = sorted(records(group), key=tables_cells.order)
    shown: list[Cell] = plain(built)
    return [{**row, **more, "videos": judged(row)} for row, more in zip(ordered, shown, strict=True)]


def said(rows: list[Row], videos: list[Row] | None = None) -> Claims:
    found = cells(rows, videos)
    return claims.of(found, evidence.judge(found))


def everything(found: Claims) -> str:
    return "\n".join([*found.answer, *found.methods, *found.limits])


def test_the_answer_is_the_fastest_setting_without_loss() -> None:
    rows = [measured(), *(measured("rlt", keep, **SURE) for keep in (0.4, 0.6)), measured("sta", 0.2)]
    found = said(rows)
    fast = next(row for row in rows if row["keep_nominal"] == 0.4)
    # three settings: ends of intervals lie 2.394 instead of 1.960 standard errors away
    least = fast["speedup"] * (fast["speedup_ci_lo"] / fast["speedup"]) ** (2.39398 / 1.95996)
    assert found.answer[0].startswith(
        f"rlt at keep 0.4 is at least {math.floor(100 * least) / 100:.2f}x as fast as dense ({fast['speedup']:.2f}x ["
    )
    assert "and loses at most 0.26 pp top-1 (+0.0 pp [-0.2, +0.2])" in found.answer[0]


def test_settings_whose_intervals_overlap_are_not_ranked() -> None:
    times = {"speedup_ci_lo": 1.8, "speedup_ci_hi": 2.2}
    close = [measured("rlt", 0.4, **SURE, speedup=2.0, **times)]
    close += [measured("sta", 0.4, **SURE, speedup=1.95, speedup_ci_lo=1.75, speedup_ci_hi=2.2)]
    assert "not shown to be slower: sta at keep 0.4" in said([measured(), *close]).answer[0]
    apart = [close[0], close[1] | {"speedup": 1.6, "speedup_ci_lo": 1.5, "speedup_ci_hi": 1.79}]
    assert "not shown to be slower" not in said([measured(), *apart]).answer[0]


def test_without_proof_of_no_loss_none_is_claimed() -> None:
    found = said(sweep(), sweep_videos())
    assert found.answer[0] == "For no setting that is faster than dense is a loss of 0.5 pp top-1 or more ruled out."
    assert found.answer[1].startswith("What is shown of top-1 and speed: ")
    bounds = [float(each) for each in re.findall(r"loses at most ([\d.]+) pp", found.answer[1])]
    floors = [float(each) for each in re.findall(r"is at least ([\d.]+)x as fast", found.answer[1])]
    assert len(bounds) == len(floors) == 4
    assert (bounds, floors) == (sorted(bounds), sorted(floors)), "each step is faster, and may lose more"
    judged = [e for e in evidence.judge(cells(sweep(), sweep_videos())) if e.cell["method"] != "random"]
    assert floors[-1] == math.floor(100 * max(e.speed.at_least for e in judged)) / 100
    smallest = min(e.loss_bound_pp or math.inf for e in judged if e.speed.at_least > 1)
    assert bounds[0] == math.ceil(10 * smallest) / 10
    assert "no loss" not in everything(found)
    assert "not shown to lose" not in everything(found)


def test_a_setting_is_never_picked_for_a_loss_that_was_merely_not_shown() -> None:
    """Fast and with a loss of 2.8 pp that no test finds, beside one whose loss is bounded better: the bound decides."""
    lost = {"delta_pp": -2.0, "delta_ci_lo": -4.1, "delta_ci_hi": 0.1, "disc_b": 20, "disc_c": 12}
    spared = {"delta_pp": 0.0, "delta_ci_lo": -1.1, "delta_ci_hi": 1.1, "disc_b": 5, "disc_c": 5}
    pair: Row = {"n_clips": 504, "n_videos": 504}
    rows = [measured(**pair), measured("rlt", 0.2, **lost, **pair), measured("rlt", 0.8, **spared, **pair)]
    found = said(rows)
    assert re.match(r"What is shown of top-1 and speed: rlt at keep 0.8 loses at most 1\.\d pp", found.answer[1])
    which = "(of its settings faster than dense, the one whose loss is bounded best)"
    assert found.methods[0].startswith(f"rlt at keep 0.8 {which}: at least ")


def test_where_all_lose_that_is_said() -> None:
    lost = {**SURE, "disc_b": 900, "disc_c": 100, "delta_pp": -8.0, "delta_ci_lo": -9.0, "delta_ci_hi": -7.0}
    answer = said([measured(), measured("rlt", 0.4, **lost), measured("sta", 0.4, **lost)]).answer
    assert "2 of the 2 faster settings lose top-1." in answer


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"noisy": True}, "timed on a noisy machine"),
        ({"aa_ratio": 1.02, "aa_ci_lo": 1.01, "aa_ci_hi": 1.03, "noisy": True, "recompiles": 1}, "timed on a noisy"),
        ({"aa_ratio": None, "aa_ci_lo": None, "aa_ci_hi": None}, "dense was not timed against itself"),
    ],
)
def test_a_block_that_is_not_sound_has_no_speed(changes: Row, why: str) -> None:
    found = said([row | changes for row in sweep()], sweep_videos())
    assert found.answer[0].startswith(f"No setting is shown to be faster than dense: {why}")
    assert "as fast as dense" not in everything(found)
    assert any(line.startswith("No claim on the speed of 15 of 15 settings") for line in found.limits)


def test_random_weights_have_no_accuracy() -> None:
    unknown = dict.fromkeys(("top1", "top5", "delta_pp", "delta_ci_lo", "delta_ci_hi", "disc_b", "disc_c"))
    found = said([row | unknown | {"weights_kind": "random"} for row in sweep()])
    assert "Nothing is said about top-1: the weights are random." in found.answer
    assert all("no claim on top-1 (the weights are random), agrees with dense on" in line for line in found.methods)
    assert "pp" not in "".join(found.answer)


def test_a_method_with_a_caveat_is_never_the_answer() -> None:
    rows = [measured(), measured("rlt", 0.4, **SURE, caveat="reads the labels"), measured("sta", 0.6, **SURE)]
    found = said(rows)
    assert found.answer[0].startswith("sta at keep 0.6")
    assert "rlt" not in "".join(found.answer)
    assert "Not to be compared: reads the labels." in next(line for line in found.methods if line.startswith("rlt"))


def test_one_setting_per_method_and_which_one() -> None:
    found = said(sweep(), sweep_videos())
    assert [line.split()[0] for line in found.methods] == ["rlt", "sta", "random"], "controls come last"
    assert [line[0].split()[0] for line in found.summary] == ["rlt", "sta", "random"]
    which = "(of its settings faster than dense, the one whose loss is bounded best)"
    assert all(line.split(": ")[0].endswith(f"at keep 0.8 {which}") for line in found.methods)


def test_no_random_control_is_said() -> None:
    found = said([measured(), measured("rlt", 0.4)])
    assert "Random selection was not measured" in everything(found)
    assert "not tested against random selection (no random cell to compare with)" in found.methods[0]


def test_few_seeds_and_a_single_process_are_said() -> None:
    rows = [measured("random", keep, n_process=1) for keep in KEEPS]
    text = everything(said([measured(), *rows]))
    assert "drawn with 1 seed" in text
    assert "a single process" in text


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ([identity("rlt", 0.4, error="broken")], "Nothing was measured; the reasons"),
        ([measured("rlt", 0.4)], "Dense was not measured here"),
        ([measured()], "Only dense was measured"),
    ],
    ids=["all failed", "no dense", "dense alone"],
)
def test_sparse_results(rows: list[Row], answer: str) -> None:
    found = said(rows)
    assert found.answer[0].startswith(answer)
    assert "as fast as dense" not in everything(found) or rows[0]["method"] == "rlt"


def test_one_video_says_nothing_about_accuracy() -> None:
    one = {"n_videos": 1, "n_clips": 1, "disc_b": 1, "disc_c": 0, "delta_pp": -100.0, "delta_ci_lo": -100.0}
    found = said([measured(n_videos=1, n_clips=1), measured("rlt", 0.4, **one, delta_ci_hi=-100.0)])
    assert "1 video is too few" in everything(found)
    assert "loses" not in everything(found)


def test_names_tell_equal_keeps_apart() -> None:
    other = measured("rlt", 0.4, config_id="other", method_params='{"knob": 7}')
    found = claims.names(cells([measured(), measured("rlt", 0.4), other, measured("rlt", 0.6)]))
    assert set(found.values()) == {"dense", "rlt at keep 0.4 (knob=0.4)", "rlt at keep 0.4 (knob=7)", "rlt at keep 0.6"}


def test_failures_are_counted() -> None:
    found = said([measured(), measured("rlt", 0.4), identity("sta", 0.4, error="broken")])
    assert found.limits[-1].startswith("No result for 1 of 3 settings")


def test_where_accuracy_is_not_judged_no_setting_loses_least() -> None:
    few: Row = {"n_videos": 5, "n_clips": 5, "disc_b": 1, "disc_c": 0}
    found = said([measured(**few), *(measured("rlt", keep, **few) for keep in KEEPS)])
    assert "(of its settings, the fastest)" in found.methods[0]
    assert not any("front" in line for line in found.answer)


def test_on_a_noisy_machine_nothing_is_the_fastest() -> None:
    few: Row = {"n_videos": 5, "n_clips": 5, "disc_b": 1, "disc_c": 0}
    for rows in (sweep(), [row | few for row in sweep()]):
        found = said([row | {"noisy": True} for row in rows], sweep_videos())
        assert "fast" not in "".join(found.methods).replace("faster than dense", "")
    assert all("(of its settings, the fewest GMACs)" in line for line in found.methods)


def test_only_settings_that_lose_are_said_to_lose() -> None:
    lost = {**SURE, "disc_b": 900, "disc_c": 100, "delta_pp": -8.0, "delta_ci_lo": -9.0, "delta_ci_hi": -7.0}
    unread = {**SURE, "status": "incomplete", "n_failed": 500}
    rows = [measured(), measured("rlt", 0.4, **lost), measured("sta", 0.4, **unread)]
    assert "1 of the 2 faster settings lose top-1." in said(rows).answer
    assert not any("sta" in line for line in said(rows).answer)


@pytest.mark.parametrize(
    ("lo", "shown"), [(1.004, "at least 1.004x as fast as dense (1.300x [1.004, 1.500])"), (1.01, "[1.01, 1.50]")]
)
def test_an_end_never_rounds_onto_what_it_excludes(lo: float, shown: str) -> None:
    found = said([measured(), measured("rlt", 0.4, speedup=1.3, speedup_ci_lo=lo, speedup_ci_hi=1.5)])
    assert shown in found.methods[0]


def test_more_settings_widen_the_bound() -> None:
    """By itself a setting is shown to lose less than 0.5 pp; among twenty like it, it is not, and the bound says so."""
    near = {**SURE, "disc_b": 50, "disc_c": 45, "n_clips": 6_000, "n_videos": 6_000}
    near |= {"delta_pp": -0.08, "delta_ci_lo": -0.4, "delta_ci_hi": 0.24}
    alone = said([measured(), measured("rlt", 0.4, **near)])
    assert "loses at most 0.42 pp top-1" in alone.methods[0]
    rows = [measured("rlt", 0.4, config_id=f"rlt-{i}", method_params=f'{{"knob": {i}}}', **near) for i in range(20)]
    found = said([measured(), *rows])
    assert "loses at most 0.61 pp top-1" in found.methods[0]
    assert '"At least" and "at most" hold for all 20 settings at once' in everything(found)
    controls = [row | {"method": "random"} for row in rows]
    assert "loses at most 0.42 pp" in said([measured(), measured("rlt", 0.4, **near), *controls]).answer[0]


def test_dense_that_differs_from_itself_is_discounted() -> None:
    """3 % off: at least 2.9 times, where the interval begins at 3."""
    off = {"aa_ratio": 1.025, "aa_ci_lo": 1.02, "aa_ci_hi": 1.03, "noisy": True}
    found = said([measured(), measured("rlt", 0.4, speedup=3.1, speedup_ci_lo=3.0, speedup_ci_hi=3.2, **off)])
    line = "at least 2.91x as fast as dense (3.10x [3.00, 3.20], less the 3.0 % that dense differs from itself)"
    assert line in found.methods[0]


def test_what_so_many_videos_can_rule_out_is_said() -> None:
    found = said(sweep(), sweep_videos())
    assert any(line.startswith("Resolution: 300 videos rule out a loss of ") for line in found.limits)
