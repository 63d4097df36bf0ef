"""What training the embedded backbones shares: clips, schedule, log, checkpoints, the record of what came out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vpbench.api import Classifier, ClipBatch
from vpbench.commands.train.augment import recolour, symmetric
from vpbench.data.feed import ViewLoader
from vpbench.data.protocols import catalog
from vpbench.data.protocols import shape as protocols_shape
from vpbench.datasets.synthmotion import SynthMotion
from vpbench.datasets.synthmotion.encode import array_files, training_arrays
from vpbench.datasets.synthmotion.scene import CLASSES
from vpbench.progress import say


@dataclass(frozen=True)
class Schedule:
    """Numbers that every training run of an embedded network has."""

    steps: int
    batch: int = 32
    train_clips: int = 12006
    val_clips: int = 576
    optimizer: str = "muon"
    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    warm_up: int = 100
    clip_norm: float = 1.0
    auxiliary_weight: float = 10.0
    bf16: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Recipe(Schedule):
    """What the training of a classifier adds; what one backbone adds is in its own class."""

    label_smoothing: float = 0.05
    actor_weight: float = 5.0


R = TypeVar("R", bound=Recipe)
M = TypeVar("M", bound=Classifier)
N = TypeVar("N", bound=nn.Module)


@dataclass
class State(Generic[N]):
    """Everything that goes on from one step to the next; saved, so that a killed run resumes."""

    model: N
    auxiliary: nn.Linear
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator
    step: int = 0
    cpu_s: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        content = {
            "model": self.model.state_dict(),
            "auxiliary": self.auxiliary.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "generator": self.generator.get_state(),
            "step": self.step,
            "cpu_s": self.cpu_s,
            "log": json.dumps(self.log),
        }
        temporary = path.with_suffix(".tmp")
        torch.save(content, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        content = torch.load(path, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.auxiliary.load_state_dict(content["auxiliary"])
        for optimizer, saved in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(content["generator"])
        self.step, self.cpu_s, self.log = content["step"], content["cpu_s"], json.loads(content["log"])


#: one optimisation step on pixels, dense targets and labels: class loss, auxiliary loss
Step = Callable[[State[M], R, Tensor, Tensor, Tensor], tuple[float, float]]


def train(name: str, state: State[M], recipe: R, step: Step[M, R], out: Path, threads: int, command: str) -> Path:
    """Run the recipe, resuming from `out/checkpoint.pt` if it is there; returns the safetensors file `name`.

    `command` is what made it, for the record.
    """
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state.load(checkpoint)
        say(f"resuming at step {state.step}")
    frames, targets, labels = load_arrays("train", recipe.train_clips)
    held_out, _, right = load_arrays("val", recipe.val_clips)
    began, cpu, losses = time.monotonic(), time.process_time(), []
    for batch in batches(frames, targets, labels, recipe, state):
        losses.append(step(state, recipe, *batch))
        state.step += 1
        last = state.step == recipe.steps
        if state.step % 100 == 0 or last:
            state.cpu_s += time.process_time() - cpu
            cpu = time.process_time()
            entry: dict[str, Any] = {"step": state.step, "cpu_s": round(state.cpu_s)}
            entry |= {"wall_s": round(time.monotonic() - began), "lr": rate(recipe, state.step)}
            entry |= {"loss": round(float(np.mean([a for a, _ in losses])), 4)}
            entry |= {"auxiliary": round(float(np.mean([b for _, b in losses])), 5)}
            losses = []
            if state.step % 500 == 0 or last:
                entry["val"], entry["by_class"] = accuracy(state.model, held_out, right)
            state.log.append(entry)
            say(json.dumps(entry))
            state.save(checkpoint)
    return write(name, state, recipe, out, command)


def optimizers(model: nn.Module, tables: Iterator[Tensor], extra: nn.Module, recipe: Schedule) -> list[Any]:
    """Make the optimisers: Muon for the matrices of blocks, AdamW for the rest, without decay on vectors and `tables`.

    `extra`: a head that is dropped after training.
    """
    kept = {id(table) for table in tables}
    matrices = [p for n, p in model.named_parameters() if "blocks." in n and p.ndim == 2 and id(p) not in kept]
    inside = {id(p) for p in matrices}
    others = [p for p in (*model.parameters(), *extra.parameters()) if id(p) not in inside]
    decay = [p for p in others if p.ndim > 1 and id(p) not in kept]
    plain = [p for p in others if p.ndim == 1 or id(p) in kept]
    groups: list[dict[str, Any]] = [
        {"params": decay, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    found: list[Any] = []
    if recipe.optimizer == "muon":
        muon = torch.optim.Muon(
            matrices, lr=recipe.lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        found.append(muon)
    else:
        groups.append({"params": matrices, "weight_decay": recipe.weight_decay})
    found.append(torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas))
    return found


def descend(state: State[N], recipe: Schedule, loss: Callable[[], tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Take one step down the own loss plus the weighted auxiliary loss; returns both."""
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, state.step)
        optimizer.zero_grad()
    own, auxiliary = loss()
    (own + recipe.auxiliary_weight * auxiliary).backward()
    nn.utils.clip_grad_norm_([*state.model.parameters(), *state.auxiliary.parameters()], recipe.clip_norm)
    for optimizer in state.optimizers:
        optimizer.step()
    return float(own.detach()), float(auxiliary.detach())


