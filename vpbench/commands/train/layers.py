"""Which layer each parameter of a network belongs to, and with it its learning rate and its decay."""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from vpbench.commands.train.finetune_recipes import FinetuneRecipe

#: names of what holds blocks in a row, each with its number
_NUMBERED = re.compile(r"(?:^|\.)(?:temporal_blocks|blocks|layers|layer|self_attention_layers)\.[0-9]+")
#: what comes before all blocks
_FIRST = re.compile(r"embed|cls_token|bias_table")
#: tables and tokens that are not decayed, and neither are vectors
_SPARED = ("pos_embed", "position_embeddings", "cls_token", "bias_table", "length_embed")


def layers(model: nn.Module) -> dict[str, int]:
    """Return the layer of each parameter by name: 0 of embeddings, 1 and on of blocks in order, then of the rest."""
    found: dict[str, int | None] = {}
    paths: dict[str, int] = {}
    for name, _ in model.named_parameters():
        numbered = [match.end() for match in _NUMBERED.finditer(name)]
        path = name[: numbered[-1]] if numbered else None
        if path is not None:
            found[name] = paths.setdefault(path, len(paths) + 1)
        else:
            found[name] = 0 if _FIRST.search(name) else None
    return {name: len(paths) + 1 if layer is None else layer for name, layer in found.items()}


def groups(model: nn.Module, recipe: FinetuneRecipe) -> Iterator[dict[str, Any]]:
    """Yield the optimiser's parameter groups: `share` of the rate by layer, vectors and tables without decay."""
    by_kind: dict[tuple[int, bool], list[nn.Parameter]] = {}
    of = layers(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = parameter.ndim == 1 or any(table in name for table in _SPARED)
            by_kind.setdefault((of[name], spared), []).append(parameter)
    top = max(of.values())
    for (layer, spared), chosen in sorted(by_kind.items(), key=lambda each: each[0]):
        decay = 0.0 if spared else recipe.weight_decay
        yield {"params": chosen, "weight_decay": decay, "share": recipe.layer_decay ** (top - layer)}
