"""MViT's published checkpoint layouts, recognised by their tensor names and mapped to ours."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vpbench.backbones.checkpoints import names, recognised
from vpbench.backbones.checkpoints.names import SCORERS, Tensors
from vpbench.backbones.mvit import MViTConfig
from vpbench.errors import UsageError
from vpbench.registry import Sizes

__all__ = ["SCORERS", "Recognised", "matches", "recognise"]
_PREFIXES = ("module.", "model.", "net.", "backbone.")
_ANCHORS = ("patch_embed.", "conv_proj.")
_SPATIAL, _TEMPORAL = "pos_embed_spatial", "pos_embed_temporal"
_TABLES = ("cls_token", "pos_embed_class", _SPATIAL, _TEMPORAL)
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
class Recognised(recognised.Recognised):
    """An MViT checkpoint under our names.

    `pool_eps`: of the norms after the pooling convolutions, as the code that this layout belongs to evaluates them.
    """

    pool_eps: float

    head = "head.projection.weight"

    @property
    def _shapes(self) -> tuple[int, tuple[int, ...], int, int, int]:
        """Width and kernel of the embedding; blocks; positions in time, and in a slice."""
        width, _, *kernel = self.tensors["patch_embed.proj.weight"].shape
        depth = len(names.numbered(self.tensors, "blocks."))
        return width, tuple(kernel), depth, self.tensors[_TEMPORAL].shape[1], self.tensors[_SPATIAL].shape[1]

    @property
    def sizes(self) -> str:
        """The family and the sizes that tell its members apart, in words."""
        width, kernel, depth, slots, places = self._shapes
        tubelet = "x".join(map(str, kernel))
        return f"MViT with {depth} blocks from width {width}, {tubelet} patches, {slots} x {places} positions"

    def fits(self, config: Sizes) -> bool:
        """Whether a backbone's sizes are those of this file."""
        if not isinstance(config, MViTConfig):
            return False
        t, h, w = config.patch_stride
        positions = (config.frames // t, (config.height // h) * (config.width // w))
        return self._shapes == (config.dim, config.patch_kernel, config.depth, *positions)

    def config(self, base: Sizes, frames: int | None = None, size: int | None = None) -> MViTConfig:
        """Return the backbone's sizes with what the file decides: classes, and the norms after the pooling."""
        assert isinstance(base, MViTConfig)
        return replace(base, classes=self.classes, pool_eps=self.pool_eps)


def matches(state: Iterable[str]) -> bool:
    """Whether tensors of these names are an MViT's: its attention pools, its positions are split into two tables."""
    return any(".attn.pool_" in name or name.endswith((_SPATIAL, "pos_encoding.spatial_pos")) for name in state)


def recognise(state: Mapping[str, Tensor], where: str) -> Recognised:
    """Map the tensors of a file to our names, as float32; whether all are there, the model has to say.

    Takes STTS's `model_state`, SlowFast's (query, key and value in one matrix or in three) and torchvision's names.
    Raises UsageError, in one line that starts with `where`, for files that are no MViT classifier with pooling
    convolutions, for two tensors that mean the same one of ours, and for non-finite weights.
    """
    tensors, _ = names.without_prefixes(state, _PREFIXES, where, _ANCHORS)
    torchvision = any(name.startswith("pos_encoding.") for name in tensors)
    if torchvision:
        tensors = names.with_names(names.renamer(_TORCHVISION), tensors, where)
    _check(tensors, state, where)
    separate = any(_PART.match(name) for name in tensors)
    if separate:
        tensors = _joined(tensors, where)
    for table in (name for name in _TABLES if torchvision and name in tensors):
        # stored there without the axes that ours broadcast over
        tensors[table] = tensors[table].reshape(1, -1, tensors[table].shape[-1])
    _check_tables(tensors, where)
    scorers, tensors = names.without_scorers(names.single(tensors, where), where)
    layout = "torchvision mvit_v1_b" if torchvision else "STTS" if scorers else "SlowFast"
    layout += ", separate q, k, v" if separate else ""
    return Recognised(layout, tensors, scorers, (), 1e-6 if torchvision else 1e-5)


def _check(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError for what cannot be an MViT classifier with pooling convolutions."""
    if not any(name.endswith("attn.pool_k.weight") for name in tensors):
        raise names.foreign(where, "an MViT checkpoint with pooling convolutions", state)
    names.check_patches(tensors, where)
    names.check_head(tensors, Recognised.head, where)
    names.check_precision(tensors, where)
    for name in _TABLES:
        if name in tensors and (not tensors[name].ndim or 0 in tensors[name].shape):
            raise UsageError(f"{where}: tensor {name!r} is {names.shape(tensors[name])}, not a table")


def _check_tables(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError unless the tables are there as `[1, positions, width]`, since sizes are read from them."""
    for name in (_SPATIAL, _TEMPORAL):
        if name not in tensors:
            raise UsageError(f"{where}: tensor {name!r} is missing; only MViTs with separate positions are read")
        if tensors[name].ndim != 3:
            raise UsageError(f"{where}: tensor {name!r} is {names.shape(tensors[name])}, not [1, positions, width]")


def _joined(tensors: Mapping[str, Tensor], where: str) -> Tensors:
    """Bring queries, keys and values, where each has a matrix and a bias of its own, into one of each."""
    found = dict(tensors)
    for attention, kind in sorted({match.groups() for name in tensors if (match := _PART.match(name))}):
        parts = [found.pop(f"{attention}{part}.{kind}", None) for part in "qkv"]
        there = [part for part in parts if part is not None and part.ndim]
        if len(there) < 3 or len({part.shape for part in there}) > 1:
            raise UsageError(f"{where}: {attention}q, k and v are not all there with a {kind} of the same shape")
        names.add(found, f"{attention}qkv.{kind}", torch.cat(there), where)
    return found
