"""Train the embedded VideoMAE-style backbone on decoded synthetic motion clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import Selection, Tokens, temporal_difference
from vpbench.backbones.videomae import VIDEOMAE_EMBEDDED
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.train import embedded
from vpbench.commands.train.embedded import State
from vpbench.datasets.synthmotion.scene import TARGETS

NAME = "videomae_embedded"


@dataclass(frozen=True)
class Recipe(embedded.Recipe):
    """Every number of the training run. `tokens` maps the share of steps done to the tokens each clip keeps."""

    steps: int = 4500
    tokens: tuple[tuple[float, int], ...] = ((0.0, 112), (0.65, 160), (0.8, 256), (0.93, 512))
    motion_guided: float = 0.8
    auxiliary_after: int = 3


def train(recipe: Recipe, out: Path, threads: int, command: str) -> Path:
    """Run the recipe, resuming from `out` if it was begun there; returns the safetensors file. See `embedded.train`."""
    embedded.prepare(recipe)
    return embedded.train(NAME, start(recipe), recipe, step, out, threads, command)


def start(recipe: Recipe) -> State[VideoMAE]:
    """Build model, auxiliary head and optimizers from the seed."""
    torch.manual_seed(recipe.seed)
    model = VideoMAE(VIDEOMAE_EMBEDDED)
    auxiliary = nn.Linear(VIDEOMAE_EMBEDDED.dim, TARGETS)
    assert model.pos_embed is not None
    optimizers = embedded.optimizers(model, iter([model.pos_embed]), auxiliary, recipe)
    return State(model.train(), auxiliary, optimizers, torch.Generator().manual_seed(recipe.seed))


def step(
    state: State[VideoMAE], recipe: Recipe, pixels: Tensor, targets: Tensor, labels: Tensor
) -> tuple[float, float]:
    """Do one optimisation step; returns class loss and auxiliary loss."""
    selection = choose(pixels, kept(recipe, state.step), recipe, state)
    wanted = targets.flatten(1, 3).flatten(0, 1)[_rows(selection, targets[0, ..., 0].numel())]
    weight = 1 + (recipe.actor_weight - 1) * (wanted[:, :1] > 0.02)

    def loss() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
            tokens: Tokens = state.model.embed(pixels, selection)
            for number, block in enumerate(state.model.blocks):
                tokens = block(tokens)
                if number == recipe.auxiliary_after:
                    guess = state.auxiliary(tokens.x)
            logits = state.model.classify(tokens)
        auxiliary = (F.smooth_l1_loss(guess.float(), wanted, reduction="none", beta=0.1) * weight).mean()
        return F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing), auxiliary

    return embedded.descend(state, recipe, loss)


def choose(pixels: Tensor, count: int, recipe: Recipe, state: State[VideoMAE]) -> Selection:
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
