"""Train the embedded VideoMAE-style backbone on decoded synthetic motion clips."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from vpbench.api import ClipBatch, Selection, Tokens, temporal_difference
from vpbench.backbones.videomae import EMBEDDED, VideoMAE
from vpbench.datasets.synthmotion import SynthMotion
from vpbench.datasets.synthmotion.encode import array_files, training_arrays
from vpbench.datasets.synthmotion.scene import CLASSES, TARGETS
from vpbench.progress import say
from vpbench.train.augment import recolour, symmetric

NAME = "videomae_embedded"


@dataclass(frozen=True)
class Recipe:
    """Every number of the training run. `tokens` maps the share of steps done to the tokens each clip keeps."""

    steps: int = 4500
    batch: int = 32
    train_clips: int = 12006
    val_clips: int = 576
    optimizer: str = "muon"
    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.05
    warm_up: int = 100
    label_smoothing: float = 0.05
    clip_norm: float = 1.0
    tokens: tuple[tuple[float, int], ...] = ((0.0, 112), (0.65, 160), (0.8, 256), (0.93, 512))
    motion_guided: float = 0.8
    auxiliary_after: int = 3
    auxiliary_weight: float = 10.0
    actor_weight: float = 5.0
    bf16: bool = True
    seed: int = 0


@dataclass
class State:
    """Everything that goes on from one step to the next; saved, so that a killed run resumes."""

    model: VideoMAE
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


def train(recipe: Recipe, out: Path, threads: int, command: str) -> Path:
    """Run the recipe, resuming from `out/checkpoint.pt` if it is there; returns the safetensors file.

    `command` is what made it, for the record.
    """
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    for split, count in (("val", recipe.val_clips), ("train", recipe.train_clips)):
        for done in training_arrays(split, count, os.cpu_count() or 1):
            if done % 1000 == 0 or done == count:
                say(f"{split} clips: {done}/{count}")
    state, checkpoint = start(recipe), out / "checkpoint.pt"
    if checkpoint.exists():
        state.load(checkpoint)
        say(f"resuming at step {state.step}")
    frames, targets, labels = load_arrays("train", recipe.train_clips)
    began, cpu, losses = time.monotonic(), time.process_time(), []
    for batch in batches(frames, targets, labels, recipe, state):
        losses.append(step(state, recipe, *batch))
        state.step += 1
        last = state.step == recipe.steps
        if state.step % 100 == 0 or last:
            state.cpu_s += time.process_time() - cpu
            cpu = time.process_time()
            entry: dict[str, Any] = {"step": state.step, "cpu_s": round(state.cpu_s)}
            entry |= {"wall_s": round(time.monotonic() - began)}
            entry |= {"tokens": kept(recipe, state.step), "lr": rate(recipe, state.step)}
            entry |= {"loss": round(float(np.mean([a for a, _ in losses])), 4)}
            entry |= {"auxiliary": round(float(np.mean([b for _, b in losses])), 5)}
            losses = []
            if state.step % 500 == 0 or last:
                entry |= validate(state.model, recipe)
            state.log.append(entry)
            say(json.dumps(entry))
            state.save(checkpoint)
    return write(state, recipe, out, command)


def start(recipe: Recipe) -> State:
    """Build model, auxiliary head and optimizers from the seed."""
    torch.manual_seed(recipe.seed)
    model = VideoMAE(EMBEDDED)
    auxiliary = nn.Linear(EMBEDDED.dim, TARGETS)
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    others = [p for p in (*model.parameters(), *auxiliary.parameters()) if not any(p is m for m in matrices)]
    decay = [p for p in others if p.ndim > 1 and p is not model.pos_embed]
    plain = [p for p in others if p.ndim == 1 or p is model.pos_embed]
    groups: list[dict[str, Any]] = [
        {"params": decay, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = []
    if recipe.optimizer == "muon":
        muon = torch.optim.Muon(
            matrices, lr=recipe.lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        optimizers.append(muon)
    else:
        groups.append({"params": matrices, "weight_decay": recipe.weight_decay})
    optimizers.append(torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas))
    return State(model.train(), auxiliary, optimizers, torch.Generator().manual_seed(recipe.seed))


def load_arrays(split: str, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Load decoded frames, targets and labels."""
    frames, targets, labels = (torch.from_numpy(np.load(path)) for path in array_files(split, count))
    return frames, targets, labels


