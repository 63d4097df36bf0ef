"""How sets are written, what is called equal, what a recorder sees, and how differences are told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import moving_clip
from hypothesis import given
from hypothesis import strategies as st

from vpbench.api import Pruner
from vpbench.api.method import load_method
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.check import baseline, compare, report
from vpbench.commands.check.baseline import Baseline
from vpbench.commands.check.cells import shaken
from vpbench.commands.check.facts import Facts, Measured, Stored, deviation, positions, same, stored, written
from vpbench.commands.check.gate import Verdict
from vpbench.commands.check.recorder import recording
from vpbench.commands.check.speed import Speed, speed
from vpbench.errors import NothingMeasured, UsageError, VpbenchError
from vpbench.measure.clock import Sample
from vpbench.rows.statistics.intervals import Interval
from vpbench.tasks.recognition.session import to_batch

FACTS = Facts(((8, 8), (8, 4)), 1000, {"video": "xff", "after_block 1": "xf"}, (2.0, -4.0, 1.0))
MEASURED = Measured({"threshold": 0.1}, None, 0.75, 0.01, 0.0, {"clip": FACTS})
STORED = stored(MEASURED, 0.5)


@given(st.sets(st.integers(0, 600)))
def test_sets_are_read_as_they_were_written(tokens: set[int]) -> None:
    assert positions(written(tokens)) == tokens


def test_class_tokens_are_left_out_of_sets() -> None:
    assert written([-1, 0, 2]) == "x5"


@pytest.mark.parametrize(
    ("found", "expected"),
    [((2.0, -4.0), 0.0), ((2.0, -4.004), 1e-3), ((2.0,), float("inf")), ((float("nan"), -4.0), float("inf"))],
)
def test_deviation_is_a_share_of_the_largest_value(found: tuple[float, ...], expected: float) -> None:
    assert deviation(found, (2.0, -4.0)) == pytest.approx(expected)


@pytest.mark.parametrize("change", [{"macs": 1010}, {"tokens": ((8, 8), (8, 5))}, {"sets": {"video": "xfe"}}])
def test_counts_costs_and_sets_are_equal_or_not(change: dict[str, object]) -> None:
    assert same(FACTS, FACTS)
    assert not same(dataclasses.replace(FACTS, **change), FACTS)  # type: ignore[arg-type]


def test_a_recorder_sees_what_sites_leave_and_goes_without_a_trace(tiny: VideoMAE) -> None:
    clip = moving_clip(1)
    pruner = load_method("topk")().attach(tiny)
    with torch.inference_mode():
        expected = tiny(to_batch([clip], "cpu"), pruner).logits
        with recording(pruner) as seen:
            out = tiny(to_batch([clip], "cpu"), pruner)
    assert torch.equal(out.logits, expected)
    assert not {"video", "after_attention", "after_block"} & set(vars(pruner))
    left = [len(positions(text)) for text in seen.values()]
    counts = [count.mlp[0] for count in out.counts]
    assert left == [n for before, n in zip([tiny.grid.tokens, *counts], counts, strict=False) if n < before]
    assert len(left) == 3


def test_a_recorder_gives_back_what_was_on_the_object_before() -> None:
    pruner = Pruner()
    own = lambda batch: None  # noqa: E731
    pruner.video = own  # type: ignore[method-assign]
    with recording(pruner):
        assert pruner.video is not own
    assert pruner.video is own


def test_shaking_moves_every_weight_a_little_and_puts_it_back(tiny: VideoMAE) -> None:
    before = {name: p.detach().clone() for name, p in tiny.named_parameters()}
    with shaken(tiny, 0):
        moved = [(p.detach() / before[n] - 1).abs()[before[n] != 0] for n, p in tiny.named_parameters()]
    assert 1e-7 < float(torch.cat([m.flatten() for m in moved]).mean()) < 1e-5
    assert all(torch.equal(p, before[name]) for name, p in tiny.named_parameters())


def test_a_baseline_is_read_as_it_was_written_with_a_line_per_clip(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    own = Baseline({"cpu": "x"}, {"b": {"clips": "1"}}, {"b/m": STORED})
    baseline.write(path, own)
    assert baseline.read(path) == own
    assert sum('"macs": 1000' in line for line in path.read_text().splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_baseline_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "b.json").mkdir()
    with pytest.raises(VpbenchError, match="cannot write"):
        baseline.write(tmp_path / "b.json", Baseline())
    assert [each.name for each in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 1}', '{"schema": 1, "written": {}, "inputs": {}, "cells": 3}'])
def test_what_is_no_baseline_is_said_so(text: str, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UsageError, match=r"b\.json: not a baseline"):
        baseline.read(tmp_path / "b.json")


def test_a_missing_or_foreign_baseline_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NothingMeasured, match="--update"):
        baseline.read(tmp_path / "none.json")
    (tmp_path / "b.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(UsageError, match="schema 99"):
        baseline.read(tmp_path / "b.json")


def facts(**change: object) -> Measured:
    return dataclasses.replace(MEASURED, clips={"clip": dataclasses.replace(FACTS, **change)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "kind", "text"),
    [
        (facts(sets={"video": "xff", "after_block 1": "x17"}), "sets", "after_block 1: expected token 3, found 4"),
        (facts(sets={"video": "xff"}), "sets", "after_block 1: expected a selection, found none"),
        (facts(tokens=((8, 8), (8, 5))), "tokens", "block 1, MLP: expected 4 tokens, found 5"),
        (facts(tokens=((8, 8),)), "tokens", "blocks: expected 2, found 1"),
        (facts(macs=1010), "macs", "expected 1000 MACs, found 1010 (+1.00 %)"),
        (facts(values=(2.0, -4.0, 1.004)), "logits", "output 2: expected 1, found 1.004, off by 1.0e-03"),
        (facts(values=(2.0, -4.0)), "logits", "expected 3 outputs, found 2"),
        (dataclasses.replace(MEASURED, params={"threshold": 0.101}), "parameters", "expected 0.1, found 0.101"),
        (dataclasses.replace(MEASURED, agree=0.5), "fidelity", "expected at least 0.750, found 0.500"),
        (dataclasses.replace(MEASURED, kl=0.02), "fidelity", "KL to dense"),
        (dataclasses.replace(MEASURED, kl=float("nan")), "fidelity", "KL to dense"),
        (dataclasses.replace(MEASURED, kept_all=1e-3), "keep-all", "off dense by 1.0e-03"),
        (dataclasses.replace(MEASURED, kept_all=None), "keep-all", "now refuses"),
    ],
)
def test_each_difference_is_told_where_it_is(found: Measured, kind: str, text: str) -> None:
    [difference] = compare.compare(found, STORED)
    assert (difference.kind, text in difference.text) == (kind, True)
    assert compare.hint([difference], "b/m", dense_failed=False)


def test_what_stays_within_the_tolerance_is_equal() -> None:
    moved = facts(values=(2.0003, -4.0, 1.0))
    assert compare.compare(moved, STORED) == []
    assert compare.compare(MEASURED, STORED) == []


def test_a_changed_dense_is_the_first_hint() -> None:
    [difference] = compare.compare(facts(values=(2.0, -4.0, 1.1)), STORED)
    assert "b changed too" in compare.hint([difference], "b/m", dense_failed=True)
    assert "b changed too" not in compare.hint([difference], "b/dense", dense_failed=True)


@given(st.lists(st.floats(-8, 8), min_size=6, max_size=6), st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_the_bound_of_kl_holds_for_logits_within_the_tolerance(values: list[float], by: list[float]) -> None:
    dense, own = np.array([3.0, -1, 0, 2, 1, -2]), np.array(values)
    largest = max(np.abs(own).max(), np.abs(dense).max())
    moved = own + 1e-4 * np.array(by) * largest
    clips = {"clip": Facts((), 0, {}, (*values, largest))}
    limit = stored(Measured({}, None, 1.0, kl(dense, own), 0.0, clips), None).kl_at_most
    assert limit is not None
    assert kl(dense, moved) <= limit * (1 + 1e-3) + 1e-12


def kl(dense: np.ndarray, own: np.ndarray) -> float:
    log_p, log_q = (z - np.log(np.exp(z).sum()) for z in (dense, own))
    return max(0.0, float((np.exp(log_p) * (log_p - log_q)).sum()))


def samples(method: float, twin: float = 1.0) -> list[Sample]:
    """Twenty rounds of dense at 100 us with some noise that all share, and a little of their own."""
    draw, found = np.random.default_rng(0), []
    for number in range(20):
        common = draw.uniform(0.8, 1.6)
        for name, factor in (("dense", 1.0), ("aa", twin), ("m", method)):
            found.append(Sample(name, number, 0, round(1e5 * common * factor * draw.normal(1, 0.01)), None))
    return found


@pytest.mark.parametrize(("factor", "slower"), [(0.5, False), (0.55, False), (0.65, True)])
def test_slower_by_thirty_per_cent_is_slower_and_by_ten_is_not(factor: float, slower: bool) -> None:
    found = speed(samples(factor), "m")
    assert found.ratio.value == pytest.approx(factor, rel=0.02)
    assert found.slower(0.5) == slower
    assert not found.noisy


def test_a_clock_that_cannot_tell_dense_from_itself_is_noisy() -> None:
    assert speed(samples(0.5, twin=1.1), "m").noisy
    assert Speed(Interval(0.5, 0.5, 0.5), Interval(1.0, 0.97, 1.03), 0.5).noisy


@pytest.mark.parametrize(("calm_rounds", "slower"), [(3, False), (0, True)])
def test_on_a_busy_machine_the_fastest_rounds_must_be_slower_too(calm_rounds: int, slower: bool) -> None:
    rounds, draw = [], np.random.default_rng(0)
    for number in range(20):
        own = 50_000 if number < calm_rounds else 65_000
        twin = round(draw.uniform(80_000, 120_000))
        rounds += [Sample(name, number, 0, ns, None) for name, ns in (("dense", 100_000), ("aa", twin), ("m", own))]
    found = speed(rounds, "m")
    assert found.noisy
    assert found.ratio.lo > 0.5 * 1.15
    assert found.slower(0.5) == slower


def verdicts() -> list[Verdict]:
    failed = Verdict("b/rlt", "ok", MEASURED, expected_time=0.5)
    failed.fail(*(compare.Difference("sets", f"clip {n}, <site>\x00 a|b") for n in range(7)))
    failed.hint = "look here"
    timed = Verdict("c/sta", "ok", MEASURED, speed=speed(samples(0.5), "m"), expected_time=0.5, note="noisy, x")
    return [failed, Verdict("b/mine", "new", MEASURED, note="not in the baseline"), timed]


def test_a_log_has_a_line_per_cell_and_details_of_failures() -> None:
    found = list(report.lines(verdicts(), {"torch": "2.13"}))
    assert found[0].startswith("FAIL  b/rlt ")
    assert found[1:8] == [*(f"        clip {n}, <site>\x00 a|b" for n in range(5)), *found[6:8]]
    assert "and 2 more" in found[6]
    assert "hint: look here" in found[7]
    assert found[8].startswith("new   b/mine")
    assert "time 0.50 of dense (stored 0.50), noisy" in found[9]
    assert found[10].startswith("1 cell passed, 1 failed, 1 new")


def test_junit_holds_every_cell_and_all_differences(tmp_path: Path) -> None:
    report.write_junit(tmp_path / "j.xml", verdicts())
    root = ElementTree.parse(tmp_path / "j.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"b", "c"}
    assert [suites["b"].get(key) for key in ("tests", "failures", "skipped", "errors")] == ["2", "1", "1", "0"]
    failure = suites["b"].find("testcase/failure")
    assert failure is not None
    assert (failure.text or "").count("clip") == 7
    assert "look here" in (failure.text or "")


def test_markdown_is_a_table_with_details(tmp_path: Path) -> None:
    report.write_markdown(tmp_path / "m.md", verdicts(), {"torch": "2.13"})
    text = (tmp_path / "m.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count(" | ") for row in rows} == {6}
    assert len(rows) == 5
    assert "- `b/rlt`: clip 0" in text
    assert "2.13" in text


def test_an_entry_holds_bounds_and_what_keeping_everything_gave() -> None:
    assert isinstance(STORED, Stored)
    assert STORED.keeps_all
    assert not stored(dataclasses.replace(MEASURED, kept_all=0.1), None).keeps_all
    assert not stored(dataclasses.replace(MEASURED, kept_all=None), None).keeps_all
