"""Train STTS (ECCV 2022; not the 2026 method of the same name): scorers, and the backbone with them if the recipe says.

Selections are soft while training: averages over perturbed scores, through which the loss reaches the scorers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vpbench.api import ClipBatch, GridBackbone
from vpbench.api.backbone import classifier
from vpbench.backbones import loading
from vpbench.backbones.checkpoints import files
from vpbench.commands.train.clips import Source
from vpbench.commands.train.recipes import Recipe
from vpbench.errors import UsageError, VpbenchError
from vpbench.methods.stts import Stts, SttsPruner
from vpbench.progress import say


@dataclass(frozen=True)
class Job:
    """One training run: what is trained, on what, where it is kept. `steps`: optimiser steps (None: all epochs)."""

    backbone: str
    weights: str
    method: Stts
    recipe: Recipe
    out: Path
    device: str = "cpu"
    steps: int | None = None
    save_every: int = 100


@dataclass
class State:
    """Everything that goes on from one optimiser step to the next; saved, so that a killed run resumes."""

    model: GridBackbone
    pruner: SttsPruner
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: Path, job: str) -> None:
        """Write a checkpoint, whole or not at all; `job` says whose it is."""
        content = {
            "job": job,
            "model": self.model.state_dict(),
            "scorers": self.pruner.scorers.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "log": json.dumps(self.log),
            "random": torch.get_rng_state(),
        }
        temporary = path.with_suffix(".tmp")
        try:
            torch.save(content, temporary)
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            raise VpbenchError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error

    def load(self, path: Path, job: str) -> None:
        """Continue from a checkpoint; raises UsageError if it is another run's, or cannot be read."""
        try:
            content = torch.load(path, weights_only=True, map_location="cpu")
            if content["job"] != job:
                raise UsageError(f"{path} belongs to a run with other settings; give another --out")
            self.model.load_state_dict(content["model"])
            self.pruner.scorers.load_state_dict(content["scorers"])
            self.optimizer.load_state_dict(content["optimizer"])
        except UsageError:
            raise
        except Exception as error:  # whatever a file that is not ours makes the loader raise
            raise UsageError(f"{path} is no checkpoint of this training; remove it or give another --out") from error
        self.step, self.seconds, self.log = content["step"], content["seconds"], json.loads(content["log"])
        torch.set_rng_state(content["random"])


def train(job: Job, source: Source, model: GridBackbone, command: str) -> Path:
    """Run the recipe on `source`, resuming from `out/checkpoint.pt` if it is there; returns the safetensors file.

    The file holds backbone and scorers, and `--weights` loads it. `command` is what made it, for the record beside it.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    recipe, checkpoint, mine = job.recipe, job.out / "checkpoint.pt", describe(job)
    state = start(job, model)
    if checkpoint.exists():
        state.load(checkpoint, mine)
        say(f"resuming at step {state.step}")
    per_epoch = max(source.per_epoch // recipe.accumulate, 1)
    total = job.steps or round(recipe.epochs * per_epoch)
    # a run of fewer steps than the recipe's goes through the whole schedule in them
    scale = recipe.epochs / total
    began, losses = time.monotonic() - state.seconds, []
    try:
        while state.step < total:
            losses.append(step(job, state, source, state.step * scale, state.step / total))
            state.step += 1
            if state.step % job.save_every == 0 or state.step == total:
                state.seconds = time.monotonic() - began
                state.log.append(_entry(state, recipe, scale, losses))
                say(json.dumps(state.log[-1]))
                losses = []
                state.save(checkpoint, mine)
    except KeyboardInterrupt:
        state.seconds = time.monotonic() - began
        state.save(checkpoint, mine)
        say(f"stopped at step {state.step} of {total}; the same command goes on from there")
        raise
    return write(job, state, command)


def load(job: Job) -> GridBackbone:
    """Build the backbone in training mode with the recipe's drop-path and dropout; raises UsageError if it cannot."""
    built = loading.build(job.backbone, job.weights, job.recipe.seed)
    if not isinstance(built, GridBackbone):
        raise UsageError(f"{job.backbone} has no grid of tokens; stts trains on mvit and videoswin backbones")
    torch.manual_seed(job.recipe.seed)
    model = classifier(job.backbone, replace(built.config, drop_path=job.recipe.drop_path, dropout=job.recipe.dropout))
    assert isinstance(model, GridBackbone)
    model.load_state_dict(built.state_dict())
    model.addons = built.addons
    return model.train().to(job.device)