def batches(
    frames: Tensor, targets: Tensor, labels: Tensor, recipe: Recipe, state: State
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


def step(state: State, recipe: Recipe, pixels: Tensor, targets: Tensor, labels: Tensor) -> tuple[float, float]:
    """Do one optimisation step; returns class loss and auxiliary loss."""
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate(recipe, state.step)
        optimizer.zero_grad()
    selection = choose(pixels, kept(recipe, state.step), recipe, state)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
        tokens: Tokens = state.model.embed(pixels, selection)
        for number, block in enumerate(state.model.blocks):
            tokens = block(tokens)
            if number == recipe.auxiliary_after:
                guess = state.auxiliary(tokens.x)
        logits = state.model.classify(tokens)
    wanted = targets.flatten(1, 3).flatten(0, 1)[_rows(selection, targets[0, ..., 0].numel())]
    weight = 1 + (recipe.actor_weight - 1) * (wanted[:, :1] > 0.02)
    auxiliary = (F.smooth_l1_loss(guess.float(), wanted, reduction="none", beta=0.1) * weight).mean()
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    (loss + recipe.auxiliary_weight * auxiliary).backward()
    nn.utils.clip_grad_norm_([*state.model.parameters(), *state.auxiliary.parameters()], recipe.clip_norm)
    for optimizer in state.optimizers:
        optimizer.step()
    return float(loss.detach()), float(auxiliary.detach())


def choose(pixels: Tensor, count: int, recipe: Recipe, state: State) -> Selection:
    """Keep `count` tubelets per clip: in most clips moving ones come first, in the others any."""
    grid = state.model.grid
    noise = torch.rand(len(pixels), grid.tokens, generator=state.generator)
    guided = torch.rand(len(pixels), 1, generator=state.generator) < recipe.motion_guided
    change = temporal_difference(pixels, grid, "ends")
    # a tubelet moves if it differs from the one before or from the one after
    both = torch.maximum(F.pad(change, (0, 0, 0, 0, 1, 0)), F.pad(change, (0, 0, 0, 0, 0, 1))).flatten(1)
    motion = both / both.amax(dim=1, keepdim=True).clamp(min=1e-6)
    return Selection.top(torch.where(guided, motion + 0.5 * noise, noise), count)


def _rows(selection: Selection, tokens: int) -> Tensor:
    clip = torch.arange(len(selection.lengths)).repeat_interleave(torch.tensor(selection.lengths))
    return clip * tokens + selection.index


def kept(recipe: Recipe, number: int) -> int:
    """Tokens per clip at a step."""
    return [count for share, count in recipe.tokens if number >= share * recipe.steps][-1]


def rate(recipe: Recipe, number: int) -> float:
    """Learning rate at a step: linear warm-up, then cosine to nearly zero."""
    if number < recipe.warm_up:
        return recipe.lr * (number + 1) / recipe.warm_up
    done = (number - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def validate(model: VideoMAE, recipe: Recipe) -> dict[str, Any]:
    """Return accuracy on the validation clips, all tokens, overall and by class."""
    frames, _, labels = load_arrays("val", recipe.val_clips)
    overall, by_class = accuracy(model, frames, labels)
    return {"val": overall, "by_class": by_class}


@torch.no_grad()
def accuracy(model: VideoMAE, frames: Tensor, labels: Tensor) -> tuple[float, dict[str, float]]:
    """Return top-1 of `frames` uint8 `[n, 16, 64, 64, 3]` with all tokens in float32, overall and by class."""
    model.eval()
    parts = [model(ClipBatch(part, ("",) * len(part))).logits for part in frames.split(24)]
    model.train()
    hit = (torch.cat(parts).argmax(-1) == labels).float()
    by_class = {name: round(float(hit[labels == k].mean()), 3) for k, name in enumerate(CLASSES)}
    return round(float(hit.mean()), 4), by_class


def write(state: State, recipe: Recipe, out: Path, command: str) -> Path:
    """Write weights (fp16 safetensors), training log, and a record of recipe and held-out accuracy of those weights."""
    path = out / f"{NAME}.safetensors"
    weights = {name: value.half().contiguous() for name, value in state.model.state_dict().items()}
    save_file(weights, path, metadata={"recipe": json.dumps(asdict(recipe))})
    (out / f"{NAME}.log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in state.log))
    state.model.load_state_dict({name: value.float() for name, value in weights.items()})
    source = SynthMotion()
    clips = [clip for video in source.videos("test") for clip in source.clips(video, 16, EMBEDDED.stride, "pyav")]
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
    (out / f"{NAME}.json").write_text(json.dumps(record, indent=1) + "\n")
    return path
