"""Clips of noise to train on, and a tiny network whose norms and biases are no neutral ones."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers import construct

from vpbench.api import Classifier, Method
from vpbench.backbones.videomae import TINY
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.train.clips import smoothed
from vpbench.commands.train.finetune import Finetuning, Start
from vpbench.commands.train.finetune_recipes import FinetuneRecipe
from vpbench.commands.train.loop import Batch, Job

PLAIN_RECIPE = FinetuneRecipe(lr=1e-3, batch=2, epochs=1)
CLASSES = TINY.classes


class Noise:
    """Random clips, normalised, of five classes."""

    name, per_epoch = "noise", 4

    def __init__(self, count: int = 2, dtype: torch.dtype = torch.float32) -> None:
        self.count, self.dtype = count, dtype

    def batch(self, number: int) -> Batch:
        draw = torch.Generator().manual_seed(number)
        # half of each frame stands still, so that methods that follow the content have something to drop
        pixels = torch.randn(self.count, 16, 32, 32, 3, generator=draw)
        pixels[:, :, :16] = pixels[:, :1, :16]
        labels = torch.randint(CLASSES, (self.count,), generator=draw)
        return Batch((pixels.to(self.dtype), smoothed(labels, CLASSES, 0.1).to(self.dtype)), self.count)


def tiny(dtype: torch.dtype = torch.float32) -> VideoMAE:
    torch.manual_seed(0)
    model = construct(TINY)
    assert isinstance(model, VideoMAE)
    for parameter in model.parameters():  # biases too, and norms that are not 1
        torch.nn.init.normal_(parameter, std=0.1) if parameter.ndim == 1 else None
    return model.to(dtype).train()


def training(
    model: Classifier, method: Method, out: Path, source: Noise | None = None, recipe: FinetuneRecipe = PLAIN_RECIPE
) -> Finetuning:
    job = Job("videomae_tiny", "random", method, recipe, out)
    said = {"weights": "random", "dataset": "noise", "split": "train", "method": type(method).__name__.lower()}
    names = tuple(f"class {number}" for number in range(CLASSES))
    given = Start(model, method.attach(model), source or Noise(), said, names, model.config)
    return Finetuning(job, given)
