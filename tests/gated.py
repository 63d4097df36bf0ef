"""Networks and videos that Eventful Transformers are tried on, and the forms of the method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import naive_eventful as naive
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

#: windows that do not tile the grid, and tables of another size than it
SIZES = {
    "padded windows": DETECTOR,
    "resized tables": replace(DETECTOR, side=80, window=4, positions=7, global_table=12, heads=1),
}


#: a few steps
VIEWS = replace(STEPS, frames=8)


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


def views(model: ViViT, count: int, seed: int) -> Tensor:
    """Patches `[count, steps, N, D]` of views, likewise."""
    draw, grid = torch.Generator().manual_seed(seed), model.grid
    first = torch.randn(count, 1, grid.per_slot, model.config.dim, generator=draw)
    speed = torch.rand(count, 1, grid.per_slot, 1, generator=draw) ** 3
    steps = torch.randn(count, grid.slots, grid.per_slot, model.config.dim, generator=draw) * speed
    return (first + steps.cumsum(1)).to(model.pos_embed.dtype)


def follow(model: ViTDet, pruner: Pruner, embedded: Tensor) -> Tensor:
    """Outputs `[T, B, N, D]` of the frames of B segments `[T, B, N, D]`; the pruner goes on where it was."""
    found = []
    with torch.inference_mode():
        for frame in embedded:
            found.append(model.run_parts(frame, pruner).output)
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
