"""What training the embedded backbones shares: schedule, optimisers, losses, accuracy, the record."""

import abc
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import Classifier, ClipBatch, Grid, temporal_difference
from vpbench.commands.train import loop
from vpbench.commands.train.clips import TRAINING_CLIPS, MotionArrays, order
from vpbench.commands.train.engine import Losses
from vpbench.commands.train.loop import Batch, Entry, Job, Outcome, State, Training
from vpbench.commands.train.recipe import Recipe, cosine
from vpbench.data.feed import ViewLoader
from vpbench.data.protocols import catalog
from vpbench.data.protocols.shape import Shape
from vpbench.datasets.synthmotion import SynthMotion
from vpbench.datasets.synthmotion.scene import CLASSES


@dataclass(frozen=True, kw_only=True)
class Schedule(Recipe):
    """What every training of an embedded network adds: so many steps on so many generated clips, and a second loss."""

    steps: int
    batch: int = 32
    train_clips: int = TRAINING_CLIPS
    val_clips: int = 576
    optimizer: str = "muon"
    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    warm_up: int = 100
    clip_norm: float | None = 1.0
    auxiliary_weight: float = 10.0
    bf16: bool = True

    def rate(self, number: int) -> float:
        """Learning rate at a step: linear warm-up, then cosine to nearly zero."""
        if number < self.warm_up:
            return self.lr * (number + 1) / self.warm_up
        done = (number - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.lr * (0.01 + 0.99 * cosine(done))


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(Schedule):
    """What the training of a classifier adds; what one backbone adds is in its own class."""

    label_smoothing: float = 0.05
    actor_weight: float = 5.0

    def at(self, number: int, table: Sequence[tuple[float, int]]) -> int:
        """Return what a table from the share of steps done to an amount says at a step."""
        return [amount for share, amount in table if number >= share * self.steps][-1]


R = TypeVar("R", bound=Schedule)
C = TypeVar("C", bound=ClassifierRecipe)
M = TypeVar("M", bound=Classifier)
N = TypeVar("N", bound=nn.Module)
#: of pixels, dense targets and labels: logits, and guesses of those dense targets that come last
Guess = Callable[[State[M], C, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass
class EmbeddedTraining(Training[None, R, N]):
    """A network trained from the seed on generated clips; weights in half precision, with the accuracy they have."""

    #: of losses in the log, where they are not 4
    digits: ClassVar[Mapping[str, int]] = {}

    def total(self, losses: Losses) -> Tensor:
        """Return the own losses and the weighted auxiliary one."""
        own = torch.stack([loss for name, loss in losses.items() if name != "auxiliary"]).sum()
        return own + self.job.recipe.auxiliary_weight * losses["auxiliary"]

    def rate(self, group: Mapping[str, Any]) -> float:
        """Return the recipe's rate at this step."""
        return self.job.recipe.rate(self.state.step)

    def entry(self, losses: dict[str, float]) -> Entry:
        """Return losses and rate, and now and then how good the network is on held-out clips."""
        state = self.state
        said: Entry = {"step": state.step, "cpu_s": round(state.cpu_s), "wall_s": round(state.seconds)}
        said["lr"] = self.job.recipe.rate(state.step)
        said |= {name: round(loss, self.digits.get(name, 4)) for name, loss in losses.items()}
        return said | (self.validation() if state.step % 500 == 0 or state.step == self.steps else {})

    def outcome(self) -> Outcome:
        """Return weights in half precision, and what these weights reach on the test split."""
        weights = {key: value.half().contiguous() for key, value in self.state.model.state_dict().items()}
        self.state.model.load_state_dict({key: value.float() for key, value in weights.items()})
        recipe = asdict(self.job.recipe)
        facts = {"recipe": recipe, "steps": self.state.step, "cpu_s": round(self.state.cpu_s)}
        results = self.test() | {"validation": self.state.log[-1]}
        return Outcome(weights, {"recipe": json.dumps(recipe)}, facts, results)

    @abc.abstractmethod
    def validation(self) -> Entry:
        """Return how good the network is on held-out clips."""

    @abc.abstractmethod
    def test(self) -> Entry:
        """Return how good the network is on the test split."""


@dataclass
class ClassifierTraining(EmbeddedTraining[C, M]):
    """Training of a classifier by the step of one backbone."""

    digits: ClassVar[Mapping[str, int]] = {"auxiliary": 5}
    guess: Guess[M, C]

    def __post_init__(self) -> None:
        self.held_out = MotionArrays.of("val", self.job.recipe.val_clips)
        self.clips = MotionArrays.of("train", self.job.recipe.train_clips)

    def batch(self, number: int) -> Batch:
        """Return an augmented batch; the order of clips depends on seed and number alone."""
        recipe, clips = self.job.recipe, len(self.clips.labels)
        chosen = order(clips, recipe.batch, clips // recipe.batch, recipe.seed, number)
        return Batch(self.clips.augmented(chosen, self.state.generator), len(chosen))

    def losses(self, *given: Tensor) -> Losses:
        """Return the class loss, and that of the dense targets, where actors weigh more."""
        recipe, (pixels, targets, labels) = self.job.recipe, given
        logits, guess, wanted = self.guess(self.state, recipe, pixels, targets)
        weight = 1 + (recipe.actor_weight - 1) * (wanted[..., :1] > 0.02)
        auxiliary = (F.smooth_l1_loss(guess.float(), wanted, reduction="none", beta=0.1) * weight).mean()
        own = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
        return {"loss": own, "auxiliary": auxiliary}

    def validation(self) -> Entry:
        """Return accuracy on held-out clips."""
        overall, by_class = accuracy(self.state.model, self.held_out.frames, self.held_out.labels)
        return {"val": overall, "by_class": by_class}

    def test(self) -> Entry:
        """Return accuracy on the test split, decoded as `vpbench run` decodes it."""
        config = self.state.model.config
        shape = Shape(config.frames, config.height, config.width, config.stride)
        loader = ViewLoader(catalog.find("first", seed=0), shape, "pyav")
        clips = [clip for video in SynthMotion().videos("test") for clip in loader.load(video).clips]
        frames = torch.from_numpy(np.stack([clip.pixels for clip in clips]))
        overall, by_class = accuracy(self.state.model, frames, torch.tensor([clip.label for clip in clips]))
        error = round(math.sqrt(overall * (1 - overall) / len(clips)), 4)
        return {"test_clips": len(clips), "test_top1": overall, "test_top1_se": error, "test_by_class": by_class}


def classifier(name: str, state: State[M], recipe: C, guess: Guess[M, C], out: Path, command: str) -> Path:
    """Train a classifier, resuming from `out` if it was begun there; returns the safetensors file. See `loop.run`."""
    job = Job(name, "random", None, recipe, out)
    return loop.run(ClassifierTraining(job, state, recipe.steps, "synthmotion", guess), command)


def begin(model: N, width: int, outputs: int, tables: Sequence[str], recipe: Schedule) -> State[N]:
    """Return the first state; a linear head of `width` to `outputs` is dropped after training.

    Muon for the matrices of blocks, AdamW for the rest, without decay on vectors and on parameters named by `tables`.
    """
    extra = nn.Linear(width, outputs)
    named = [*model.named_parameters(), *extra.named_parameters()]
    spared = {id(p) for n, p in named if p.ndim == 1 or any(table in n for table in tables)}
    matrices = [p for n, p in named if "blocks." in n and p.ndim == 2 and id(p) not in spared]
    inside = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in inside]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if id(p) not in spared], "weight_decay": recipe.weight_decay},
        {"params": [p for p in others if id(p) in spared], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if recipe.optimizer == "muon":
        decay = recipe.weight_decay
        optimizers.append(torch.optim.Muon(matrices, lr=recipe.lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    else:
        groups.append({"params": matrices, "weight_decay": recipe.weight_decay})
    optimizers.append(torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas))
    return State(model.train(), extra, optimizers, torch.Generator().manual_seed(recipe.seed))


def moving(pixels: Tensor, grid: Grid) -> Tensor:
    """Return `[B, tokens]`: how much each tubelet differs from the one before or from the one after."""
    change = temporal_difference(pixels, grid, "ends")
    return torch.maximum(F.pad(change, (0, 0, 0, 0, 1, 0)), F.pad(change, (0, 0, 0, 0, 0, 1))).flatten(1)


def ranked(change: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return ranks of tokens from their `change` `[B, n]`: in this share of clips moving ones lead, elsewhere any."""
    noise = torch.rand(change.shape, generator=generator)
    guided = torch.rand(len(change), 1, generator=generator) < share
    motion = change / change.amax(dim=1, keepdim=True).clamp(min=1e-6)
    return torch.where(guided, motion + 0.5 * noise, noise)


@torch.no_grad()
def accuracy(model: Classifier, frames: Tensor, labels: Tensor) -> tuple[float, dict[str, float]]:
    """Return top-1 of `frames` uint8 `[n, 16, 64, 64, 3]` with all tokens in float32, overall and by class."""
    model.eval()
    parts = [model(ClipBatch(part, ("",) * len(part))).logits for part in frames.split(24)]
    model.train()
    hit = (torch.cat(parts).argmax(-1) == labels).float()
    by_class = {name: round(float(hit[labels == k].mean()), 3) for k, name in enumerate(CLASSES)}
    return round(float(hit.mean()), 4), by_class
