"""Eventful Transformers against a plain reference, and the checks that their definition asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import naive_eventful as naive
import pytest
import torch
from torch import Tensor

from vpbench.api import Pruner
from vpbench.backbones.vitdet import TINY as DETECTOR
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.backbones.vitdet.network import Segments, ViTDet
from vpbench.backbones.vivit import TINY as STEPS
from vpbench.backbones.vivit import ViViTConfig
from vpbench.backbones.vivit.network import ViViT
from vpbench.methods.eventful import Eventful
from vpbench.methods.eventful.pruner import GATES, GatedPruner

#: windows that do not tile the grid, and tables of another size than it
SIZES = {
    "padded windows": DETECTOR,
    "resized tables": replace(DETECTOR, side=80, window=4, positions=7, global_table=12, heads=1),
}
FORMS = {
    "full": Eventful(19),
    "pooled": Eventful(19, pooled=True),
    "scores": Eventful(12, level="scores"),
    "tokenwise": Eventful(12, level="tokenwise"),
    "STGT": Eventful(12, level="tokenwise", compare="previous"),
    "before norms": Eventful(19, before_norm=True),
    "threshold": Eventful(policy="threshold", threshold=2.5),
    "pooled by threshold": Eventful(policy="threshold", threshold=2.5, pooled=True),
    "scores of pooled": Eventful(12, level="scores", pooled=True),
}


def shaken(model: Any, seed: int, amount: float = 0.15) -> Any:
    torch.manual_seed(seed)
    for parameter in model.eval().requires_grad_(False).parameters():
        parameter.add_(amount * torch.randn_like(parameter))
    return model


def detector(config: ViTDetConfig = DETECTOR, seed: int = 0, dtype: torch.dtype = torch.float32) -> ViTDet:
    torch.manual_seed(seed)
    found: ViTDet = shaken(ViTDet(config), seed)
    return found.to(dtype)


def vivit(config: ViViTConfig = STEPS, seed: int = 0, dtype: torch.dtype = torch.float32) -> ViViT:
    torch.manual_seed(seed)
    found: ViViT = shaken(ViViT(config), seed, 0.1)
    return found.to(dtype)


def video(model: ViTDet, frames: int, seed: int, moving: float = 1.0) -> Tensor:
    """Patches `[T, N, D]` of which some move more than others, no two alike."""
    draw = torch.Generator().manual_seed(seed)
    tokens, width = model.config.tokens, model.config.dim
    first = torch.randn(1, tokens, width, generator=draw)
    speed = torch.rand(1, tokens, 1, generator=draw) ** 3
    steps = torch.randn(frames, tokens, width, generator=draw) * speed * moving
    return (first + steps.cumsum(0)).to(model.net.pos_embed.dtype)


def follow(model: ViTDet, pruner: Pruner, embedded: Tensor) -> Tensor:
    """Outputs `[T, B, N, D]` of the frames of B segments `[T, B, N, D]`; the pruner goes on where it was."""
    found = []
    with torch.inference_mode():
        for frame in embedded:
            found.append(model._by_parts(frame, pruner).output)
    return torch.stack(found)


def outputs(model: ViTDet, method: Eventful, embedded: Tensor) -> Tensor:
    """Outputs `[T, N, D]` of one segment."""
    pruner = method.attach(model)
    pruner.restart()
    return follow(model, pruner, embedded[:, None])[:, 0]


def dense(model: ViTDet, embedded: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model.forward_frame(each[None], Segments()).output for each in embedded])


def rule(method: Eventful) -> naive.Rule:
    return naive.Rule(method.k, method.threshold if method.policy == "threshold" else None)


def variant(method: Eventful) -> naive.Variant:
    return naive.Variant(method.level, method.pooled, method.before_norm, method.compare == "previous")


def close(found: Tensor, expected: Tensor, share: float) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= share * float(expected.abs().max())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_a_detector_follows_the_definition(form: str, size: str, seed: int) -> None:
    model, method = detector(SIZES[size], seed, torch.float64), FORMS[form]
    embedded = video(model, 5, seed)
    pruner = method.attach(model)
    assert isinstance(pruner, GatedPruner)
    plain = naive.Naive(model, rule(method), variant(method))
    varied = set()
    for number, frame in enumerate(embedded):
        pruner.record = {}
        with torch.inference_mode():
            found = model._by_parts(frame[None], pruner)
            expected = plain.frame(frame + model.net.positions())
        close(found.output[0], expected, 1e-11)
        for layer, own in enumerate(plain.selected):
            for gate in GATES:
                chosen = pruner.record.get(f"block{layer}.{gate}")
                assert (chosen.tolist() if chosen is not None else None) == own[gate], (number, layer, gate)
                varied.add(-1 if chosen is None else len(chosen))
    assert (len(varied) > 4) == (method.policy == "threshold")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "config", [STEPS, replace(STEPS, dim=32, heads=4, frames=12, height=64, width=32)], ids=["square", "oblong"]
)
@pytest.mark.parametrize("form", [form for form, method in FORMS.items() if not method.pooled])
def test_steps_follow_the_definition(form: str, config: ViViTConfig, seed: int) -> None:
    """A batch of views, step by step, gives what each view alone gives; class tokens are ordinary tokens."""
    model, method = vivit(config, seed, torch.float64), FORMS[form]
    draw = torch.Generator().manual_seed(seed)
    grid = model.grid
    speed = torch.rand(2, 1, grid.per_slot, 1, generator=draw) ** 3
    embedded = torch.randn(2, 1, grid.per_slot, config.dim, generator=draw).expand(-1, grid.slots, -1, -1)
    embedded = (embedded + (speed * torch.randn(embedded.shape, generator=draw)).cumsum(1)).double()
    own = torch.cat([model.cls_token[None].expand(2, grid.slots, -1, -1), embedded], dim=2) + model.pos_embed
    with torch.inference_mode():
        found, _ = model._by_parts(own, method.attach(model))
        expected = torch.stack([naive.classes(model, view, rule(method), variant(method)) for view in embedded])
    close(found, expected, 1e-11)
