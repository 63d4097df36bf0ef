"""What the cases of token merging share: schedules, sizes, and which token ended up in which."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vpbench.api import Tokens


def schedule(per_block: Sequence[int], depth: int) -> str:
    """Write merges per block as `Tome.schedule` takes them: `depth` counts, none below 0, padded with 0."""
    padded = [*per_block, *[0] * depth][:depth]
    return "/".join(str(max(count, 0)) for count in padded)


def groups(notes: Mapping[str, Tensor], clips: int, tokens: int, depth: int) -> Tensor:
    """Follow the merges that ToMe noted: `[clips, tokens]`, the final token that each original one ended up in."""
    group = torch.arange(tokens).expand(clips, -1)
    for layer in range(depth):
        if f"block{layer}.unm_idx" in notes:
            names = ("unm_idx", "src_idx", "dst_idx")
            group = _into(*(notes[f"block{layer}.{name}"] for name in names)).gather(1, group)
    return group


def _into(unmerged: Tensor, source: Tensor, partner: Tensor) -> Tensor:
    """Return the new position of every old one, `[B, n]`: unmerged even tokens as ranked, then all odd ones."""
    stay = unmerged.shape[1]
    even = torch.empty(unmerged.shape[0], stay + source.shape[1], dtype=torch.int64)
    even.scatter_(1, unmerged, torch.arange(stay).expand_as(unmerged)).scatter_(1, source, stay + partner)
    # there are as many odd tokens as even ones or one less; positions beyond the last token are never looked up
    odd = stay + torch.arange(even.shape[1]).expand_as(even)
    return torch.stack([even, odd], dim=2).flatten(1)


def sizes(tokens: Tokens) -> Tensor:
    """Return `[B, n]`: how many original tokens each one stands for; clips have equal lengths."""
    size = torch.ones(len(tokens.index)) if tokens.size is None else tokens.size
    return size.view(len(tokens.lengths), -1)
