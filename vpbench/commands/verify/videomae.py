"""What parity cases on VideoMAE share: the model that `case.json` describes, and a forward that keeps its inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import AliasChoices, Field, PositiveInt, model_validator
from torch import Tensor, nn

from vpbench.api import ClipBatch, Method, Output, Pruner, Tokens, UsageError
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.verify.case import Case, Sizes
from vpbench.tasks.attach import attached


class Architecture(Sizes):
    """Sizes of the model, under the names of either form of `case.json`."""

    family: Literal["videomae_vit"] = Field(validation_alias=AliasChoices("family", "kind"))
    img_size: PositiveInt | tuple[PositiveInt, PositiveInt]
    patch: PositiveInt = Field(alias="patch_size")
    tubelet: PositiveInt = Field(alias="tubelet_size")
    frames: PositiveInt = Field(alias="num_frames")
    in_channels: Literal[3] = 3
    dim: PositiveInt = Field(alias="embed_dim")
    depth: PositiveInt
    heads: PositiveInt = Field(alias="num_heads")
    mlp_ratio: float = Field(gt=0, allow_inf_nan=False)
    classes: PositiveInt = Field(alias="num_classes")
    #: true, or a sentence about which of the three have a bias
    qkv_bias: Literal[True] | str = True
    eps: float = Field(gt=0, allow_inf_nan=False, validation_alias=AliasChoices("layer_norm_eps", "norm_eps"))
    activation: Literal["gelu_erf"] = "gelu_erf"
    run_lengths: bool = Field(default=False, alias="use_length_embed")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "Architecture":
        if self.dim % self.heads:
            raise ValueError(f"embed_dim {self.dim} is no multiple of num_heads {self.heads}")
        return self

    def config(self) -> VideoMAEConfig:
        """Return the backbone's configuration."""
        height, width = (self.img_size,) * 2 if isinstance(self.img_size, int) else self.img_size
        return self.into(VideoMAEConfig, height=height, width=width)


@dataclass
class Recording:
    """What one forward computed: tokens entering block 0 and leaving every block, the mean before and after its norm.

    pooled, features: `[B, D]`.
    """

    output: Output = field(init=False)
    entered: Tokens = field(init=False)
    blocks: list[Tokens] = field(default_factory=list)
    pooled: Tensor = field(init=False)
    features: Tensor = field(init=False)

    @property
    def tokens_per_block(self) -> Tensor:
        """Tokens of a clip entering each block, then those pooled: `[depth + 1]`; clips have equal lengths."""
        return torch.tensor([c.attention[0] for c in self.output.counts] + [self.blocks[-1].lengths[0]])


def build(case: Case, architecture: Architecture) -> VideoMAE:
    """Build the model in evaluation mode; raises UsageError if sizes or weights do not fit each other."""
    try:
        with torch.random.fork_rng(devices=[]):
            model = VideoMAE(architecture.config())
    except UsageError as error:
        raise case.wrong(str(error)) from error
    case.load_weights(model)
    return model.eval().requires_grad_(False)


def attach(case: Case, method: Method, model: VideoMAE) -> Pruner:
    """Attach a method as `vpbench run` does, and have it write down intermediate values; raises UsageError alike."""
    pruner = attached(method, model, case.wrong)
    pruner.record = {}
    return pruner


def record(model: VideoMAE, batch: ClipBatch, pruner: Pruner) -> Recording:
    """Run the backbone's own forward and keep what passes through its modules."""
    found = Recording()

    def at_entry(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.entered = inputs[0]

    def after_block(block: nn.Module, inputs: tuple[Any, ...], tokens: Tokens) -> None:
        found.blocks.append(tokens)

    def at_norm(norm: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
        found.pooled, found.features = inputs[0], out

    hooks = [model.blocks[0].register_forward_pre_hook(at_entry), model.fc_norm.register_forward_hook(at_norm)]
    hooks += [block.register_forward_hook(after_block) for block in model.blocks]
    with removing(hooks), torch.inference_mode():
        found.output = model(batch, pruner)
    return found


@contextmanager
def removing(hooks: list[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Remove hooks from their modules at the end."""
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def video_batch(case: Case, config: VideoMAEConfig) -> ClipBatch:
    """Return the input `video` (float32 `[B, 3, T, H, W]`, normalised) as a batch; raises UsageError if it is not."""
    shape = (None, 3, config.frames, config.height, config.width)
    video = case.given("video", torch.float32, shape).permute(0, 2, 3, 4, 1).contiguous()
    return ClipBatch(video, tuple(str(number) for number in range(len(video))))
