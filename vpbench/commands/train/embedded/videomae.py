"""Train the embedded VideoMAE-style backbone on decoded synthetic motion clips."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vpbench.api import Selection, Tokens
from vpbench.backbones.videomae import VIDEOMAE_EMBEDDED
from vpbench.backbones.videomae.network import VideoMAE
from vpbench.commands.train import embedded
from vpbench.commands.train.embedded import ClassifierRecipe
from vpbench.commands.train.loop import State
from vpbench.datasets.synthmotion.scene import TARGETS


@dataclass(frozen=True, kw_only=True)
class VideoMAERecipe(ClassifierRecipe):
    """Every number of the training run. `tokens` maps the share of steps done to the tokens each clip keeps."""

    steps: int = 4500
    tokens: tuple[tuple[float, int], ...] = ((0.0, 112), (0.65, 160), (0.8, 256), (0.93, 512))
    motion_guided: float = 0.8
    auxiliary_after: int = 3


def train(recipe: VideoMAERecipe, out: Path, command: str) -> Path:
    """Run the recipe, resuming from `out` if it was begun there; returns the safetensors file. See `loop.run`."""
    torch.manual_seed(recipe.seed)
    state = embedded.begin(VideoMAE(VIDEOMAE_EMBEDDED), VIDEOMAE_EMBEDDED.dim, TARGETS, ("pos_embed",), recipe)
    return embedded.classifier("videomae_embedded", state, recipe, guess, out, command)


def guess(
    state: State[VideoMAE], recipe: VideoMAERecipe, pixels: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, guesses of the dense targets at the tokens that are kept, and these targets."""
    count = recipe.at(state.step, recipe.tokens)
    change = embedded.moving(pixels, state.model.grid)
    selection = Selection.top(embedded.ranked(change, recipe.motion_guided, state.generator), count)
    clip = torch.arange(len(pixels)).repeat_interleave(torch.tensor(selection.lengths))
    tokens: Tokens = state.model.embed(pixels, selection)
    for number, block in enumerate(state.model.blocks):
        tokens = block(tokens)
        if number == recipe.auxiliary_after:
            guessed = state.extra(tokens.x)
    return state.model.classify(tokens), guessed, targets.flatten(1, 3)[clip, selection.index]
