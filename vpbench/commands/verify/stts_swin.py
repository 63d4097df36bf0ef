"""Cases of STTS (ECCV 2022) on VideoSwin, in evaluation."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor, nn

from vpbench.api import ClipBatch
from vpbench.backbones.checkpoints.reading import load_strictly
from vpbench.backbones.videoswin import VideoSwinConfig, layouts
from vpbench.backbones.videoswin.network import VideoSwin
from vpbench.commands.verify.case import Case, read
from vpbench.commands.verify.stts_mvit import Selections
from vpbench.commands.verify.videomae import removing
from vpbench.methods.stts import SttsPruner
from vpbench.tasks.attach import attached

Triple = tuple[PositiveInt, PositiveInt, PositiveInt]


class Architecture(BaseModel):
    """Sizes of the model, as `case.json` names them; what is always the same is checked to be so."""

    num_frames: PositiveInt
    image_size: PositiveInt
    patch_size: Triple
    embed_dim: PositiveInt
    depths: tuple[PositiveInt, ...] = Field(min_length=1)
    num_heads: tuple[PositiveInt, ...] = Field(min_length=1)
    window_size: Triple
    mlp_ratio: float = Field(gt=0, allow_inf_nan=False)
    qkv_bias: Literal[True]
    patch_norm: Literal[True]
    norm_eps: float
    num_classes: PositiveInt

    def config(self) -> VideoSwinConfig:
        """Return the backbone's configuration."""
        return VideoSwinConfig(
            dim=self.embed_dim,
            depths=self.depths,
            heads=self.num_heads,
            frames=self.num_frames,
            height=self.image_size,
            width=self.image_size,
            patch=self.patch_size,
            window=self.window_size,
            mlp_ratio=self.mlp_ratio,
            classes=self.num_classes,
            eps=self.norm_eps,
        )


class Settings(BaseModel):
    """What of `case.json` is read."""

    arch: Architecture
    method_config: Selections
    mode: Literal["eval"]


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold; raises UsageError for settings that cannot run."""
    settings = case.parse(Settings)
    model, pruner = build(case, settings)
    clip = case.given("clip", torch.float16, (None, 3, None, None, None)).float().permute(0, 2, 3, 4, 1).contiguous()
    found: dict[str, Tensor] = {}
    grids: list[list[int]] = []

    def after_stage(number: int) -> Any:
        def note(stage: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
            grids.append(list(inputs[0].shape[1:4]))
            found[f"stage.{number}.frame_mean"] = out.mean(dim=(2, 3)).transpose(1, 2)

        return note

    hooks = [stage.register_forward_hook(after_stage(n)) for n, stage in enumerate(model.layers)]
    hooks.append(model.dropout.register_forward_hook(lambda module, inputs, out: found.__setitem__("pooled", out)))
    with removing(hooks), torch.inference_mode():
        out = model(ClipBatch(clip, tuple(map(str, range(len(clip))))), pruner)
    found |= {"logits": out.logits, "dhw_per_stage": torch.tensor(grids)}
    return found | (pruner.record or {})


def build(case: Case, settings: Settings) -> tuple[VideoSwin, SttsPruner]:
    """Build the model and the method with the case's weights; raises UsageError if they do not fit."""
    file = case.folder / "weights.safetensors"
    model = VideoSwin(settings.arch.config()).eval()
    found = layouts.recognise(read(file, finite=True), str(file))
    load_strictly(model, found.tensors, str(file))
    model.addons = found.scorers
    pruner = attached(settings.method_config.method(), model, case.wrong)
    assert isinstance(pruner, SttsPruner)
    if pruner.caveat:
        raise case.wrong("weights.safetensors holds no scorers for these selections")
    pruner.record = {}
    return model, pruner
