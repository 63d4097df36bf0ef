"""Train STTS (ECCV 2022; not the 2026 method of the same name): scorers, and the backbone with them if the recipe says.

Selections are soft while training: averages over perturbed scores, through which the loss reaches the scorers.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpbench.api import ClipBatch, GridBackbone
from vpbench.api.backbone import classifier
from vpbench.backbones import loading
from vpbench.commands.train import loop
from vpbench.commands.train.clips import Source
from vpbench.commands.train.engine import Losses
from vpbench.commands.train.loop import Batch, Entry, Job, Outcome, State, Training
from vpbench.commands.train.stts_recipes import STTSRecipe
from vpbench.errors import UsageError
from vpbench.methods.stts import Stts, SttsPruner


def train(job: Job[Stts, STTSRecipe], source: Source, model: GridBackbone, command: str) -> Path:
    """Run the recipe on `source`, resuming from `job.out` if it was begun there; returns the safetensors file.

    The file holds backbone and scorers, and `--weights` loads it. See `loop.run`.
    """
    return loop.run(STTSTraining(job, source, model), command)


class STTSTraining(Training[Stts, STTSRecipe, GridBackbone]):
    """Training of scorers; a run of fewer steps than the recipe's goes through the whole schedule in them."""

    suffixes = ("", ".stts")
    shared = True

    def __init__(self, job: Job[Stts, STTSRecipe], source: Source, model: GridBackbone) -> None:
        """Attach scorers (the checkpoint's, or new ones) and make the optimiser; raises UsageError if they misfit."""
        if reason := job.method.supports(model):
            raise UsageError(f"stts cannot be trained so: {reason}")
        self.source, self.pruner = source, SttsPruner(job.method, model)
        self.pruner.scorers.requires_grad_(True)
        model.requires_grad_(job.recipe.backbone_lr > 0)
        optimizer = torch.optim.AdamW(list(groups(model, self.pruner, job.recipe)), lr=0.0, betas=job.recipe.betas)
        total = job.steps or round(job.recipe.epochs * max(source.per_epoch // job.recipe.accumulate, 1))
        super().__init__(job, State(model, self.pruner.scorers, [optimizer]), total, source.name)

    def epoch(self, number: int) -> float:
        """Return where in the recipe's schedule a step is."""
        return number * (self.job.recipe.epochs / self.steps)

    def batch(self, number: int) -> Batch:
        """Return clips and the probabilities of their classes."""
        return self.source.batch(number)

    def losses(self, *given: Tensor) -> Losses:
        """Return the cross-entropy under soft selection."""
        pixels, target = given
        self.pruner.sigma = self.job.recipe.noise(self.state.step / self.steps)
        return {"loss": loss_of(self.state.model, self.pruner, pixels, target)}

    def rate(self, group: Mapping[str, Any]) -> float:
        """Return the rate of scorers, or of the backbone."""
        recipe = self.job.recipe
        rate = recipe.scorer_rate if group["part"] == "scorers" else recipe.backbone_rate
        return rate(self.epoch(self.state.step))

    def clipped(self) -> list[nn.Parameter]:
        """Return what is trained, as it lies in the optimiser."""
        [optimizer] = self.state.optimizers
        return [p for group in optimizer.param_groups for p in group["params"]]

    def entry(self, losses: dict[str, float]) -> Entry:
        """Return the loss, and where rates and noise are."""
        recipe, epoch = self.job.recipe, self.epoch(self.state.step - 1)
        return {
            "step": self.state.step,
            "epoch": round(epoch, 3),
            "seconds": round(self.state.seconds),
            "loss": round(losses["loss"], 4),
            "scorer_lr": recipe.scorer_rate(epoch),
            "backbone_lr": recipe.backbone_rate(epoch),
            "sigma": round(float(self.pruner.sigma or 0.0), 5),
        }

    def outcome(self) -> Outcome:
        """Return backbone and scorers in half precision."""
        job, state = self.job, self.state
        tensors = dict(state.model.state_dict()) | dict(self.pruner.published_parameters())
        halves = {name: tensor.detach().half().cpu().contiguous() for name, tensor in tensors.items()}
        facts: Entry = {"backbone": job.backbone, "weights_sha256": job.weights_sha256, "steps": job.steps}
        facts |= {"method": asdict(job.method), "recipe": asdict(job.recipe)}
        metadata = {"format": "vpbench", "stts": json.dumps(facts)}
        return Outcome(halves, metadata, facts | {"steps": state.step, "seconds": round(state.seconds)}, {})


def load(job: Job[Stts, STTSRecipe]) -> GridBackbone:
    """Build the backbone in training mode with the recipe's drop-path and dropout; raises UsageError if it cannot."""
    built = loading.build(job.backbone, job.weights, job.recipe.seed)
    if not isinstance(built, GridBackbone):
        raise UsageError(f"{job.backbone} has no grid of tokens for stts to select from; name one that has")
    torch.manual_seed(job.recipe.seed)
    model = classifier(job.backbone, replace(built.config, drop_path=job.recipe.drop_path, dropout=job.recipe.dropout))
    assert isinstance(model, GridBackbone)
    model.load_state_dict(built.state_dict())
    model.addons = built.addons
    return model.train().to(job.device)


def groups(model: GridBackbone, pruner: SttsPruner, recipe: STTSRecipe) -> Iterator[dict[str, Any]]:
    """Yield the optimiser's parameter groups, each `part` of "scorers" or "backbone", vectors apart from matrices."""
    tables = ("pos_embed", "bias_table", "cls_token")
    for part, named in (("scorers", pruner.scorers.named_parameters()), ("backbone", model.named_parameters())):
        pairs = [(n, p) for n, p in named if p.requires_grad]
        spared = {n for n, p in pairs if p.ndim == 1 or any(table in n for table in tables)}
        spared = set() if part == "scorers" and recipe.decay_vectors else spared
        for decay, chosen in (
            (recipe.weight_decay, [p for n, p in pairs if n not in spared]),
            (0.0, [p for n, p in pairs if n in spared]),
        ):
            if chosen:
                yield {"params": chosen, "weight_decay": decay, "part": part}


def loss_of(model: GridBackbone, pruner: SttsPruner, pixels: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with probabilities `[B, classes]` as targets, under soft selection."""
    logits = model(ClipBatch(pixels, ("",) * len(pixels)), pruner).logits
    return -(target * logits.float().log_softmax(-1)).sum(-1).mean()
