"""VideoMAE's published checkpoint layouts, recognised by their tensor names and mapped to ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import methodcaller

import torch
from torch import Tensor

from vpbench.backbones.catalog import CATALOG, VideoMAEConfig
from vpbench.errors import UsageError

Tensors = dict[str, Tensor]

# Part of a training run or a fixed formula, not of the classifier; named when a file is inspected.
_EXTRAS = re.compile(r"decoder\.|encoder_to_decoder\.|mask_token$|data_preprocessor\.|position_embeddings$")
# Half precision becomes float32; anything else was not written by a training run.
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_PREFIXES = ("module.", "model.", "backbone.", "encoder.")

_HUGGING_FACE = (
    (r"(?:videomae\.)?embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"classifier\.", "head."),
)
_MMACTION = (
    (r"patch_embed\.projection\.", "patch_embed.proj."),
    (r"blocks\.(\d+)\.mlp\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"blocks\.(\d+)\.mlp\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (r"cls_head\.fc_cls\.", "head."),
)


@dataclass(frozen=True)
class Recognised:
    """A VideoMAE checkpoint under our names: float32 `tensors`, the `layout` it came in, and what was left aside."""

    layout: str
    tensors: Tensors
    extras: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return int(self.tensors["patch_embed.proj.weight"].shape[0])

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len({match[1] for name in self.tensors if (match := re.match(r"blocks\.(\d+)\.", name))})

    def backbones(self) -> list[str]:
        """Names of the backbones of this width, depth and tubelet; heads are in no file, only in the catalog."""
        tubelet = tuple(self.tensors["patch_embed.proj.weight"].shape[2:])
        return [
            name
            for name, entry in CATALOG.items()
            if isinstance(c := entry.config, VideoMAEConfig)
            and (c.dim, c.depth) == (self.dim, self.depth)
            and (c.tubelet, c.patch, c.patch) == tubelet
        ]

    def config(self, backbone: str) -> VideoMAEConfig:
        """Return the backbone's sizes with what the file decides: classes, stored positions, run-length embeddings."""
        base = CATALOG[backbone].config
        assert isinstance(base, VideoMAEConfig)
        lengths = self.tensors.get("length_embed")
        return replace(
            base,
            classes=int(self.tensors["head.weight"].shape[0]),
            frames=base.frames if lengths is None else base.tubelet * int(lengths.shape[1]),
            stored_positions="pos_embed" in self.tensors,
            run_lengths=lengths is not None,
        )


def recognise(state: Mapping[str, Tensor], where: str) -> Recognised:
    """Map the tensors of a file to our names, as float32.

    Raises UsageError, in one line that starts with `where`, for files that are no VideoMAE classifier, and for
    non-finite weights.
    """
    layout, tensors, extras = renamed(state, where)
    head, lengths = tensors.get("head.weight"), tensors.get("length_embed")
    if head is None:
        raise UsageError(
            f"{where}: a pre-training checkpoint, it has no classifier ('head.weight'); fine-tune it first"
        )
    width = tensors["patch_embed.proj.weight"].shape[0]
    # the sizes that decide the model; the others are compared with the model's own
    if head.ndim != 2 or 0 in head.shape:
        raise UsageError(f"{where}: 'head.weight' is {_shape(head)}, not [classes, {width}]")
    if lengths is not None and (lengths.ndim != 3 or lengths.shape[::2] != (1, width) or not lengths.shape[1]):
        raise UsageError(f"{where}: 'length_embed' is {_shape(lengths)}, not [1, slots, {width}]")
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise UsageError(f"{where}: tensor {broken[0]!r} holds NaN or infinity, or numbers beyond float32")
    return Recognised(layout, tensors, extras)


def renamed(state: Mapping[str, Tensor], where: str) -> tuple[str, Tensors, tuple[str, ...]]:
    """Return the layout, the tensors under our names in their own precision, and the names left aside.

    Raises UsageError for files of other models, for two tensors that mean the same one of ours, and where queries,
    keys and values cannot be joined as VideoMAE has them.
    """
    names, prefixes = _without_prefixes(state, where)
    kept = {name: tensor for name, tensor in names.items() if not _EXTRAS.match(name)}
    layout, rename = _layout(kept, prefixes)
    tensors = _with_names(rename, kept, where)
    patch = tensors.get("patch_embed.proj.weight")
    if patch is None or not any(name.startswith("blocks.0.") for name in tensors):
        first = ", ".join(repr(name) for name in sorted(state)[:3])
        raise UsageError(f"{where}: not a VideoMAE checkpoint, no tensor fits; its first names are {first}")
    if patch.ndim != 5:
        raise UsageError(f"{where}: 'patch_embed.proj.weight' is no 3-D convolution, so this is no video model")
    for name, tensor in tensors.items():
        if tensor.dtype not in _PRECISIONS:
            raise UsageError(f"{where}: tensor {name!r} is {tensor.dtype}; save it in half, single or double precision")
    tensors = _joined(tensors, patch.shape[0], where)
    table = tensors.get("pos_embed")
    if table is not None and table.ndim == 3 and len(table) == 1:  # a learned table is stored with a batch axis
        tensors["pos_embed"] = table[0]
    return layout, tensors, tuple(sorted(names.keys() - kept.keys()))


