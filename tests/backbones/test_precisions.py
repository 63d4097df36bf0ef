"""Every method in half precision: weights cast, results finite, and near those of single precision."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import moving_clip
from helpers import construct
from tiny_backbones import CONFIGS

from vpbench import registry
from vpbench.api import Classifier, Clip, Method
from vpbench.api.method import load_method
from vpbench.errors import UsageError
from vpbench.tasks.recognition.session import to_batch

METHODS = [n for n in registry.names("methods") if hasattr(load_method(n), "attach")]


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Classifier:
    torch.manual_seed(0)
    return construct(CONFIGS[request.param]).eval().requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model: Classifier, dtype: torch.dtype) -> None:
    clips = [moving_clip(n, model.config) for n in range(2)]  # type: ignore[arg-type]
    half = copy.deepcopy(model).to(dtype)
    ran = [name for name in METHODS if (method := _ready(name, model, clips)) and _agree(model, half, method, clips)]
    assert {"dense"} < set(ran)
    assert len(ran) >= 5


def _ready(name: str, model: Classifier, clips: list[Clip]) -> Method | None:
    try:
        method: Method = load_method(name)().at_keep(1.0 if name == "dense" else 0.5, model, clips)
    except UsageError:
        return None
    return None if method.supports(model) or model.refuses(method.attach(model)) else method


def _agree(model: Classifier, half: Classifier, method: Method, clips: list[Clip]) -> bool:
    batch = to_batch(clips, "cpu")
    with torch.inference_mode():
        single, out = model(batch, method.attach(model)), half(batch, method.attach(half))
    assert out.logits.dtype == next(half.parameters()).dtype
    assert out.logits.isfinite().all(), method
    assert (out.logits.float() - single.logits).abs().max() < 0.5 * single.logits.abs().max(), method
    assert abs(out.macs[0] - single.macs[0]) < 0.2 * single.macs[0], method
    return True
