"""Cases of STTS (ECCV 2022) on MViT: evaluation, one training step, and the perturbed top-k alone."""

from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, PositiveInt
from torch import Tensor, nn

from vpbench.api import Backbone, ClipBatch, Grid
from vpbench.backbones.checkpoints.names import SCORERS
from vpbench.backbones.checkpoints.reading import load_strictly
from vpbench.backbones.mvit import MViTConfig
from vpbench.backbones.mvit.network import MViT
from vpbench.commands.verify.case import Case, Sizes, read
from vpbench.commands.verify.compare import EXACT, Check, Rule
from vpbench.commands.verify.videomae import removing
from vpbench.methods.stts import Stts, SttsPruner, perturbed_topk
from vpbench.tasks.attach import attached

Triple = tuple[PositiveInt, PositiveInt, PositiveInt]


class Architecture(Sizes):
    """Sizes of the model, as `case.json` names them; what is always the same is checked to be so."""

    depth: PositiveInt
    dim: PositiveInt = Field(alias="embed_dim")
    heads: PositiveInt = Field(alias="num_heads")
    mlp_ratio: float = Field(gt=0, allow_inf_nan=False)
    qkv_bias: Literal[True]
    frames: PositiveInt = Field(alias="num_frames")
    crop_size: PositiveInt
    classes: PositiveInt = Field(alias="num_classes")
    patch_kernel: Triple
    patch_stride: Triple
    patch_padding: tuple[int, int, int]
    dim_mul: tuple[tuple[int, float], ...]
    head_mul: tuple[tuple[int, float], ...]
    pool_kernel: Triple = Field(alias="pool_kvq_kernel")
    pool_q_stride: tuple[tuple[int, int, int, int], ...]
    pool_kv_stride_adaptive: Triple
    eps: float = Field(alias="norm_eps")
    pool_eps: float = Field(alias="pool_norm_eps")
    scorer_norm_eps: float = Field(ge=1e-5, le=1e-5)
    cls_token: Literal[True]
    sep_pos_embed: Literal[True]
    drop_path: Literal[0] = 0
    head_dropout: Literal[0] = 0

    def config(self) -> MViTConfig:
        """Return the backbone's configuration."""
        return self.into(MViTConfig, height=self.crop_size, width=self.crop_size)


class Selections(BaseModel):
    """Which slices and windows are selected, before which blocks."""

    time_loc: list[int]
    time_ratio: list[float]
    space_loc: list[int]
    space_ratio: list[float]
    time_score: Literal["tpool"]
    space_score: Literal["spatch"]
    sigma: float | None = None

    def method(self) -> Stts:
        """Return our method with these selections."""
        return Stts(time=_listed(self.time_loc, self.time_ratio), space=_listed(self.space_loc, self.space_ratio))


class Settings(BaseModel):
    """What of `case.json` is read, for a model."""

    arch: Architecture
    method_config: Selections
    mode: Literal["eval", "train"]


class Operator(BaseModel):
    """What of `case.json` is read, for the perturbed top-k alone."""

    k: PositiveInt
    sigma: float = Field(ge=0, allow_inf_nan=False)
    num_samples: PositiveInt


def run_operator(case: Case) -> dict[str, Tensor]:
    """Compute the indicators of the perturbed top-k for given noise, and the gradient of the scores."""
    settings = case.parse(Operator)
    scores = case.given("scores", torch.float32, (None, None)).clone().requires_grad_()
    noise = case.given("noise", torch.float32, (len(scores), settings.num_samples, scores.shape[1]))
    gradient = case.given("grad_output", torch.float32, (len(scores), settings.k, scores.shape[1]))
    indicators = perturbed_topk(scores, noise, settings.k, settings.sigma)
    [slope] = torch.autograd.grad(indicators, scores, gradient)
    return {"indicators": indicators.detach(), "grad_scores": slope}


