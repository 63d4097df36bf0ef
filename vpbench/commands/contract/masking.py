"""Dense attention masked from tokens: what a network that drops them has to give."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vpbench.api import Classifier, ClipBatch, Pruner, Tokens
from vpbench.commands.contract.promise import Unchecked
from vpbench.commands.contract.trial import run


class Dropping(Pruner):
    """Keeps given places of each clip from after a block on; class tokens, whose place is -1, always."""

    stepwise = True

    def __init__(self, kept: Sequence[Tensor], network: Classifier, block: int) -> None:
        self.block, grid = block, network.grid
        mask = torch.zeros(len(kept), grid.tokens, dtype=torch.bool)
        for clip, own in enumerate(kept):
            mask[clip, own] = True
        # of each sequence: a clip, or a step of one
        self.mask = mask.view(-1, network.sequence)

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        """Drop them."""
        if layer != self.block:
            return tokens
        owner = torch.arange(len(tokens.lengths)).repeat_interleave(torch.tensor(tokens.lengths))
        stays = (tokens.index < 0) | self.mask[owner, tokens.index.clamp(min=0)]
        lengths = owner[stays].bincount(minlength=len(tokens.lengths)).tolist()
        return tokens.take(stays.nonzero()[:, 0], tuple(lengths))


def dropping(kept: Sequence[Tensor], network: Classifier, block: int) -> Pruner:
    """Return a pruner that drops all but given places after a block."""
    return Dropping(kept, network, block)


class _Readout(Dropping):
    """Drops after the last block, where it decides on nothing but the readout; says when masks begin."""

    def __init__(self, kept: Sequence[Tensor], network: Classifier, mode: "_Masks", first: int) -> None:
        super().__init__(kept, network, network.depth - 1)
        self.mode, self.first = mode, first
        mode.on = first < 0

    def after_block(self, layer: int, tokens: Tokens) -> Tokens:
        """Switch masks on after the block they begin behind, and off after the last."""
        found = super().after_block(layer, tokens)
        self.mode.on = self.first <= layer < self.block
        return found


class _Masks(TorchFunctionMode):
    """While it is on, masks keys out of every fused attention over whole sequences, `mask [sequences, tokens]`."""

    def __init__(self, mask: Tensor, clips: int) -> None:
        super().__init__()
        self.mask, self.clips, self.on, self.calls = mask, clips, False, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if not self.on or func is not F.scaled_dot_product_attention:
            return func(*args, **named)
        key = args[1] if len(args) > 1 else named["key"]
        classes = key.shape[-2] - self.mask.shape[1]
        if (
            key.shape[0] != len(self.mask)
            or not 0 <= classes <= 2
            or len(args) > 3
            or named.get("attn_mask") is not None
        ):
            raise Unchecked(f"its attention over {list(key.shape)} keys is not over whole sequences, to be masked")
        self.calls += 1
        every = torch.ones(len(self.mask), classes, dtype=torch.bool)
        named["attn_mask"] = torch.cat([every, self.mask], dim=1)[:, None, None, :]
        return func(*args, **named)


def masked(network: Classifier, batch: ClipBatch, kept: Sequence[Tensor], block: int) -> Tensor:
    """Return logits of all tokens where attention after `block` (-1: all of it) is masked from those not kept.

    Raises Unchecked where attention is not computed by torch's fused function.
    """
    mode = _Masks(Dropping(kept, network, 0).mask, len(kept))
    with mode:
        logits = run(network, batch, _Readout(kept, network, mode, block)).logits
    if not mode.calls:
        raise Unchecked("its attention is not torch's scaled_dot_product_attention, so that it cannot be masked")
    return logits
