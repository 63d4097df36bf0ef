"""Cases of RGTP (ICIP 2025) on ViViT: views of raw videos, every step's scores, sets and heat maps, and predictions."""

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt
from torch import Tensor

from vpbench.api import DENSE, ClipBatch, Pruner
from vpbench.backbones.checkpoints.reading import load_strictly
from vpbench.backbones.vivit import ViViTConfig, layouts
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.verify.case import Case, Sizes, read
from vpbench.commands.verify.compare import SETS, Check, Rule
from vpbench.commands.verify.videomae import removing
from vpbench.data.protocols.shape import Shape
from vpbench.data.protocols.spatial import Antialiased
from vpbench.data.protocols.temporal import Windows
from vpbench.methods.rgtp import Rgtp
from vpbench.tasks.attach import attached

#: tensors that are compared within the tolerance of heat maps, and those that are sets of positions
HEAT = ("heatmap", "selection_score")
INTEGERS = ("num_kept", "cluster_map")


class Architecture(Sizes):
    """Sizes of the model, as `case.json` names them; what is always the same is checked to be so."""

    classes: PositiveInt
    input_shape_tchw: tuple[PositiveInt, Literal[3], PositiveInt, PositiveInt]
    tubelet_shape_thw: tuple[PositiveInt, PositiveInt, PositiveInt]
    dim: PositiveInt
    heads: PositiveInt
    mlp_ratio: float = Field(gt=0, allow_inf_nan=False)
    depth: PositiveInt = Field(alias="spatial_depth")
    positions: tuple[PositiveInt, PositiveInt] = Field(alias="spatial_position_encoding_grid")
    temporal_depth: PositiveInt
    temporal_position_encoding_len: PositiveInt
    eps: float = Field(gt=0, allow_inf_nan=False, alias="layer_norm_eps")
    qkv_bias: Literal[True]
    gelu: Literal["erf"]

    def config(self) -> ViViTConfig:
        """Return the backbone's configuration."""
        frames, _, height, width = self.input_shape_tchw
        tubelet, patch, _ = self.tubelet_shape_thw
        return self.into(ViViTConfig, frames=frames, height=height, width=width, tubelet=tubelet, patch=patch)


class Preprocessing(BaseModel):
    """How views are cut out of a video."""

    mean: float
    std: float = Field(gt=0)
    temporal_stride: PositiveInt
    temporal_views: PositiveInt
    spatial_views: PositiveInt


class MethodConfig(Sizes):
    """The method's parameters, as `case.json` names them."""

    reset: NonNegativeInt = Field(alias="reset_period")
    pattern: str = Field(alias="reset_pattern")
    keep_ratio: float
    fg_ratio: float = Field(alias="fg_sample_ratio")
    bg_ratio: float = Field(alias="bg_sample_ratio")
    radius: NonNegativeInt = Field(alias="track_radius")
    head_fusion: Literal["root_mean_square"]

    def method(self) -> Rgtp:
        """Return our method with these parameters."""
        return self.into(Rgtp)