def prepare(recipe: Schedule) -> None:
    """Generate the clips of the recipe, unless they are there."""
    for split, count in (("val", recipe.val_clips), ("train", recipe.train_clips)):
        for done in training_arrays(split, count, os.cpu_count() or 1):
            if done % 1000 == 0 or done == count:
                say(f"{split} clips: {done}/{count}")


def load_arrays(split: str, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Load decoded frames, targets and labels."""
    frames, targets, labels = (torch.from_numpy(np.load(path)) for path in array_files(split, count))
    return frames, targets, labels


def batches(
    frames: Tensor, targets: Tensor, labels: Tensor, recipe: Recipe, state: State[M]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield augmented batches from the state's step on; the order depends on seed and step alone."""
    per_epoch = len(labels) // recipe.batch
    while state.step < recipe.steps:
        epoch = state.step // per_epoch
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(recipe.seed * 1000 + epoch))
        place = state.step % per_epoch
        chosen = order[place * recipe.batch : (place + 1) * recipe.batch]
        turns = torch.randint(16, (len(chosen),), generator=state.generator).tolist()
        made = [
            symmetric(frames[i], targets[i].float(), int(labels[i]), turn)
            for i, turn in zip(chosen.tolist(), turns, strict=True)
        ]
        pixels = torch.stack([recolour(p, state.generator) for p, _, _ in made])
        yield pixels, torch.stack([t for _, t, _ in made]), torch.tensor([label for _, _, label in made])


def rate(recipe: Schedule, number: int) -> float:
    """Learning rate at a step: linear warm-up, then cosine to nearly zero."""
    if number < recipe.warm_up:
        return recipe.lr * (number + 1) / recipe.warm_up
    done = (number - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def accuracy(model: Classifier, frames: Tensor, labels: Tensor) -> tuple[float, dict[str, float]]:
    """Return top-1 of `frames` uint8 `[n, 16, 64, 64, 3]` with all tokens in float32, overall and by class."""
    model.eval()
    parts = [model(ClipBatch(part, ("",) * len(part))).logits for part in frames.split(24)]
    model.train()
    hit = (torch.cat(parts).argmax(-1) == labels).float()
    by_class = {name: round(float(hit[labels == k].mean()), 3) for k, name in enumerate(CLASSES)}
    return round(float(hit.mean()), 4), by_class


def write(name: str, state: State[M], recipe: Recipe, out: Path, command: str) -> Path:
    """Write weights (fp16 safetensors), training log, and a record of recipe and held-out accuracy of those weights."""
    path = out / f"{name}.safetensors"
    weights = {key: value.half().contiguous() for key, value in state.model.state_dict().items()}
    save_file(weights, path, metadata={"recipe": json.dumps(asdict(recipe))})
    (out / f"{name}.log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in state.log))
    state.model.load_state_dict({key: value.float() for key, value in weights.items()})
    config = state.model.config
    shape = protocols_shape.Shape(config.frames, config.height, config.width, config.stride)
    loader = ViewLoader(catalog.find("first", seed=0), shape, "pyav")
    clips = [clip for video in SynthMotion().videos("test") for clip in loader.load(video).clips]
    frames = torch.from_numpy(np.stack([clip.pixels for clip in clips]))
    overall, by_class = accuracy(state.model, frames, torch.tensor([clip.label for clip in clips]))
    record = {
        "command": command,
        "recipe": asdict(recipe),
        "steps": state.step,
        "cpu_s": round(state.cpu_s),
        "torch": torch.__version__,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "test_clips": len(clips),
        "test_top1": overall,
        "test_top1_se": round(math.sqrt(overall * (1 - overall) / len(clips)), 4),
        "test_by_class": by_class,
        "validation": state.log[-1],
    }
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    return path
