"""Pareto metrics of stored rows, against the same metrics of curves put together by hand."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from golden_rounds import with_samples
from golden_rows import CURVES, KEEPS, correctness, frame, identity, measured, sweep, sweep_videos, video_rows

from vpbench.rows.contexts import records
from vpbench.rows.statistics import bootstrap, curves, metrics, paired, pareto
from vpbench.rows.statistics.bootstrap import PerClip, Point, resample
from vpbench.rows.statistics.metrics import MethodMetrics

Row = dict[str, Any]
NO_SAMPLES = frame([], "samples")
# keeping all executes all of dense's GMACs
KEPT = [keep for keep in KEEPS if keep < 1]


def by_name(found: list[MethodMetrics]) -> dict[tuple[str, str], MethodMetrics]:
    return {(each.name, each.cost): each for each in found}


@pytest.fixture(scope="module")
def whole() -> dict[tuple[str, str], MethodMetrics]:
    rows, samples = with_samples(sweep())
    return by_name(metrics.of(frame(rows), frame(sweep_videos(), "videos"), frame(samples, "samples")))


def test_every_method_has_every_metric_for_both_costs(whole: dict[tuple[str, str], MethodMetrics]) -> None:
    assert list(whole) == [(name, cost) for name in sorted(CURVES) for cost in ("gmacs", "time")]
    for each in whole.values():
        assert list(each.values) == list(metrics.METRICS)
        assert (each.quality, each.settings, each.videos, each.batch_size) == ("top1", 5, 300, 1)
        assert each.resamples == 10_000
        for name, metric in each.values.items():
            assert (metric.value is None) <= bool(metric.note), name
            if metric.lo is not None and metric.hi is not None and metric.value is not None:
                assert metric.lo <= metric.value <= metric.hi


def test_they_are_those_of_curves_put_together_by_hand(whole: dict[tuple[str, str], MethodMetrics]) -> None:
    """Counted costs: points of rows, dense at the end of each curve, random as reference."""
    dense = correctness("dense", None).astype(float)

    def points(method: str) -> list[Point]:
        shares = [measured(method, keep)["gmacs_executed"] / 1.9 for keep in KEEPS]
        own = [(correctness(method, keep), share) for keep, share in zip(KEEPS, shares, strict=True)]
        return [Point(q.astype(float), PerClip(s * np.ones(300), np.ones(300))) for q, s in [*own, (dense, 1.0)]]

    made = resample({name: points(name) for name in CURVES}, dense, np.arange(300))
    low = np.minimum(pareto.shared_low(list(made.values())), 0.9)
    expected = bootstrap.summary(made["rlt"], made["random"], low)
    found = whole["rlt", "gmacs"].values
    for name, estimate in expected.items():
        metric = found["bd_cost_vs_random" if name == "bd_cost" else name]
        # names of videos sort as their numbers do, so the draws are the same
        assert (metric.value, metric.lo, metric.hi) == pytest.approx((estimate.value, estimate.lo, estimate.hi)), name


def test_time_comes_from_the_rounds(whole: dict[tuple[str, str], MethodMetrics]) -> None:
    found = whole["rlt", "time"].values["speedup_at_3pp"]
    rows, _ = with_samples(sweep())
    # of five settings at once: 2.576 standard errors
    good = [
        row["speedup"]
        for row in rows
        if row["method"] == "rlt" and paired.paired_score(row["disc_b"], row["disc_c"], 300, -0.03) > 2.5758
    ]
    assert 1 <= len(good) < 5
    assert found.value == pytest.approx(max(good))
    by_luck = [row["speedup"] for row in rows if row["method"] == "rlt" and row["top1"] >= 88 - 3]
    assert max(by_luck) > max(good)


def test_only_what_was_measured_at_a_budget_is_not_flagged(whole: dict[tuple[str, str], MethodMetrics]) -> None:
    assert all(each.values["accuracy_at_0.5"].interpolated for each in whole.values())
    exact = [measured(), measured("rlt", 0.2), measured("rlt", 0.4, gmacs_executed=0.95)]
    videos = frame([*video_rows(), *video_rows("rlt", 0.2), *video_rows("rlt", 0.4)], "videos")
    found = by_name(metrics.of(frame(exact), videos, NO_SAMPLES))["rlt", "gmacs"]
    assert not found.values["accuracy_at_0.5"].interpolated
    assert found.values["accuracy_at_0.5"].value == pytest.approx(84)
    assert found.values["accuracy_at_0.35"].interpolated


def test_what_cannot_be_said_has_its_reason(whole: dict[tuple[str, str], MethodMetrics]) -> None:
    rlt = whole["rlt", "gmacs"].values
    assert rlt["bd_cost_vs_downsample"].note == "downsample was not measured"
    assert "undefined in" in rlt["bd_cost_vs_random"].note
    assert rlt["bd_cost_vs_random"].lo is None
    random = whole["random", "gmacs"].values
    assert random["gain_over_random"].note == metrics.IS_RANDOM
    assert "it is dense itself" in random["speedup_at_1pp"].note
    assert random["speedup_at_1pp"].value == 1.0


def test_one_point_of_one_method() -> None:
    videos = frame([*video_rows(), *video_rows("rlt", 0.4)], "videos")
    counted, timed = metrics.of(frame([measured(), measured("rlt", 0.4)]), videos, NO_SAMPLES)
    assert counted.values["hypervolume"].value is not None
    assert "do" not in counted.values["hypervolume"].note
    assert counted.values["budget_auc"].low == pytest.approx(measured("rlt", 0.4)["gmacs_executed"] / 1.9)
    assert counted.values["budget_auc"].value == pytest.approx(86.0)
    assert counted.values["budget_auc"].lo is not None
    assert counted.values["gain_over_random"].note == "random selection was not measured"
    assert {metric.note for metric in timed.values.values()} == {"the samples of its rounds are not stored"}


def test_without_dense_there_are_reasons_and_no_numbers() -> None:
    found = metrics.of(frame(sweep()[1:]), frame(sweep_videos(), "videos"), NO_SAMPLES)
    assert len(found) == 6
    for each in found:
        assert {metric.value for metric in each.values.values()} == {None}
        assert {metric.note for metric in each.values.values()} == {
            "dense was not measured, or its answers are not stored"
        }


def test_nothing_but_failures_or_dense_is_nothing() -> None:
    assert metrics.of(frame([identity("rlt", 0.4)]), frame([], "videos"), NO_SAMPLES) == []
    assert metrics.of(frame([measured()]), frame(video_rows(), "videos"), NO_SAMPLES) == []
    assert metrics.of(frame([]), frame([], "videos"), NO_SAMPLES) == []


def test_two_machines_are_two_contexts() -> None:
    rows = sweep() + [row | {"device_name": "Other CPU"} for row in sweep()]
    found = metrics.of(frame(rows), frame(sweep_videos(), "videos"), NO_SAMPLES)
    assert {each.context for each in found} == {"Other CPU", "Intel Xeon Processor @ 2.70GHz"}
    assert len(found) == 12


def test_without_labels_agreement_takes_the_place_of_accuracy() -> None:
    rows = [row | {"top1": None, "delta_pp": None, "weights_kind": "random"} for row in sweep()]
    videos = [row | {"correct": None, "agree": row["correct"]} for row in sweep_videos()]
    for row in videos:
        row["agree"] = row["agree"] or row["prediction_id"] == "dense-None"
    found = by_name(metrics.of(frame(rows), frame(videos, "videos"), NO_SAMPLES))
    assert found["rlt", "gmacs"].quality == "agree"
    assert found["rlt", "gmacs"].values["hypervolume"].value is not None


def test_seeds_of_a_setting_are_one_point_with_their_mean() -> None:
    def seeded(seed: int) -> Row:
        params = json.dumps({"keep": 0.4, "seed": seed})
        return measured("random", 0.4, seed=seed, config_id=f"random-{seed}", method_params=params)

    rows = [measured(), seeded(0), seeded(1)]
    [line] = curves.lines(records(frame(rows)))
    assert [len(seeds) for seeds in line.settings] == [2]
    shown = [row | {"config_id": f"random-{seed}"} for seed in (0, 1) for row in video_rows("random", 0.4)]
    other = [row | {"correct": True} if row["config_id"] == "random-1" else row for row in shown]
    found = metrics.of(frame(rows), frame([*video_rows(), *other], "videos"), NO_SAMPLES)[0]
    # 76 % and 100 %: 88 % at the GMACs of keep 0.4, which is dense's accuracy
    assert found.settings == 1
    share = measured("random", 0.4)["gmacs_executed"] / 1.9
    assert found.values["hypervolume"].value == pytest.approx(1 - share)


def test_clips_tell_how_a_cost_varies() -> None:
    rows = [measured(), measured("rlt", 0.4)]
    videos = frame([*video_rows(), *video_rows("rlt", 0.4)], "videos")
    macs = np.random.default_rng(0).integers(1, 100, 300)
    clips = pd.DataFrame(
        {
            "config_id": ["dense-None"] * 300 + ["rlt-0.4"] * 300,
            "video_id": [f"v{i:03d}" for i in range(300)] * 2,
            "macs": [100] * 300 + macs.tolist(),
        }
    )
    fixed, varied = (
        metrics.of(frame(rows), videos, NO_SAMPLES, each)[0].values["hypervolume"] for each in (None, clips)
    )
    assert fixed.lo is not None
    assert varied.lo is not None
    mean = Point(correctness("rlt", 0.4).astype(float), PerClip(macs.astype(float), np.full(300, 100.0)))
    dense = correctness("dense", None).astype(float)
    made = resample({"rlt": [mean, Point(dense, PerClip(np.ones(300), np.ones(300)))]}, dense, np.arange(300))
    expected = bootstrap.estimate(pareto.hypervolume(made["rlt"]))
    assert (varied.value, varied.lo, varied.hi) == pytest.approx((expected.value, expected.lo, expected.hi))


def test_controls_of_a_method_are_its_random_reference() -> None:
    rows = [measured(), measured("rlt", 0.4), measured("random", 0.4) | {"method": "rlt_random"}]
    videos = frame([*video_rows(), *video_rows("rlt", 0.4), *video_rows("random", 0.4)], "videos")
    found = by_name(metrics.of(frame(rows), videos, NO_SAMPLES))
    assert found["rlt", "gmacs"].values["bd_cost_vs_random"].note.startswith("fronts of 2 and, of random selection, 2 ")
    assert found["rlt_random", "gmacs"].values["gain_over_random"].note == metrics.IS_RANDOM


def test_detectors_have_values_without_intervals() -> None:
    def detector(method: str, keep: float | None, map50: float) -> Row:
        return measured(method, keep, task="detection", top1=None, map50=map50, map50_ci_lo=50.0, map50_ci_hi=90.0)

    rows = [detector("dense", None, 80.0), *(detector("rlt", keep, 80.0 - 5 / keep) for keep in (0.2, 0.4, 0.6))]
    counted, timed = metrics.of(frame(rows), frame([], "videos"), NO_SAMPLES)
    assert counted.quality == "map50"
    for each in (counted, timed):
        assert each.values["budget_auc"].value is not None
        assert each.values["budget_auc"].lo is None
        assert "not resampled" in each.values["budget_auc"].note
        assert each.values["speedup_at_1pp"].note.startswith("of detections no clips are counted")


def test_noise_and_caveats_come_along() -> None:
    rows, samples = with_samples([row | {"noisy": row["method"] == "rlt"} for row in sweep()])
    rows = [row | {"caveat": "reads the labels" if row["method"] == "sta" else None} for row in rows]
    found = by_name(metrics.of(frame(rows), frame(sweep_videos(), "videos"), frame(samples, "samples")))
    assert found["rlt", "time"].noisy
    assert not found["rlt", "gmacs"].noisy
    assert not found["sta", "time"].noisy
    assert found["sta", "gmacs"].caveat == "reads the labels"


def test_two_hundred_settings_of_500_videos_take_seconds() -> None:
    rng = np.random.default_rng(0)
    dense = rng.random(500) < 0.85
    rows, videos = [measured()], [pd.DataFrame({"config_id": "dense-None", "right": dense})]
    for number in range(200):
        share, method = (number % 10 + 1) / 11, "random" if number < 10 else f"m{number // 10}"
        params = json.dumps({"knob": number})
        rows.append(
            measured("random", 0.4, method_params=params, config_id=f"c{number}", gmacs_executed=1.9 * share)
            | {"method": method, "keep_nominal": share}
        )
        videos.append(pd.DataFrame({"config_id": f"c{number}", "right": dense ^ (rng.random(500) < 0.1 * (1 - share))}))
    rows, samples = with_samples(rows)
    table = pd.concat([part.assign(video_id=[f"v{i}" for i in range(500)]) for part in videos])
    shown = table.rename(columns={"right": "correct"}).assign(agree=True)
    results, timed = frame(rows), frame(samples, "samples")
    began = time.process_time()
    found = metrics.of(results, shown, timed)
    assert time.process_time() - began < 8  # 4 s on an idle core
    assert len(found) == 40
    assert all(each.values["hypervolume"].value is not None for each in found)
