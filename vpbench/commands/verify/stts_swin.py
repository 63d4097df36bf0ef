"""Cases of STTS (ECCV 2022) on VideoSwin, in evaluation."""

from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor, nn

from vpbench.backbones.checkpoints.reading import load_strictly
from vpbench.backbones.videoswin import VideoSwinConfig, layouts
from vpbench.backbones.videoswin.network import VideoSwin
from vpbench.commands.verify.case import Case, Sizes, read
from vpbench.commands.verify.stts_mvit import Selections, attach, given_clips
from vpbench.commands.verify.videomae import removing
from vpbench.methods.stts import SttsPruner

Triple = tuple[PositiveInt, PositiveInt, PositiveInt]


class Architecture(Sizes):
    """Sizes of the model, as `case.json` names them; what is always the same is checked to be so."""

    frames: PositiveInt = Field(alias="num_frames")
    image_size: PositiveInt
    patch: Triple = Field(alias="patch_size")
    dim: PositiveInt = Field(alias="embed_dim")
    depths: tuple[PositiveInt, ...] = Field(min_length=1)
    heads: tuple[PositiveInt, ...] = Field(min_length=1, alias="num_heads")
    window: Triple = Field(alias="window_size")
    mlp_ratio: float = Field(gt=0, allow_inf_nan=False)
    qkv_bias: Literal[True]
    patch_norm: Literal[True]
    eps: float = Field(alias="norm_eps")
    classes: PositiveInt = Field(alias="num_classes")

    def config(self) -> VideoSwinConfig:
        """Return the backbone's configuration."""
        return self.into(VideoSwinConfig, height=self.image_size, width=self.image_size)


class Settings(BaseModel):
    """What of `case.json` is read."""

    arch: Architecture
    method_config: Selections
    mode: Literal["eval"]


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold; raises UsageError for settings that cannot run."""
    settings = case.parse(Settings)
    model, pruner = build(case, settings)
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
        out = model(given_clips(case), pruner)
    found |= {"logits": out.logits, "dhw_per_stage": torch.tensor(grids)}
    return found | (pruner.record or {})


def build(case: Case, settings: Settings) -> tuple[VideoSwin, SttsPruner]:
    """Build the model and the method with the case's weights; raises UsageError if they do not fit."""
    file = case.folder / "weights.safetensors"
    model = VideoSwin(settings.arch.config()).eval()
    found = layouts.recognise(read(file, finite=True), str(file))
    load_strictly(model, found.tensors, str(file))
    model.addons = found.scorers
    return model, attach(case, settings.method_config, model)
