"""Closed forms against two operator counters."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from conftest import TINY, moving_clip
from helpers import PLAIN

from vpbench.api.backbone import classifier
from vpbench.api.method import load_method
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.errors import UsageError
from vpbench.measure import operators
from vpbench.tasks.recognition.session import to_batch


@pytest.mark.parametrize(
    ("name", "gmacs"), [("videomae_s", 56.88), ("videomae_b", 180.34), ("videomae_l", 596.83), ("videomae_h", 1190.99)]
)
def test_dense_closed_form_is_the_published_figure(name: str, gmacs: float) -> None:
    with torch.device("meta"):
        model = classifier(name)
    assert isinstance(model, VideoMAE)
    every = (model.grid.tokens,) * model.depth
    assert model.macs(every, every) / 1e9 == pytest.approx(gmacs, abs=0.005)


@pytest.mark.parametrize("name", PLAIN)
def test_operators_counted_equal_the_closed_form(name: str) -> None:
    torch.manual_seed(0)
    model = VideoMAE(TINY).eval()
    clips = [moving_clip(n) for n in range(3)]
    method = load_method(name)().at_keep(1.0 if name == "dense" else 0.5, model, clips)
    batch, pruner = to_batch(clips[:1], "cpu"), method.attach(model)
    with torch.inference_mode():
        out = model(batch, pruner)
    attention = tuple(c.attention[0] for c in out.counts)
    closed = model.macs(attention, tuple(c.mlp[0] for c in out.counts)) + pruner.macs(attention)
    closed -= pruner.uncounted_macs()  # products of single rows, which are no operators of their own
    seen = operators.operators(lambda: model(batch, pruner))
    assert not seen.uncounted
    assert seen.macs == pytest.approx(closed, rel=1e-3)
    if name != "oracle":  # a tracer does not follow its backward pass
        assert sum(operators.by_operator(model, batch, pruner).values()) == pytest.approx(closed, rel=1e-3)


@pytest.mark.parametrize(
    ("forward", "name"),
    [
        (lambda x: torch.cdist(x, x), "_cdist_forward"),
        (lambda x: x @ x[0], "mv"),
        (lambda x: x[0].dot(x[1]), "dot"),
        (lambda x: torch.fft.rfft(x).real, "_fft_r2c"),
    ],
)
def test_an_operator_that_nobody_counts_is_named(forward: Callable[[torch.Tensor], object], name: str) -> None:
    x = torch.randn(8, 8)
    seen = operators.operators(lambda: forward(x) is None or x @ x)
    assert {each.rpartition(".")[2] for each in seen.uncounted} == {name}
    assert seen.macs == 8 * 8 * 8, "what is counted beside it stays counted"


def test_operators_that_multiply_nothing_are_no_suspects() -> None:
    x = torch.randn(2, 3, 8, 8)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GELU(), torch.nn.GroupNorm(2, 4))
    assert not operators.operators(lambda: layers(x).softmax(1).sort().values.cumsum(-1)).uncounted


def test_without_fvcore_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    model, batch = VideoMAE(TINY), to_batch([moving_clip(0)], "cpu")
    with pytest.raises(UsageError, match=r"fvcore.*vpbench\[flops\]"):
        operators.by_operator(model, batch, load_method("dense")().attach(model))
