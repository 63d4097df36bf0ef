"""Train the embedded ViViT on decoded synthetic motion clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpbench.api import ClipBatch, Pruner, Selection, Tokens, temporal_difference
from vpbench.backbones.vivit import VIVIT_EMBEDDED
from vpbench.backbones.vivit.network import ViViT
from vpbench.commands.train import embedded
from vpbench.commands.train.embedded import State
from vpbench.datasets.synthmotion.scene import TARGETS

NAME = "vivit_embedded"


@dataclass(frozen=True)
class Recipe(embedded.Recipe):
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


def train(recipe: Recipe, out: Path, threads: int, command: str) -> Path:
    """Run the recipe, resuming from `out` if it was begun there; returns the safetensors file. See `embedded.train`."""
    embedded.prepare(recipe)
    return embedded.train(NAME, start(recipe), recipe, step, out, threads, command)


def start(recipe: Recipe) -> State[ViViT]:
    """Build model, auxiliary head and optimizers from the seed."""
    torch.manual_seed(recipe.seed)
    model = ViViT(VIVIT_EMBEDDED)
    auxiliary = nn.Linear(VIVIT_EMBEDDED.dim, TARGETS)
    tables = (p for n, p in model.named_parameters() if "pos_embed" in n or "cls_token" in n)
    optimizers = embedded.optimizers(model, tables, auxiliary, recipe)
    return State(model.train(), auxiliary, optimizers, torch.Generator().manual_seed(recipe.seed))


def step(state: State[ViViT], recipe: Recipe, pixels: Tensor, targets: Tensor, labels: Tensor) -> tuple[float, float]:
    """Do one optimisation step; returns class loss and auxiliary loss."""
    chosen = choose(pixels, kept(recipe, state.step), recipe, state)
    pruner = Chosen(chosen, state.model.grid.per_slot, recipe.auxiliary_after)
    clips = torch.arange(len(pixels))[:, None]
    wanted = targets.flatten(1, 3)[clips, pruner.index].flatten(0, 1)
    weight = 1 + (recipe.actor_weight - 1) * (wanted[:, :1] > 0.02)

    def loss() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
            logits = state.model(ClipBatch(pixels, ("",) * len(pixels)), pruner).logits
            assert pruner.seen is not None
            patches = pruner.seen.x.view(-1, pruner.seen.lengths[0], pruner.seen.x.shape[1])[:, 1:]
            guess = state.auxiliary(patches.flatten(0, 1))
        auxiliary = (F.smooth_l1_loss(guess.float(), wanted, reduction="none", beta=0.1) * weight).mean()
        return F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing), auxiliary

    return embedded.descend(state, recipe, loss)


def choose(pixels: Tensor, count: int, recipe: Recipe, state: State[ViViT]) -> Tensor:
    """Keep `count` patches of every slot, `[B, slots, count]`: in most clips moving ones first, in the others any."""
    grid = state.model.grid
    noise = torch.rand(len(pixels), grid.slots, grid.per_slot, generator=state.generator)
    guided = torch.rand(len(pixels), 1, 1, generator=state.generator) < recipe.motion_guided
    change = temporal_difference(pixels, grid, "ends")
    # a tubelet moves if it differs from the one before or from the one after
    both = torch.maximum(F.pad(change, (0, 0, 0, 0, 1, 0)), F.pad(change, (0, 0, 0, 0, 0, 1))).flatten(2)
    motion = both / both.amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    return torch.where(guided, motion + 0.5 * noise, noise).topk(count).indices.sort(dim=2).values


def kept(recipe: Recipe, number: int) -> int:
    """Patches per slot at a step."""
    return [count for share, count in recipe.tokens if number >= share * recipe.steps][-1]
