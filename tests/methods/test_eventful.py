"""Eventful Transformers against a plain reference, and the checks that their definition asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import naive_eventful as naive
import pytest
import torch
from conftest import moving_clip
from gated import FORMS, SIZES, VIEWS, close, dense, detector, follow, outputs, rule, variant, video, views, vivit

from vpbench.api import Pruner
from vpbench.backbones.vitdet import TINY as DETECTOR
from vpbench.backbones.vivit import ViViTConfig
from vpbench.methods.eventful import Eventful, products
from vpbench.methods.eventful.pruner import GATES, GatedPruner
from vpbench.tasks.recognition.session import to_batch


@pytest.mark.parametrize(("size", "seed"), [("padded windows", 0), ("padded windows", 1), ("resized tables", 2)])
@pytest.mark.parametrize("form", FORMS)
def test_a_detector_follows_the_definition(form: str, size: str, seed: int) -> None:
    model, method = detector(SIZES[size], seed, torch.float64), FORMS[form]
    embedded = video(model, 4, seed)
    pruner = method.attach(model)
    assert isinstance(pruner, GatedPruner)
    plain = naive.Naive(model, rule(method), variant(method))
    varied = set()
    for number, frame in enumerate(embedded):
        pruner.record = {}
        with torch.inference_mode():
            found = model.run_parts(frame[None], pruner)
            expected = plain.frame(frame + model.net.positions())
        close(found.output[0], expected, 1e-11)
        for layer, own in enumerate(plain.selected):
            for gate in GATES:
                chosen = pruner.record.get(f"block{layer}.{gate}")
                assert (chosen.tolist() if chosen is not None else None) == own[gate], (number, layer, gate)
                varied.add(-1 if chosen is None else len(chosen))
        if method.level in ("full", "scores"):
            keys = [int(pruner.record[f"block{layer}.keys"]) for layer in model.unwindowed]
            assert keys == [plain.keys[layer] for layer in model.unwindowed]
    assert (len(varied) > 4) == (method.policy == "threshold")


@pytest.mark.parametrize(
    ("config", "seed"), [(VIEWS, 0), (VIEWS, 1), (replace(VIEWS, dim=32, heads=4, height=64, width=32), 2)]
)
@pytest.mark.parametrize("form", [form for form, method in FORMS.items() if not method.pooled])
def test_steps_follow_the_definition(form: str, config: ViViTConfig, seed: int) -> None:
    """A batch of views, step by step, gives what each view alone gives; class tokens are ordinary tokens."""
    model, method = vivit(config, seed, torch.float64), FORMS[form]
    embedded = views(model, 2, seed)
    own = torch.cat([model.cls_token[None].expand(*embedded.shape[:2], -1, -1), embedded], dim=2) + model.pos_embed
    with torch.inference_mode():
        found, _ = model.run_parts(own, method.attach(model))
        expected = torch.stack([naive.classes(model, view, rule(method), variant(method)) for view in embedded])
    close(found, expected, 1e-11)


@pytest.mark.parametrize("form", [form for form, method in FORMS.items() if not method.pooled])
def test_first_frames_are_dense_to_the_bit(form: str) -> None:
    model = detector()
    embedded = video(model, 1, 3)
    assert torch.equal(outputs(model, FORMS[form], embedded), dense(model, embedded))


def test_first_steps_are_dense_to_the_bit() -> None:
    model = vivit()
    batch = to_batch([moving_clip(n, model.config) for n in range(2)], "cpu")  # type: ignore[arg-type]
    found = []
    for pruner in (Eventful(5).attach(model), OneByOne()):
        with torch.inference_mode():
            found.append(model.encode(batch, pruner)[0])
    assert torch.equal(found[0][:, 0], found[1][:, 0])
    assert not torch.equal(found[0], found[1])


class OneByOne(Pruner):
    """Dense, a step at a time, as gates are."""

    def waves(self, steps: int) -> Sequence[Sequence[int]]:
        return [[step] for step in range(steps)]


@pytest.mark.parametrize("form", ["full", "pooled", "scores", "tokenwise", "before norms"])
def test_gates_that_pass_everything_are_none(form: str) -> None:
    whole = replace(FORMS[form], k=10_000)
    for dtype, share in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        model = detector(dtype=dtype)
        embedded = video(model, 5, 1)
        expected = replace(whole, level="none") if whole.pooled else None
        close(
            outputs(model, whole, embedded),
            dense(model, embedded) if expected is None else outputs(model, expected, embedded),
            share,
        )


@pytest.mark.parametrize("form", FORMS)
def test_a_still_video_stays_as_it_was(form: str) -> None:
    model = detector()
    found = outputs(model, FORMS[form], video(model, 1, 4).expand(4, -1, -1))
    close(found, found[:1].expand_as(found), 1e-5)


@pytest.mark.parametrize("form", [Eventful(0), Eventful(0, pooled=True), Eventful(0, level="tokenwise"),
                                  Eventful(policy="threshold", threshold=1e9, pooled=True)])  # fmt: skip
def test_without_any_token_the_stream_alone_moves(form: Eventful) -> None:
    model = detector()
    embedded = video(model, 4, 5)
    found = outputs(model, form, embedded)
    close(found, found[:1] + embedded - embedded[:1], 1e-5)


def test_threshold_0_is_dense_but_for_columns_of_unchanged_keys() -> None:
    model = detector(dtype=torch.float64)
    moving = video(model, 4, 6)
    some = moving.clone()
    some[1:, :30] = some[:1, :30]  # still in the first window, whose tokens reach a global block unchanged
    zero = Eventful(policy="threshold", threshold=0.0)
    for level in ("tokenwise", "scores"):
        close(outputs(model, replace(zero, level=level), some), dense(model, some), 1e-12)
    close(outputs(model, zero, moving), dense(model, moving), 1e-12)
    far = outputs(model, zero, some) - dense(model, some)
    assert float(far.abs().max()) > 1e-3


@pytest.mark.parametrize("previous", [False, True])
def test_small_changes_add_up_where_references_are_what_was_used(previous: bool) -> None:
    model = detector()
    parts: Any = model.net.blocks[0]
    pruner = Eventful(policy="threshold", threshold=0.0, level="tokenwise", before_norm=True).attach(model)
    assert isinstance(pruner, GatedPruner)
    step = torch.zeros(DETECTOR.dim)
    step[0] = 0.5
    setting = replace(pruner.setting, threshold=2.5 * float(step.norm()), previous=previous)
    pruner.setting = setting
    x = video(model, 1, 7)
    seen = []
    for frame in range(1, 11):
        pruner.record = {}
        x[0, 5] += step
        with torch.inference_mode():
            pruner.run_block(0, x, parts)
        if frame > 1:
            seen += [frame - 1] if 5 in pruner.record["block0.qkv"] else []
    assert seen == ([] if previous else [3, 6, 9])


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("form", ["full", "pooled"])
def test_products_are_those_of_what_is_remembered(form: str, dtype: torch.dtype, share: float) -> None:
    model = detector(dtype=dtype)
    pruner = FORMS[form].attach(model)
    assert isinstance(pruner, GatedPruner)
    follow(model, pruner, video(model, 8, 8)[:, None])
    for layer in model.unwindowed:
        state = pruner.states[layer]
        known, qkv = state.products, state.pairs[0].buffer
        assert known is not None
        assert known.weights is not None
        assert known.values is not None
        assert known.output is not None
        assert qkv is not None
        q, k, v = qkv.unflatten(2, (3, model.heads, -1)).unbind(2)
        if FORMS[form].pooled:
            k, v = (products.pooled(each) for each in (k, v))
        close(known.output, torch.einsum("bnhm,bmhd->bnhd", known.weights, v), share)
        close(known.values, v, share)
        close(known.logits, torch.einsum("bnhd,bmhd->bnhm", q, k) / model.key_width**0.5, share)
        assert float((known.weights.sum(-1) - 1).abs().max()) > 1e-3, "rows no longer sum to 1"


def test_segments_know_nothing_of_each_other() -> None:
    model = detector()
    first, second = video(model, 3, 1), video(model, 4, 2)
    for form in ("full", "pooled", "threshold"):
        pruner = FORMS[form].attach(model)
        follow(model, pruner, first[:, None])
        pruner.restart()
        assert torch.equal(follow(model, pruner, second[:, None])[:, 0], outputs(model, FORMS[form], second))
        # no one says that another batch begins: its size does
        again = follow(model, pruner, torch.stack([second, second], dim=1))
        close(again[:, 1], outputs(model, FORMS[form], second), 2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_items_of_a_batch_know_nothing_of_each_other(form: str) -> None:
    """Also where content decides how many keys or tokens of each are computed; the second segment ends first."""
    model = detector(dtype=torch.float64)
    each = [video(model, 5, 1), video(model, 3, 2, moving=0.2)]
    pruner = FORMS[form].attach(model)
    pruner.restart()
    together = follow(model, pruner, torch.stack([own[:3] for own in each], dim=1))
    pruner.narrow(1)
    rest = follow(model, pruner, each[0][3:, None])
    alone = [outputs(model, FORMS[form], own) for own in each]
    close(together, torch.stack([own[:3] for own in alone], dim=1), 1e-12)
    close(rest[:, 0], alone[0][3:], 1e-12)


def test_errors_fall_with_more_tokens() -> None:
    model = detector()
    embedded = video(model, 2, 9)
    expected = dense(model, embedded)[1]
    errors = [float((outputs(model, Eventful(k), embedded)[1] - expected).square().mean()) for k in (8, 16, 32, 48)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 4


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_kept_to_the_product_with_values(kind: str) -> None:
    model = detector(seed=1)
    embedded = video(model, 6, 1)
    for form in (Eventful(64), Eventful(19, pooled=True)):
        whole = outputs(model, form, embedded)
        half = outputs(model, replace(form, cast=kind), embedded)
        far = float((half - whole).abs().max() / whole.abs().max())
        assert 0 < far < (0.05 if kind == "bfloat16" else 0.01)
    pruner = Eventful(19, cast=kind).attach(model)
    assert isinstance(pruner, GatedPruner)
    follow(model, pruner, embedded[:, None])
    known = pruner.states[model.unwindowed[0]].products
    assert known is not None
    types = {each.dtype for each in (known.weights, known.values, known.output) if each is not None}
    assert (types, known.logits.dtype) == ({getattr(torch, kind)}, torch.float32)
