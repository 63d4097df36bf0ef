"""Train the embedded backbones whose tokens form a grid on decoded synthetic motion clips."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpbench import registry
from vpbench.api import ClipBatch, GridBackbone, Pruner
from vpbench.api.backbone import classifier
from vpbench.commands.train import embedded
from vpbench.commands.train.embedded import ClassifierRecipe
from vpbench.commands.train.loop import State
from vpbench.datasets.synthmotion.scene import TARGETS

# Rows and columns of the dense targets that one token of the last stage covers.
_CELL = 2


@dataclass(frozen=True, kw_only=True)
class GridRecipe(ClassifierRecipe):
    """Every number of the training run. `slices` maps the share of steps done to the slices each clip keeps."""

    steps: int = 4000
    slices: tuple[tuple[float, int], ...] = ((0.0, 4), (0.6, 5), (0.8, 6), (0.93, 8))
    motion_guided: float = 0.8
    # most tokens are background here, and most slices still: the few that move have to be heard
    actor_weight: float = 25.0
    auxiliary_weight: float = 20.0


class Slices(Pruner):
    """Keep the given slices `[B, k]` of each clip."""

    def __init__(self, index: Tensor) -> None:
        self.index = index

    def stage(self, block: int, x: Tensor) -> Tensor:
        """Select before the first block of `x` `[B, T, H, W, C]`."""
        return x.gather(1, self.index[:, :, None, None, None].expand(-1, -1, *x.shape[2:])) if block == 0 else x


def names() -> list[str]:
    """List the backbones that this recipe trains: those with embedded weights whose tokens form a grid."""
    return [name for name, each in registry.backbones().items() if each.flow == "grid" and each.weights is not None]


def train(backbone: str, recipe: GridRecipe, out: Path, command: str) -> Path:
    """Run the recipe, resuming from `out` if it was begun there; returns the safetensors file. See `loop.run`."""
    torch.manual_seed(recipe.seed)
    model = classifier(backbone)
    assert isinstance(model, GridBackbone)
    width, tables = model.width_before(model.sites - 1), ("pos_embed", "bias_table", "cls_token")
    state = embedded.begin(model, width, TARGETS * _CELL * _CELL, tables, recipe)
    return embedded.classifier(backbone, state, recipe, guess, out, command)


def guess(
    state: State[GridBackbone], recipe: GridRecipe, pixels: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, guesses of the dense targets in the slices that are kept, and these targets."""
    ranks = embedded.ranked(moving(pixels), recipe.motion_guided, state.generator)
    chosen = ranks.topk(recipe.at(state.step, recipe.slices)).indices.sort(dim=1).values
    seen: list[Tensor] = []
    # the dense targets are asked for after the last but one block of the last stage
    stages: Any = getattr(state.model, "layers", [state.model])
    site = stages[-1].blocks[-2]
    hook = site.register_forward_hook(lambda module, inputs, out: seen.append(grid_of(out)))
    try:
        logits = state.model(ClipBatch(pixels, ("",) * len(pixels)), Slices(chosen)).logits
    finally:
        hook.remove()
    wanted = _cells(targets[torch.arange(len(chosen))[:, None], chosen])
    return logits, state.extra(seen[0]).unflatten(-1, (_CELL * _CELL, TARGETS)), wanted


def grid_of(out: Any) -> Tensor:
    """Return what a block returned as a grid `[B, D, H, W, C]`."""
    if isinstance(out, Tensor):
        return out
    x, grid = out
    return x[:, 1:].unflatten(1, (grid.slots, grid.rows, grid.cols))


def _cells(targets: Tensor) -> Tensor:
    """Bring dense targets `[B, k, rows, cols, 7]` to the coarser tokens, `[B, k, rows/2, cols/2, 4, 7]`."""
    b, k, rows, cols, channels = targets.shape
    cells = targets.view(b, k, rows // _CELL, _CELL, cols // _CELL, _CELL, channels).transpose(3, 4)
    return cells.reshape(b, k, rows // _CELL, cols // _CELL, _CELL * _CELL, channels)


def moving(pixels: Tensor) -> Tensor:
    """Return `[B, slices]`: the most that a frame of each slice differs from the frame before."""
    frames = pixels[:, :, ::4, ::4].float()  # enough to see what moves
    change = (frames[:, 1:] - frames[:, :-1]).abs().mean(dim=(2, 3, 4))
    return F.pad(change, (1, 0)).unflatten(1, (-1, 2)).amax(dim=2)
