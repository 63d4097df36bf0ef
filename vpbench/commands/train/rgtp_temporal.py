"""Fine-tune the temporal encoder of a ViViT on what its pruned spatial encoder gives (RGTP, ICIP 2025).

The spatial encoder stays as it is, so its outputs are computed once (`spatial`) and trained on. A killed run goes
on from where it was, in either half.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import ClipBatch
from vpbench.backbones import loading
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.train import loop, spatial
from vpbench.commands.train.clips import order
from vpbench.commands.train.engine import Losses
from vpbench.commands.train.loop import Batch, Entry, Job, Outcome, State, Training
from vpbench.commands.train.recipe import Recipe
from vpbench.commands.train.spatial import Outputs, Videos
from vpbench.errors import UsageError
from vpbench.methods.rgtp import Rgtp
from vpbench.tasks.attach import attached


@dataclass(frozen=True, kw_only=True)
class RGTPTemporalRecipe(Recipe):
    """What this training adds: AdamW at a constant rate, no warm-up, shuffled videos, the last epoch kept.

    A video's views are one item; their logits are averaged. `twice`: cross-entropy of the softmax's output, softmax
    taken twice, as the published weights were trained.
    """

    epochs: int
    dropout: float = 0.5
    twice: bool = True
    seed: int = 42


RECIPES = {
    # Kinetics-400 as published; about 40 000 training videos, 12 views each
    "k400": RGTPTemporalRecipe(lr=2e-6, batch=16, epochs=10),
    # EPIC-Kitchens-100 verbs as published; the whole training set, 12 views each
    "epic": RGTPTemporalRecipe(lr=1e-5, batch=8, epochs=5),
    # the embedded clips and backbone, one view each
    "embedded": RGTPTemporalRecipe(lr=3e-4, batch=32, epochs=5, twice=False),
}
RGTPJob = Job[Rgtp, RGTPTemporalRecipe]


def train(job: RGTPJob, model: ViViT, train_on: Videos, test_on: Videos, names: str, command: str) -> Path:
    """Cache the spatial outputs, train on them, and write the whole backbone; returns the safetensors file.

    `names` says which videos these are, for cache and checkpoint. See `loop.run`.
    """
    identity = json.dumps({"weights": job.weights_sha256, "method": asdict(job.method), "videos": names})
    caches = {"train": train_on, "test": test_on}
    for split, videos in caches.items():
        spatial.build(job.out / split, identity, videos, encoder(job, model))
    cached = [spatial.load(job.out / split) for split in caches]
    return loop.run(RGTPTemporalTraining(job, model, cached[0], cached[1], names), command)


class RGTPTemporalTraining(Training[Rgtp, RGTPTemporalRecipe, ViViT]):
    """Training of temporal encoder and classifier on cached spatial outputs; the log has an entry for each epoch."""

    suffixes = (".rgtp", ".rgtp")

    def __init__(self, job: RGTPJob, model: ViViT, train_on: Outputs, test_on: Outputs, names: str) -> None:
        self.train_on, self.test_on = train_on, test_on
        self.per_epoch = math.ceil(len(train_on.labels) / job.recipe.batch)
        state = State(model, nn.Identity(), [optimizer_of(model, job.recipe)])
        super().__init__(job, state, job.recipe.epochs * self.per_epoch, names)

    def batch(self, number: int) -> Batch:
        """Return the spatial outputs of a batch of videos `[B, views, steps, D]`, and their labels."""
        recipe, videos = self.job.recipe, len(self.train_on.labels)
        chosen = order(videos, recipe.batch, self.per_epoch, recipe.seed, number)
        return Batch(self.train_on.take(chosen), len(chosen))

    def losses(self, *given: Tensor) -> Losses:
        """Return the cross-entropy of a batch."""
        features, labels = given
        logits = video_logits(self.state.model, features, self.job.recipe.dropout)
        return {"loss": F.cross_entropy(logits.softmax(-1) if self.job.recipe.twice else logits, labels)}

    def rate(self, group: Mapping[str, Any]) -> float:
        """Return the one rate of the recipe."""
        return self.job.recipe.lr

    def due(self, step: int) -> bool:
        """Before the first epoch and after each."""
        return step % self.per_epoch == 0

    def entry(self, losses: dict[str, float]) -> Entry:
        """Return the epoch's loss and the accuracy after it."""
        said = {name: round(loss, 4) for name, loss in losses.items()}
        epoch = self.state.step // self.per_epoch
        return {"epoch": epoch, **said, "test_top1": accuracy(self.state.model, self.test_on)}

    def outcome(self) -> Outcome:
        """Return the whole backbone, which `--weights` loads."""
        job, state = self.job, self.state
        tensors = {name: tensor.cpu().contiguous() for name, tensor in state.model.state_dict().items()}
        facts = {"backbone": job.backbone, "method": asdict(job.method), "recipe": asdict(job.recipe)}
        made = {"weights_sha256": job.weights_sha256, "seconds": round(state.seconds)}
        return Outcome(tensors, {"rgtp": json.dumps(facts)}, facts | made, {"log": state.log})


def load(job: RGTPJob) -> ViViT:
    """Build the backbone; raises UsageError if it has no temporal encoder, or the method cannot run on it."""
    model = loading.build(job.backbone, job.weights, job.recipe.seed)
    if not isinstance(model, ViViT):
        raise UsageError(f"{job.backbone} has no temporal encoder of its own; rgtp-temporal trains vivit backbones")
    attached(job.method, model, lambda reason: UsageError(f"rgtp cannot run on {job.backbone}: {reason}"))
    return model.eval().requires_grad_(False).to(job.device)


def encoder(job: RGTPJob, model: ViViT) -> Callable[[Tensor], Tensor]:
    """Return what maps uint8 views `[V, T, H, W, 3]` to the pruned spatial encoder's outputs `[V, steps, D]`."""
    pruner = job.method.attach(model)

    def encode(views: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.encode(ClipBatch(views.to(job.device), ("",) * len(views)), pruner)[0]

    return encode


def optimizer_of(model: ViViT, recipe: RGTPTemporalRecipe) -> torch.optim.Optimizer:
    """Make the optimiser of the temporal encoder and the classifier; everything else stays as it is."""
    named = model.named_parameters()
    own = [each.requires_grad_(True) for name, each in named if name.startswith(("temporal_", "head."))]
    return torch.optim.AdamW(own, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay)


def video_logits(model: ViViT, features: Tensor, dropout: float = 0.0) -> Tensor:
    """Return logits `[B, classes]`, averaged over views, of `features` `[B, views, steps, D]`."""
    classes = F.dropout(model.in_time(features.flatten(0, 1)), dropout, training=dropout > 0)
    logits: Tensor = model.head(classes)
    return logits.unflatten(0, features.shape[:2]).mean(dim=1)


@torch.no_grad()
def accuracy(model: ViViT, outputs: Outputs) -> float:
    """Return top-1 of videos from their spatial outputs."""
    device = model.pos_embed.device
    found = torch.cat([video_logits(model, part.to(device)).argmax(-1).cpu() for part, _ in outputs.split(64)])
    return round(float((found == outputs.labels).float().mean()), 4)
