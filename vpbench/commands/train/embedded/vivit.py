"""Train the embedded ViViT on decoded synthetic motion clips."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vpbench.api import ClipBatch, Pruner, Selection, Tokens
from vpbench.backbones.vivit import VIVIT_EMBEDDED
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.train import embedded
from vpbench.commands.train.embedded import ClassifierRecipe
from vpbench.commands.train.loop import State
from vpbench.datasets.synthmotion.scene import TARGETS


@dataclass(frozen=True, kw_only=True)
class ViViTRecipe(ClassifierRecipe):
    """Every number of the training run. `tokens` maps the share of steps done to the patches each slot keeps."""

    steps: int = 4500
    tokens: tuple[tuple[float, int], ...] = ((0.0, 14), (0.65, 20), (0.8, 32), (0.93, 64))
    motion_guided: float = 0.8
    auxiliary_after: int = 3


class Chosen(Pruner):
    """Keep the given patches of every slot, `[B, slots, k]`, and lay aside the tokens that leave one block."""

    stepwise = True

    def __init__(self, kept: Tensor, per_slot: int, layer: int) -> None:
        start = torch.arange(kept.shape[1])[:, None] * per_slot
        self.index, self.layer = (kept + start).flatten(1), layer
        self.seen: Tokens | None = None

    def video(self, batch: ClipBatch) -> Selection:
        """Return the patches as positions in the clip."""
        return Selection.of_each(self.index)

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        """Look at one block's tokens."""
        if layer == self.layer:
            self.seen = tokens
        return tokens


def train(recipe: ViViTRecipe, out: Path, command: str) -> Path:
    """Run the recipe, resuming from `out` if it was begun there; returns the safetensors file. See `loop.run`."""
    torch.manual_seed(recipe.seed)
    tables = ("pos_embed", "cls_token")
    state = embedded.begin(ViViT(VIVIT_EMBEDDED), VIVIT_EMBEDDED.dim, TARGETS, tables, recipe)
    return embedded.classifier("vivit_embedded", state, recipe, guess, out, command)


def guess(state: State[ViViT], recipe: ViViTRecipe, pixels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, guesses of the dense targets at the patches that are kept, and these targets."""
    grid, count = state.model.grid, recipe.at(state.step, recipe.tokens)
    ranks = embedded.ranked(embedded.moving(pixels, grid), recipe.motion_guided, state.generator)
    chosen = ranks.view(-1, grid.slots, grid.per_slot).topk(count).indices.sort(dim=2).values
    pruner = Chosen(chosen, grid.per_slot, recipe.auxiliary_after)
    logits = state.model(ClipBatch(pixels, ("",) * len(pixels)), pruner).logits
    assert pruner.seen is not None
    patches = pruner.seen.x.view(-1, pruner.seen.lengths[0], pruner.seen.x.shape[1])[:, 1:]
    wanted = targets.flatten(1, 3)[torch.arange(len(pixels))[:, None], pruner.index].flatten(0, 1)
    return logits, state.extra(patches.flatten(0, 1)), wanted