class Settings(BaseModel):
    """What of `case.json` is read."""

    architecture: Architecture
    preprocessing: Preprocessing
    method_config: MethodConfig


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold; raises UsageError for settings that cannot run."""
    settings = case.parse(Settings)
    model, videos = build(case, settings.architecture), case.given("video", torch.uint8, (None, None, 3, None, None))
    pruner = attached(settings.method_config.method(), model, case.wrong)
    views = torch.cat([prepared(video, model.config, settings.preprocessing) for video in videos])
    pruner.record = {}
    found = forward(model, views, pruner, len(videos))
    found |= {f"dense_{name}": tensor for name, tensor in forward(model, views, DENSE, len(videos)).items()}
    found |= {"view_first_frame": _frame(views, 0), "view_last_frame": _frame(views, -1)}
    found["patch_embed"] = found.pop("dense_patch_embed")
    # where all are kept there is nothing to choose, and no heat map is made
    if "step0.heat" not in pruner.record:
        return found | {"num_kept": torch.full((model.grid.slots,), model.grid.per_slot)}
    return found | _steps(model, pruner.record, len(views))


def prepared(video: Tensor, config: ViViTConfig, cut: Preprocessing) -> Tensor:
    """Return normalised views `[V, T, height, width, 3]` of a video, uint8 `[F, 3, H, W]`; spatial views outermost."""
    temporal, spatial = Windows(cut.temporal_views), Antialiased(cut.spatial_views)
    shape = Shape(config.frames, config.height, config.width, cut.temporal_stride)
    times = temporal.indices(len(video), None, shape, "")
    frames = video.permute(0, 2, 3, 1).contiguous().numpy()
    crops = spatial.crops(spatial.resized(frames, shape.height, shape.width), shape.height, shape.width)
    views = torch.from_numpy(np.stack([crop[numbers] for crop in crops for numbers in times]))
    return (views.float() / 255 - cut.mean) / cut.std


def build(case: Case, architecture: Architecture) -> ViViT:
    """Build the model with the case's weights; raises UsageError if they do not fit."""
    file = case.folder / "weights.safetensors"
    with torch.random.fork_rng(devices=[]):
        model = ViViT(architecture.config())
    tensors = dict(layouts.recognise(read(file, finite=True), str(file)).tensors)
    # of two heads, which are read as one, cases hold the outputs of the first
    tensors |= {name: tensors[name][: model.config.classes] for name in ("head.weight", "head.bias") if name in tensors}
    load_strictly(model, tensors, str(file))
    return model.eval().requires_grad_(False)


def forward(model: ViViT, views: Tensor, pruner: Pruner, videos: int) -> dict[str, Tensor]:
    """Run the backbone's own forward, and average the views of each video."""
    found: dict[str, Tensor] = {}

    def classes(steps: Tensor) -> Tensor:
        found["spatial_cls"] = steps
        return ViViT.classify(model, steps)

    hook = model.patch_embed.register_forward_hook(lambda module, inputs, out: found.__setitem__("patch_embed", out))
    model.classify = classes  # type: ignore[method-assign]
    try:
        with removing([hook]), torch.inference_mode():
            out = model(ClipBatch(views, tuple(map(str, range(len(views))))), pruner)
    finally:
        del model.classify
    found["patch_embed"] = found["patch_embed"].view(len(views), model.grid.slots, model.grid.per_slot, -1)
    logits = out.logits.view(videos, -1, out.logits.shape[1]).mean(dim=1)
    return found | {"view_logits": out.logits, "logits": logits, "probs": logits.softmax(-1)}


def _frame(views: Tensor, number: int) -> Tensor:
    return views[:, number].permute(0, 3, 1, 2)


def _steps(model: ViViT, record: dict[str, Tensor], views: int) -> dict[str, Tensor]:
    """Collect what the pruner wrote down at each step into tensors over all steps."""
    steps, count = range(model.grid.slots), model.grid.per_slot
    kept = [record[f"step{step}.kept"] for step in steps]
    most = max(each.shape[1] for each in kept)
    blank = torch.zeros(views, count)
    return {
        "kept": torch.stack([torch.nn.functional.pad(k, (0, most - k.shape[1]), value=-1) for k in kept], dim=1),
        "num_kept": torch.tensor([each.shape[1] for each in kept]),
        "cluster_map": torch.stack([record[f"step{step}.cluster"] for step in steps], dim=1),
        "heatmap": torch.stack([record[f"step{step}.heat"] for step in steps], dim=1),
        "selection_score": torch.stack([record.get(f"step{step}.score", blank) for step in steps], dim=1),
    }


def checks(case: Case, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Say how each tensor is compared."""
    near, heat = Rule(case.tolerance("atol"), case.tolerance("rtol")), Rule(case.tolerance("heatmap_atol"))
    rules = dict.fromkeys(HEAT, heat) | {"kept": SETS} | dict.fromkeys(INTEGERS, Rule())
    return {name: Check(tensor, rules.get(name, near)) for name, tensor in ours.items()}
