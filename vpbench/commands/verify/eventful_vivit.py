"""Cases of Eventful Transformers (ICCV 2023) on ViViT: every gate's tokens of every step, predictions, and counts."""

from collections import Counter
from typing import Literal

import torch
from pydantic import BaseModel
from torch import Tensor

from vpbench.api import DENSE, UsageError
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.verify import eventful_vitdet
from vpbench.commands.verify.case import Case
from vpbench.commands.verify.compare import SETS, Check, Rule
from vpbench.commands.verify.rgtp_vivit import Architecture, Preprocessing, build, forward, prepared
from vpbench.tasks.attach import attached


class StepMethod(eventful_vitdet.Method):
    """The method's parameters on an encoder that takes steps."""

    level: Literal["full", "scores", "tokenwise"]


class Settings(BaseModel):
    """What of `case.json` is read."""

    architecture: Architecture
    preprocessing: Preprocessing
    method_config: StepMethod


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold; raises UsageError for settings that cannot run."""
    settings = case.parse(Settings)
    model, videos = build(case, settings.architecture), case.given("video", torch.uint8, (None, None, 3, None, None))
    pruner = attached(settings.method_config.method(settings.method_config.level), model, case.wrong)
    views = torch.cat([prepared(video, model.config, settings.preprocessing) for video in videos])
    pruner.record = {}
    found = forward(model, views, pruner, len(videos))
    found |= {f"dense_{name}": tensor for name, tensor in forward(model, views, DENSE, len(videos)).items()}
    del found["dense_patch_embed"]
    steps = [f"step{step}." for step in range(model.grid.slots)]
    packed = [eventful_vitdet.sets(pruner.record, prefix, model.depth) for prefix in steps]
    apart = [[_of(own, view, len(views)) for own in step] for view in range(len(views)) for step in packed]
    found["selected"] = eventful_vitdet.filled(apart).unflatten(0, (len(views), -1))
    return found | _operations(model, eventful_vitdet.counts([pruner.record], model.depth, steps), len(views))


def _of(packed: Tensor | None, view: int, views: int) -> Tensor | None:
    """Return what of a packed set is one view's; all have as many."""
    if packed is None:
        return None
    if len(packed) % views:
        raise UsageError("cases in which a threshold decides hold one view: what is packed is not told apart")
    return packed.view(views, -1)[view]


def _operations(model: ViViT, blocks: Counter[str], views: int) -> dict[str, Tensor]:
    """Return operations by kind of all views: gated blocks in space and the rest, and all of it dense."""
    slots, tokens, width = model.grid.slots, model.grid.per_slot + 1, model.config.dim
    rest = Counter({"add": (slots * tokens + slots + 1) * width})  # positions
    rest += Counter({"linear": width * model.config.classes, "bias": model.config.classes})
    rest += eventful_vitdet.dense(model.temporal_blocks, slots + 1, width)
    dense = rest + Counter({kind: slots * n for kind, n in eventful_vitdet.dense(model.blocks, tokens, width).items()})
    ours = Counter({kind: views * n for kind, n in rest.items()}) + blocks
    return {f"op_counts.eventful.{kind}": torch.tensor(n) for kind, n in ours.items()} | {
        f"op_counts.dense.{kind}": torch.tensor(views * n) for kind, n in dense.items()
    }


def checks(case: Case, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Sets and counts exactly, everything else within the case's tolerance."""
    near = Rule(case.tolerance("atol"), case.tolerance("rtol"))
    found = {
        name: Check(tensor, SETS if name == "selected" else near) for name, tensor in ours.items() if "." not in name
    }
    listed = case.settings.get("op_counts")
    named = {"op_counts." + kind: listed.get(kind, {}) for kind in ("eventful", "dense")} if listed else {}
    return found | eventful_vitdet.counted(ours, named)
