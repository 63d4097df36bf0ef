"""MViT's published checkpoint layouts, recognised by their tensor names and mapped to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vpbench.backbones.mvit_config import MViTConfig
from vpbench.errors import UsageError

Tensors = dict[str, Tensor]

#: the parts of the token selection that STTS trains along with the backbone
SCORERS = ("time_score_predictor.", "space_score_predictor.")

# Half precision becomes float32; anything else was not written by a training run.
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TABLES = ("cls_token", "pos_embed_class", "pos_embed_spatial", "pos_embed_temporal")
_PART = re.compile(r"(blocks\.\d+\.attn\.)[qkv]\.(weight|bias)$")
_TORCHVISION = (
    (r"conv_proj\.", "patch_embed.proj."),
    (r"pos_encoding\.class_token$", "cls_token"),
    (r"pos_encoding\.class_pos$", "pos_embed_class"),
    (r"pos_encoding\.(spatial|temporal)_pos$", r"pos_embed_\1"),
    (r"blocks\.(\d+)\.attn\.project\.0\.", r"blocks.\1.attn.proj."),
    (r"blocks\.(\d+)\.attn\.pool_([qkv])\.pool\.", r"blocks.\1.attn.pool_\2."),
    (r"blocks\.(\d+)\.attn\.pool_([qkv])\.norm_act\.0\.", r"blocks.\1.attn.norm_\2."),
    (r"blocks\.(\d+)\.mlp\.0\.", r"blocks.\1.mlp.fc1."),
    (r"blocks\.(\d+)\.mlp\.3\.", r"blocks.\1.mlp.fc2."),
    (r"blocks\.(\d+)\.project\.", r"blocks.\1.proj."),
    (r"head\.1\.", "head.projection."),
)


@dataclass(frozen=True)
class Recognised:
    """An MViT checkpoint under our names: float32 `tensors`, the `layout` it came in, and the selection's `scorers`.

    `pool_eps`: of the norms after the pooling convolutions, as the code that this layout belongs to evaluates them.
    """

    layout: str
    tensors: Tensors
    scorers: Tensors
    pool_eps: float

    def config(self, base: MViTConfig) -> MViTConfig:
        """Return the backbone's sizes with what the file decides: classes, and the norms after the pooling."""
        return replace(base, classes=int(self.tensors["head.projection.weight"].shape[0]), pool_eps=self.pool_eps)


def recognise(state: Mapping[str, Tensor], where: str) -> Recognised:
    """Map the tensors of a file to our names, as float32; whether all are there, the model has to say.

    Takes STTS's `model_state`, SlowFast's (query, key and value in one matrix or in three) and torchvision's names.
    Raises UsageError, in one line that starts with `where`, for files that are no MViT classifier with pooling
    convolutions, for two tensors that mean the same one of ours, and for non-finite weights.
    """
    names = _without_prefix(state)
    torchvision = any(name.startswith("pos_encoding.") for name in names)
    tensors = _renamed(names, where) if torchvision else names
    _check(tensors, state, where)
    separate = any(_PART.match(name) for name in tensors)
    if separate:
        tensors = _joined(tensors, where)
    for table in (name for name in _TABLES if torchvision and name in tensors):
        # stored there without the axes that ours broadcast over
        tensors[table] = tensors[table].reshape(1, -1, tensors[table].shape[-1])
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise UsageError(f"{where}: tensor {broken[0]!r} holds NaN or infinity, or numbers beyond float32")
    scorers = {name: tensors.pop(name) for name in list(tensors) if name.startswith(SCORERS)}
    layout = "torchvision mvit_v1_b" if torchvision else "STTS" if scorers else "SlowFast"
    layout += ", separate q, k, v" if separate else ""
    return Recognised(layout, tensors, scorers, 1e-6 if torchvision else 1e-5)


def _without_prefix(state: Mapping[str, Tensor]) -> Tensors:
    """Strip the prefix that a parallel training run leaves if nobody takes it off."""
    whole = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if whole else name: tensor for name, tensor in state.items()}


def _renamed(names: Mapping[str, Tensor], where: str) -> Tensors:
    found: Tensors = {}
    for name, tensor in names.items():
        matching = (re.sub(f"^{theirs}", ours, name) for theirs, ours in _TORCHVISION if re.match(theirs, name))
        ours = next(matching, name)
        if ours in found:
            raise UsageError(f"{where}: two tensors stand for {ours!r}; save the one that counts alone")
        found[ours] = tensor
    return found


def _check(tensors: Tensors, state: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError for what cannot be an MViT classifier with pooling convolutions."""
    if not any(name.endswith("attn.pool_k.weight") for name in tensors):
        first = ", ".join(repr(name) for name in sorted(state)[:3])
        raise UsageError(
            f"{where}: not an MViT checkpoint with pooling convolutions, no tensor fits; its first names are {first}"
        )
    head = tensors.get("head.projection.weight")
    if head is None:
        raise UsageError(f"{where}: it has no classifier ('head.projection.weight'); fine-tune it first")
    if head.ndim != 2 or 0 in head.shape:
        raise UsageError(f"{where}: 'head.projection.weight' is {list(head.shape)}, not [classes, width]")
    for name, tensor in tensors.items():
        if tensor.dtype not in _PRECISIONS:
            raise UsageError(f"{where}: tensor {name!r} is {tensor.dtype}; save it in half, single or double precision")
        if name in _TABLES and not tensor.ndim:
            raise UsageError(f"{where}: tensor {name!r} is a single number, not a table")


def _joined(tensors: Tensors, where: str) -> Tensors:
    """Bring queries, keys and values, where each has a matrix and a bias of its own, into one of each."""
    found = dict(tensors)
    for attention, kind in sorted({match.groups() for name in tensors if (match := _PART.match(name))}):
        parts = [found.pop(f"{attention}{part}.{kind}", None) for part in "qkv"]
        there = [part for part in parts if part is not None and part.ndim]
        if len(there) < 3 or len({part.shape for part in there}) > 1:
            raise UsageError(f"{where}: {attention}q, k and v are not all there with a {kind} of the same shape")
        if f"{attention}qkv.{kind}" in found:
            raise UsageError(f"{where}: two tensors stand for '{attention}qkv.{kind}'; save the one that counts alone")
        found[f"{attention}qkv.{kind}"] = torch.cat(there)
    return found
