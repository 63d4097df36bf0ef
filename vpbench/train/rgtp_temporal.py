"""Fine-tune the temporal encoder of a ViViT on what its pruned spatial encoder gives (RGTP, ICIP 2025).

The spatial encoder stays as it is, so its outputs are computed once (`spatial_cache`) and trained on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from vpbench import checkpoints
from vpbench.api import ClipBatch
from vpbench.backbones.vivit import ViViT
from vpbench.errors import UsageError
from vpbench.methods.rgtp import Rgtp
from vpbench.progress import say
from vpbench.train import spatial_cache
from vpbench.train.spatial_cache import Videos


@dataclass(frozen=True)
class Recipe:
    """Numbers of a run: AdamW at a constant rate, no warm-up, no clipping, shuffled videos, the last epoch kept.

    A video's views are one item; their logits are averaged. `twice`: cross-entropy of the softmax's output, softmax
    taken twice, as the published weights were trained.
    """

    lr: float
    batch: int
    epochs: int
    weight_decay: float = 0.05
    dropout: float = 0.5
    twice: bool = True
    seed: int = 42


RECIPES: dict[str, tuple[Recipe, str]] = {
    "k400": (Recipe(2e-6, 16, 10), "Kinetics-400 as published; about 40 000 training videos, 12 views each"),
    "epic": (Recipe(1e-5, 8, 5), "EPIC-Kitchens-100 verbs as published; the whole training set, 12 views each"),
    "embedded": (Recipe(3e-4, 32, 5, twice=False), "the embedded clips and backbone, one view each"),
}


@dataclass(frozen=True)
class Job:
    """One training run: whose temporal encoder, behind which pruned spatial encoder, where it is kept."""

    backbone: str
    weights: str
    method: Rgtp
    recipe: Recipe
    out: Path
    device: str = "cpu"


def load(job: Job) -> ViViT:
    """Build the backbone; raises UsageError if it has no temporal encoder, or the method cannot run on it."""
    model = checkpoints.build(job.backbone, job.weights, job.recipe.seed)
    if not isinstance(model, ViViT):
        raise UsageError(f"{job.backbone} has no temporal encoder of its own; rgtp-temporal trains vivit backbones")
    if reason := job.method.supports(model):
        raise UsageError(f"rgtp cannot run on {job.backbone}: {reason}")
    return model.eval().requires_grad_(False).to(job.device)


def train(job: Job, model: ViViT, train_on: Videos, test_on: Videos, names: str, command: str) -> Path:
    """Cache the spatial outputs, train on them, and write the whole backbone; returns the safetensors file.

    `names` says which videos these are, for the cache's identity; `command` is what made it, for the record.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    weights = checkpoints.weights_digest(job.backbone, job.weights)
    identity = json.dumps({"weights": weights, "method": asdict(job.method), "videos": names})
    caches = {"train": train_on, "test": test_on}
    for split, videos in caches.items():
        spatial_cache.build(job.out / split, identity, videos, encoder(job, model))
    features, labels = spatial_cache.load(job.out / "train")
    held_out, right = spatial_cache.load(job.out / "test")
    log = [{"epoch": 0, "test_top1": accuracy(model, held_out, right)}]
    say(json.dumps(log[0]))
    optimizer = optimizer_of(model, job.recipe)
    torch.manual_seed(job.recipe.seed)
    began = time.monotonic()
    for epoch in range(job.recipe.epochs):
        losses = [
            step(model, optimizer, job.recipe, features[chosen].to(job.device), labels[chosen].to(job.device))
            for chosen in spatial_cache.batches(len(labels), job.recipe.batch, job.recipe.seed, epoch)
        ]
        entry = {"epoch": epoch + 1, "loss": round(sum(losses) / len(losses), 4)}
        log.append(entry | {"test_top1": accuracy(model, held_out, right)})
        say(json.dumps(log[-1]))
    return write(job, model, log, round(time.monotonic() - began), command)


def encoder(job: Job, model: ViViT) -> Callable[[Tensor], Tensor]:
    """Return what maps uint8 views `[V, T, H, W, 3]` to the pruned spatial encoder's outputs `[V, steps, D]`."""
    pruner = job.method.attach(model)

    def encode(views: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.encode(ClipBatch(views.to(job.device), ("",) * len(views)), pruner)[0]

    return encode


def optimizer_of(model: ViViT, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimiser of the temporal encoder and the classifier; everything else stays as it is."""
    own = ("temporal_", "head.")
    trained = [p.requires_grad_(True) for name, p in model.named_parameters() if name.startswith(own)]
    return torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)


def step(model: ViViT, optimizer: torch.optim.Optimizer, recipe: Recipe, features: Tensor, labels: Tensor) -> float:
    """Take one step on `features` `[B, views, steps, D]`; returns the loss."""
    optimizer.zero_grad()
    logits = video_logits(model, features, recipe.dropout)
    loss = F.cross_entropy(logits.softmax(-1) if recipe.twice else logits, labels)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def video_logits(model: ViViT, features: Tensor, dropout: float = 0.0) -> Tensor:
    """Return logits `[B, classes]`, averaged over views, of `features` `[B, views, steps, D]`."""
    classes = F.dropout(model.in_time(features.flatten(0, 1)), dropout, training=dropout > 0)
    logits: Tensor = model.head(classes)
    return logits.unflatten(0, features.shape[:2]).mean(dim=1)


@torch.no_grad()
def accuracy(model: ViViT, features: Tensor, labels: Tensor) -> float:
    """Return top-1 of videos from their spatial outputs `[videos, views, steps, D]`."""
    device = model.pos_embed.device
    found = torch.cat([video_logits(model, part.to(device)).argmax(-1).cpu() for part in features.split(64)])
    return round(float((found == labels).float().mean()), 4)


def write(job: Job, model: ViViT, log: list[dict[str, Any]], seconds: int, command: str) -> Path:
    """Write the whole backbone, which `--weights` loads, the log, and a record of what made it."""
    path = job.out / f"{job.backbone}.rgtp.safetensors"
    facts = {"backbone": job.backbone, "method": asdict(job.method), "recipe": asdict(job.recipe)}
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, path, metadata={"rgtp": json.dumps(facts)})
    path.with_suffix(".log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    record = {
        "command": command,
        **facts,
        "weights_sha256": checkpoints.weights_digest(job.backbone, job.weights),
        "seconds": seconds,
        "torch": torch.__version__,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "log": log,
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    return path
