"""Fine-tune the temporal encoder of a ViViT on what its pruned spatial encoder gives (RGTP, ICIP 2025).

The spatial encoder stays as it is, so its outputs are computed once (`spatial_cache`) and trained on. A killed run goes
on from where it was, in either half.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import Parameter

from vpbench.api import ClipBatch
from vpbench.backbones import loading
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.train import spatial_cache
from vpbench.commands.train.spatial_cache import Videos
from vpbench.errors import UsageError, VpbenchError
from vpbench.methods.rgtp import Rgtp
from vpbench.progress import say
from vpbench.tasks.attach import attached

#: seconds of training that a killed run loses at most, besides the step it was in
SAVE_EVERY_S = 60.0


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


@dataclass
class State:
    """Everything that goes on from one step to the next; saved, so that a killed run resumes.

    `losses` are those of the epoch so far, `steps` all that were taken.
    """

    model: ViViT
    optimizer: torch.optim.Optimizer
    steps: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: Path, job: str) -> None:
        """Write a checkpoint, whole or not at all; `job` says whose it is."""
        content = {
            "job": job,
            "trained": dict(trained(self.model)),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
            "text": json.dumps({"losses": self.losses, "log": self.log}),
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
            self.model.load_state_dict({**self.model.state_dict(), **content["trained"]})
            self.optimizer.load_state_dict(content["optimizer"])
            text = json.loads(content["text"])
        except UsageError:
            raise
        except Exception as error:  # whatever a file that is not ours makes the loader raise
            raise UsageError(f"{path} is no checkpoint of this training; remove it or give another --out") from error
        self.steps, self.seconds = content["steps"], content["seconds"]
        self.losses, self.log = text["losses"], text["log"]


def load(job: Job) -> ViViT:
    """Build the backbone; raises UsageError if it has no temporal encoder, or the method cannot run on it."""
    model = loading.build(job.backbone, job.weights, job.recipe.seed)
    if not isinstance(model, ViViT):
        raise UsageError(f"{job.backbone} has no temporal encoder of its own; rgtp-temporal trains vivit backbones")
    attached(job.method, model, lambda reason: UsageError(f"rgtp cannot run on {job.backbone}: {reason}"))
    return model.eval().requires_grad_(False).to(job.device)


def train(job: Job, model: ViViT, train_on: Videos, test_on: Videos, names: str, command: str) -> Path:
    """Cache the spatial outputs, train on them, and write the whole backbone; returns the safetensors file.

    `names` says which videos these are, for the cache's identity; `command` is what made it, for the record.
    """
    job.out.mkdir(parents=True, exist_ok=True)
    weights = loading.weights_digest(job.backbone, job.weights)
    identity = json.dumps({"weights": weights, "method": asdict(job.method), "videos": names})
    caches = {"train": train_on, "test": test_on}
    for split, videos in caches.items():
        spatial_cache.build(job.out / split, identity, videos, encoder(job, model))
    state = State(model, optimizer_of(model, job.recipe))
    checkpoint, mine = job.out / "checkpoint.pt", json.dumps([identity, asdict(job.recipe)])
    if checkpoint.exists():
        state.load(checkpoint, mine)
        say(f"resuming after {state.steps} steps")
    cached = [spatial_cache.load(job.out / split) for split in caches]
    fit(job, state, cached[0], cached[1], lambda: state.save(checkpoint, mine))
    return write(job, model, state.log, round(state.seconds), command)


Cached = tuple[Tensor, Tensor]


def fit(job: Job, state: State, train_on: Cached, test_on: Cached, save: Callable[[], None]) -> None:
    """Train from where the state is to the recipe's last epoch, saving at the end of each and now and then between."""
    (features, labels), recipe = train_on, job.recipe
    per_epoch = math.ceil(len(labels) / recipe.batch)
    if not state.log:
        _note(state, {"epoch": 0, "test_top1": accuracy(state.model, *test_on)})
    began = saved = time.monotonic()
    before = state.seconds
    while state.steps < recipe.epochs * per_epoch:
        epoch, done = divmod(state.steps, per_epoch)
        for chosen in list(spatial_cache.batches(len(labels), recipe.batch, recipe.seed, epoch))[done:]:
            state.seconds = before + time.monotonic() - began
            if time.monotonic() - saved > SAVE_EVERY_S:
                save()
                saved = time.monotonic()
            torch.manual_seed(recipe.seed + state.steps)  # of the dropout, whenever a run is resumed
            batch = (features[chosen].to(job.device), labels[chosen].to(job.device))
            state.losses.append(step(state.model, state.optimizer, recipe, *batch))
            state.steps += 1
        loss = round(sum(state.losses) / len(state.losses), 4)
        _note(state, {"epoch": epoch + 1, "loss": loss, "test_top1": accuracy(state.model, *test_on)})
        state.losses, state.seconds = [], before + time.monotonic() - began
        save()


def _note(state: State, entry: dict[str, Any]) -> None:
    state.log.append(entry)
    say(json.dumps(entry))


def encoder(job: Job, model: ViViT) -> Callable[[Tensor], Tensor]:
    """Return what maps uint8 views `[V, T, H, W, 3]` to the pruned spatial encoder's outputs `[V, steps, D]`."""
    pruner = job.method.attach(model)

    def encode(views: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.encode(ClipBatch(views.to(job.device), ("",) * len(views)), pruner)[0]

    return encode


def trained(model: ViViT) -> Iterator[tuple[str, Parameter]]:
    """Yield the parameters that are trained: of the temporal encoder and the classifier."""
    return ((name, each) for name, each in model.named_parameters() if name.startswith(("temporal_", "head.")))


def optimizer_of(model: ViViT, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimiser of the temporal encoder and the classifier; everything else stays as it is."""
    own = [parameter.requires_grad_(True) for _, parameter in trained(model)]
    return torch.optim.AdamW(own, lr=recipe.lr, weight_decay=recipe.weight_decay)


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
        "weights_sha256": loading.weights_digest(job.backbone, job.weights),
        "seconds": seconds,
        "torch": torch.__version__,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "log": log,
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    return path