def start(job: Job, model: GridBackbone) -> State:
    """Attach scorers (the checkpoint's, or new ones) and make the optimiser; raises UsageError if they misfit."""
    if reason := job.method.supports(model):
        raise UsageError(f"stts cannot be trained so: {reason}")
    pruner = SttsPruner(job.method, model)
    pruner.scorers.requires_grad_(True)
    model.requires_grad_(job.recipe.backbone_lr > 0)
    return State(model, pruner, torch.optim.AdamW(list(groups(model, pruner, job.recipe)), lr=0.0, eps=1e-8))


def groups(model: GridBackbone, pruner: SttsPruner, recipe: Recipe) -> Iterator[dict[str, Any]]:
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


def step(job: Job, state: State, source: Source, epoch: float, done: float) -> float:
    """Take one optimiser step over `accumulate` batches; returns the mean loss."""
    recipe, total = job.recipe, 0.0
    for group in state.optimizer.param_groups:
        group["lr"] = recipe.scorer_rate(epoch) if group["part"] == "scorers" else recipe.backbone_rate(epoch)
    state.optimizer.zero_grad()
    state.pruner.sigma = recipe.noise(done)
    for part in range(recipe.accumulate):
        number = state.step * recipe.accumulate + part
        pixels, target = source.batch(number)
        torch.manual_seed(recipe.seed + number)  # of the noise and the dropped branches, whenever a run is resumed
        loss = loss_of(state, pixels.to(job.device), target.to(job.device), recipe.bf16) / recipe.accumulate
        loss.backward()
        total += float(loss.detach())
    trained = [p for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None]
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
    state.optimizer.step()
    return total


def loss_of(state: State, pixels: Tensor, target: Tensor, bf16: bool) -> Tensor:
    """Cross-entropy with probabilities `[B, classes]` as targets, under soft selection."""
    with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=bf16):
        logits = state.model(ClipBatch(pixels, ("",) * len(pixels)), state.pruner).logits
    return -(target * logits.float().log_softmax(-1)).sum(-1).mean()


def _entry(state: State, recipe: Recipe, scale: float, losses: list[float]) -> dict[str, Any]:
    epoch = (state.step - 1) * scale
    return {
        "step": state.step,
        "epoch": round(epoch, 3),
        "seconds": round(state.seconds),
        "loss": round(sum(losses) / len(losses), 4),
        "scorer_lr": recipe.scorer_rate(epoch),
        "backbone_lr": recipe.backbone_rate(epoch),
        "sigma": round(float(state.pruner.sigma or 0.0), 5),
    }


def describe(job: Job) -> str:
    """Return what makes two runs the same, as text."""
    weights = loading.weights_digest(job.backbone, job.weights)
    said = {"backbone": job.backbone, "weights_sha256": weights, "steps": job.steps, "method": asdict(job.method)}
    return json.dumps(said | {"recipe": asdict(job.recipe)})


def write(job: Job, state: State, command: str) -> Path:
    """Write backbone and scorers as safetensors (half precision), and beside it log and record."""
    path = job.out / f"{job.backbone}.safetensors"
    tensors = dict(state.model.state_dict()) | dict(state.pruner.published_parameters())
    halves = {name: tensor.detach().half().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(halves, path, metadata={"format": "vpbench", "stts": describe(job)})
        (job.out / f"{job.backbone}.stts.log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in state.log))
        record = {
            "command": command,
            **json.loads(describe(job)),
            "steps": state.step,
            "seconds": round(state.seconds),
            "torch": torch.__version__,
            "sha256": files.digest(path),
        }
        (job.out / f"{job.backbone}.stts.json").write_text(json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise VpbenchError(f"{path} cannot be written: {error.strerror}") from error
    return path
