"""Where the time of a forward goes: exclusive, complete, charged to the right stage, and only while asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vpbench import plan
from vpbench.api import Classifier, ClipBatch, Method, Pruner, Tokens, Trace
from vpbench.api.backbone import classifier
from vpbench.api.method import load_method
from vpbench.measure import stages
from vpbench.registry import names

EMBEDDED = ("videomae_embedded", "mvit_embedded", "videoswin_embedded", "vivit_embedded")


def nothing() -> None:
    """There is no queue to wait for."""


class Sleeps(Pruner):
    """Takes 20 ms to decide after the attention of block 1, and moves tokens there."""

    stepwise = True

    def after_attention(self, layer: int, tokens: Tokens, trace: Trace) -> Tokens:
        if layer != 1:
            return tokens
        time.sleep(0.02)
        return tokens.take(torch.arange(len(tokens.x)), tokens.lengths)


def backbone(name: str) -> Classifier:
    return classifier(name).eval().requires_grad_(False)


def split(
    model: Classifier, pruner: Pruner, watch: Callable[[stages.Stopwatch], object] = lambda w: None
) -> stages.Split:
    config = model.config
    pixels = torch.randint(0, 255, (1, config.frames, config.height, config.width, 3), dtype=torch.uint8)
    batch = ClipBatch(pixels, ("a",), (0,))
    with torch.inference_mode(), stages.watched([*model.modules(), pruner, Tokens], nothing) as stopwatch:
        return stopwatch.split(lambda: model(batch, pruner))


def quickest(model: Classifier, pruner: Pruner) -> stages.Split:
    """Return the least disturbed of four."""
    return min((split(model, pruner) for _ in range(4)), key=lambda found: found.total_ns)


def ms(found: stages.Split, stage: str) -> float:
    return found.ns[stage] / 1e6


@pytest.mark.parametrize("name", EMBEDDED)
def test_stages_are_the_whole_forward_and_hardly_anything_is_left(name: str) -> None:
    found = quickest(backbone(name), Pruner())
    assert sum(found.ns.values()) == found.total_ns
    assert all(found.ns[stage] > 0 for stage in ("embed", "attention", "mlp", "head"))
    assert found.ns[stages.REST] < 0.15 * found.total_ns
    assert found.ns["scoring"] + found.ns["gather"] + found.ns["restore"] < 0.1 * found.total_ns


@pytest.mark.parametrize("name", ["videomae_embedded", "vivit_embedded"])
def test_a_sleep_in_a_method_is_scoring_and_its_moving_is_not(name: str) -> None:
    found = quickest(backbone(name), Sleeps())
    assert 20 <= ms(found, "scoring") < 40
    assert 0 < ms(found, "gather") < 20
    assert ms(found, "attention") > 0


def test_what_the_stopwatch_says_agrees_with_a_clock_around_the_forward() -> None:
    model, shares = backbone("videomae_embedded"), []
    for _ in range(4):  # the first one is slower, and another process may come between any two clocks
        began = time.perf_counter_ns()
        found = split(model, Sleeps())
        shares.append(found.total_ns / (time.perf_counter_ns() - began))
    assert all(share <= 1 for share in shares)
    assert max(shares) > 0.9


def test_a_method_on_a_grid_says_itself_what_moves_tokens() -> None:
    model = backbone("mvit_embedded")
    method = load_method("stts_uniform").at_keep(load_method("stts_uniform")(), 0.5, model, ())
    assert isinstance(method, Method)
    found = split(model, method.attach(model))
    assert found.ns["gather"] > 0
    assert found.ns["scoring"] > 0


def test_nothing_stays_behind() -> None:
    model, pruner = backbone("videomae_embedded"), Sleeps()
    take = Tokens.take
    split(model, pruner)
    assert Tokens.take is take
    assert not [name for module in model.modules() for name in vars(module) if name in stages_of(module)]
    assert vars(pruner) == {}


def stages_of(owner: object) -> Any:
    return getattr(owner, "timed_as", {})


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_method_names_functions_that_it_has_and_stages_that_there_are(name: str) -> None:
    model, served = backbone(name), 0
    for method in map(load_method, names("methods")):
        if model.flow in method.flows and method().supports(model) is None:
            with stages.watched([*model.modules(), method().attach(model), Tokens], nothing):
                served += 1
    assert served > 3


def test_an_error_leaves_everything_as_it_was() -> None:
    class Breaks(Pruner):
        def video(self, batch: ClipBatch) -> None:
            raise RuntimeError("broken")

    model, take = backbone("videomae_embedded"), Tokens.take
    with pytest.raises(RuntimeError, match="broken"):
        split(model, Breaks())
    assert Tokens.take is take
    assert "embed" not in vars(model)


class Part:
    timed_as = {"outer": "attention", "inner": "gather"}  # noqa: RUF012

    def outer(self) -> None:
        time.sleep(0.01)
        self.inner()

    def inner(self) -> None:
        time.sleep(0.1)


def test_functions_called_outside_of_a_split_work_and_are_not_charged() -> None:
    part = Part()
    with stages.watched([part], nothing) as stopwatch:
        part.inner()
        found = stopwatch.split(nothing)
    assert found.ns["gather"] == 0
    assert found.total_ns == found.ns[stages.REST]


def test_time_inside_another_stage_is_charged_once() -> None:
    part = Part()
    with stages.watched([part], nothing) as stopwatch:
        found = stopwatch.split(part.outer)
    assert 10 <= ms(found, "attention") < 100
    assert ms(found, "gather") >= 100
    assert vars(part) == {}


def test_a_stage_that_there_is_not_is_named() -> None:
    class Odd(Pruner):
        timed_as = {"video": "thinking"}  # noqa: RUF012

    with pytest.raises(ValueError, match="thinking"), stages.watched([Odd()], nothing):
        pass


def test_the_device_is_waited_for_at_every_border() -> None:
    part, waited = Part(), list[int]()
    with stages.watched([part], lambda: waited.append(1)) as stopwatch:
        stopwatch.split(part.inner)
    assert len(waited) == 4  # before the start, into the stage, out of it, at the end


def test_rounds_give_columns_whose_stages_sum_to_the_total() -> None:
    model, dense = backbone("videomae_embedded"), Pruner()
    pixels = torch.zeros(1, 16, 64, 64, 3, dtype=torch.uint8)
    batch = ClipBatch(pixels, ("a",), (0,))
    pruners = {"dense": dense, "slow": Sleeps()}
    order: list[tuple[str, int]] = []

    def forward(name: str) -> Callable[[int], object]:
        def run(number: int) -> object:
            order.append((name, number))
            return model(batch, pruners[name])

        return run

    with torch.inference_mode():
        found = stages.time_stages(
            {name: forward(name) for name in pruners},
            {name: [*model.modules(), pruner, Tokens] for name, pruner in pruners.items()},
            5,
            np.random.default_rng(0),
            nothing,
        )
    assert sorted(order) == sorted((name, number) for name in pruners for number in range(6))
    columns = stages.columns(found["slow"], found["dense"], 1)
    parts = sum(columns[f"stage_{name}_ms"] for name in (*stages.STAGES, stages.REST))
    assert parts == pytest.approx(columns["stage_total_ms"])
    assert 10 < columns["stage_scoring_ms"] < 60
    assert columns["stage_dense_ms"] == pytest.approx(np.median([each.total_ns for each in found["dense"]]) / 1e6)
    assert columns["n_stage_rounds"] == 5
    assert stages.columns(None, None, 1) == {}


def test_columns_are_per_clip_and_sum_to_the_median_whatever_single_rounds_did() -> None:
    def split_of(mlp: int, head: int) -> stages.Split:
        return stages.Split({**dict.fromkeys((*stages.STAGES, stages.REST), 0), "mlp": mlp, "head": head})

    # one round in a disturbed moment, one on a clip with twice the tokens
    splits = [split_of(6_000_000, 2_000_000), split_of(60_000_000, 2_000_000), split_of(12_000_000, 4_000_000)]
    columns = stages.columns(splits, splits[:1], 4)
    assert columns["stage_total_ms"] == 4
    assert columns["stage_mlp_ms"] == pytest.approx(3)
    assert columns["stage_head_ms"] == pytest.approx(1)
    assert columns["stage_dense_ms"] == 2


def test_the_option_is_part_of_the_setting() -> None:
    asked = plan.options({"method": ("dense",), "stages": True})
    assert plan.setting(asked, 1).stages
    assert not plan.setting(plan.options({"method": ("dense",)}), 1).stages