def _without_prefixes(state: Mapping[str, Tensor], where: str) -> tuple[Tensors, tuple[str, ...]]:
    """Strip wrappers' prefixes from names as long as the patch embedding has one; returns the prefixes as well."""
    names, found = dict(state), []
    while prefix := next(
        (p for p in _PREFIXES if any(name.startswith(p) and "patch_embed" in name for name in names)), ""
    ):
        names = _with_names(methodcaller("removeprefix", prefix), names, where)
        found.append(prefix)
    return names, tuple(found)


def _with_names(rename: Callable[[str], str], tensors: Mapping[str, Tensor], where: str) -> Tensors:
    found: Tensors = {}
    for name, tensor in tensors.items():
        _add(found, rename(name), tensor, where)
    return found


def _add(found: Tensors, name: str, tensor: Tensor, where: str) -> None:
    """Add a tensor that must not be there yet: which of two is meant, nobody can tell."""
    if name in found:
        raise UsageError(f"{where}: two tensors stand for {name!r}; save the one that counts alone")
    found[name] = tensor


def _layout(names: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> tuple[str, Callable[[str], str]]:
    if any("embeddings.patch_embeddings." in name for name in names):
        old = any(name.endswith(".q_bias") for name in names)
        return f"Hugging Face videomae, transformers {'4' if old else '5'}.x names", _renamer(_HUGGING_FACE)
    if any(name.startswith(("cls_head.", "patch_embed.projection.")) for name in names):
        return "mmaction2", _renamer(_MMACTION)
    own = "vpbench" if "pos_embed" in names and names["pos_embed"].ndim == 2 else "VideoMAE"
    return f"{own}, prefix {''.join(prefixes)}" if prefixes else own, lambda name: name


def _renamer(rules: tuple[tuple[str, str], ...]) -> Callable[[str], str]:
    compiled = [(re.compile(f"^{pattern}"), ours) for pattern, ours in rules]

    def rename(name: str) -> str:
        return next((p.sub(ours, name) for p, ours in compiled if p.match(name)), name)

    return rename


def _joined(tensors: Tensors, width: int, where: str) -> Tensors:
    """Bring queries, keys and values into one matrix, their biases into two vectors; the key has none."""
    found = dict(tensors)
    for name in tensors:
        layer = name.rpartition("attn.")[0] + "attn."
        if name.endswith("attn.query.weight"):
            parts = [found.pop(f"{layer}{part}.weight", None) for part in ("query", "key", "value")]
            there = [part for part in parts if part is not None and part.shape == (width, width)]
            if len(there) < 3:
                raise UsageError(f"{where}: {layer}query, key and value are not all there as {width} x {width}")
            _add(found, f"{layer}qkv.weight", torch.cat(there), where)
        elif name.endswith(("attn.query.bias", "attn.value.bias")):
            _add(found, f"{layer}{name.removeprefix(layer)[0]}_bias", found.pop(name), where)
        elif name.endswith("attn.key.bias"):
            _refuse_key_bias(found.pop(name), width, name, where)
        elif name.endswith("attn.qkv.bias"):
            bias = found.pop(name)
            if bias.shape != (3 * width,):
                raise UsageError(f"{where}: {name!r} is {_shape(bias)}, not [{3 * width}]")
            query, key, value = bias.split(width)
            _refuse_key_bias(key, width, name, where)
            _add(found, f"{layer}q_bias", query, where)
            _add(found, f"{layer}v_bias", value, where)
    return found


def _refuse_key_bias(bias: Tensor, width: int, name: str, where: str) -> None:
    if bias.shape != (width,):
        raise UsageError(f"{where}: {name!r} is {_shape(bias)}, not [{width}]")
    if bias.any():
        raise UsageError(f"{where}: {name!r} gives the keys a bias; VideoMAE's keys have none")


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