def run(case: Case) -> dict[str, Tensor]:
    """Compute every tensor that such a case may hold; raises UsageError for settings that cannot run."""
    settings = case.parse(Settings)
    model, pruner = build(case, settings)
    if settings.mode == "train":
        return trained(case, settings, model, pruner)
    found: dict[str, Tensor] = {}
    grids: list[Grid] = []

    def after_block(number: int) -> Any:
        def note(block: nn.Module, inputs: tuple[Any, ...], out: tuple[Tensor, Grid]) -> None:
            grids.append(inputs[1])
            found[f"block.{number}.cls"] = out[0][:, 0]

        return note

    hooks = [block.register_forward_hook(after_block(n)) for n, block in enumerate(model.blocks)]
    hooks.append(model.norm.register_forward_hook(lambda norm, inputs, out: found.__setitem__("final_cls", out)))
    with removing(hooks), torch.inference_mode():
        out = model(given_clips(case), pruner)
    found |= {"logits": out.logits, "probs": out.logits.softmax(-1)}
    found["tokens_per_block"] = torch.tensor([c.attention[0] for c in out.counts])
    found["thw_per_block"] = torch.tensor([[g.slots, g.rows, g.cols] for g in grids])
    return found | (pruner.record or {})


def build(case: Case, settings: Settings) -> tuple[MViT, SttsPruner]:
    """Build the model and the method with the case's weights; raises UsageError if they do not fit."""
    model = MViT(settings.arch.config()).eval()
    weights = {k: v.float() for k, v in read(case.folder / "weights.safetensors", finite=True).items()}
    model.addons = {k: weights.pop(k) for k in list(weights) if k.startswith(SCORERS)}
    load_strictly(model, weights, str(case.folder / "weights.safetensors"))
    return model, attach(case, settings.method_config, model)


def attach(case: Case, selections: Selections, model: Backbone) -> SttsPruner:
    """Attach the method, and have it write down intermediate values; raises UsageError where scorers are missing."""
    pruner = attached(selections.method(), model, case.wrong)
    assert isinstance(pruner, SttsPruner)
    if pruner.caveat:
        raise case.wrong("weights.safetensors holds no scorers for these selections")
    pruner.record = {}
    return pruner


def given_clips(case: Case) -> ClipBatch:
    """Return the input `clip` (float16 `[B, 3, T, H, W]`) as a batch; raises UsageError if it is not."""
    clip = case.given("clip", torch.float16, (None, 3, None, None, None)).float().permute(0, 2, 3, 4, 1).contiguous()
    return ClipBatch(clip, tuple(map(str, range(len(clip)))))


def trained(case: Case, settings: Settings, model: MViT, pruner: SttsPruner) -> dict[str, Tensor]:
    """Run one training step with the given noise: logits, indicators, loss and all gradients."""
    batch = given_clips(case)
    target = case.given("target", torch.float32, (len(batch.ids), settings.arch.classes))
    pruner.sigma = settings.method_config.sigma
    pruner.noise = {k.removeprefix("noise."): v for k, v in case.inputs.items() if k.startswith("noise.")}
    pruner.scorers.requires_grad_(True)
    logits = model(batch, pruner).logits
    loss = -(target * logits.log_softmax(-1)).sum(-1).mean()
    names = dict(model.named_parameters()) | dict(pruner.published_parameters())
    slopes = torch.autograd.grad(loss, list(names.values()))
    notes = {name: value.detach() for name, value in (pruner.record or {}).items()}
    grads = {f"grad.{name}": slope for name, slope in zip(names, slopes, strict=True)}
    return notes | grads | {"logits": logits.detach(), "loss": loss.detach()}


def checks(case: Case, ours: dict[str, Tensor]) -> dict[str, Check]:
    """Indices and counts exactly, gradients against the largest of each tensor, all else within the tolerance."""
    return {name: Check(tensor, _rule(case, name, tensor)) for name, tensor in ours.items()}


def _rule(case: Case, name: str, tensor: Tensor) -> Rule:
    if not tensor.is_floating_point():
        return EXACT
    if name.startswith("grad."):
        scale = torch.full_like(tensor, float(case.expected.get(name, tensor).abs().max()))
        return Rule(rtol=case.tolerance("grad_rtol_of_max"), scale=scale, of="the largest")
    return Rule(atol=case.tolerance("atol"), rtol=case.tolerance("rtol"))


def _listed(blocks: list[int], ratios: list[float]) -> str:
    return "/".join(f"{block}:{float(ratio)!r}" for block, ratio in zip(blocks, ratios, strict=True))
