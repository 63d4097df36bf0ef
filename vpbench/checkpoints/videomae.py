"""VideoMAE's published checkpoint layouts, recognised by their tensor names and mapped to ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vpbench.backbones.catalog import CATALOG, VideoMAEConfig
from vpbench.errors import UsageError

Tensors = dict[str, Tensor]

# Part of a training run or a fixed formula, not of the classifier; named when a file is inspected.
_EXTRAS = re.compile(r"decoder\.|encoder_to_decoder\.|mask_token$|data_preprocessor\.|position_embeddings$")
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
        return len({name.split(".")[1] for name in self.tensors if name.startswith("blocks.")})

    def backbones(self) -> list[str]:
        """Names of the backbones of this width, depth and tubelet; heads are in no file, only in the catalog."""
        tubelet = tuple(self.tensors["patch_embed.proj.weight"].shape[2:])
        return [
            name
            for name, entry in CATALOG.items()
            if (c := entry.config)
            and (c.dim, c.depth) == (self.dim, self.depth)
            and (c.tubelet, c.patch, c.patch) == tubelet
        ]

    def config(self, backbone: str) -> VideoMAEConfig:
        """Return the backbone's sizes with what the file decides: classes, stored positions, run-length embeddings."""
        base = CATALOG[backbone].config
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
    if "patch_embed.proj.weight" not in tensors or not any(name.startswith("blocks.0.") for name in tensors):
        first = ", ".join(repr(name) for name in sorted(state)[:3])
        raise UsageError(f"{where}: not a VideoMAE checkpoint, no tensor fits; its first names are {first}")
    if tensors["patch_embed.proj.weight"].ndim != 5:
        raise UsageError(f"{where}: 'patch_embed.proj.weight' is no 3-D convolution, so this is no video model")
    if tensors.get("head.weight", torch.empty(0)).ndim != 2:
        raise UsageError(
            f"{where}: a pre-training checkpoint, it has no classifier ('head.weight'); fine-tune it first"
        )
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise UsageError(f"{where}: tensor {broken[0]!r} holds NaN or infinity")
    return Recognised(layout, {name: tensor.float() for name, tensor in tensors.items()}, extras)


def renamed(state: Mapping[str, Tensor], where: str) -> tuple[str, Tensors, tuple[str, ...]]:
    """Return the layout, the tensors under our names in their own precision, and the names left aside.

    Raises UsageError where queries, keys and values cannot be joined as VideoMAE has them.
    """
    names, prefixes = _without_prefixes(state)
    kept = {name: tensor for name, tensor in names.items() if not _EXTRAS.match(name)}
    layout, rename = _layout(kept, prefixes)
    tensors = _joined({rename(name): tensor for name, tensor in kept.items()}, where)
    if "pos_embed" in tensors and tensors["pos_embed"].ndim == 3:  # a learned table is stored with a batch axis
        tensors["pos_embed"] = tensors["pos_embed"][0]
    return layout, tensors, tuple(sorted(names.keys() - kept.keys()))


def _without_prefixes(state: Mapping[str, Tensor]) -> tuple[Tensors, tuple[str, ...]]:
    """Strip wrappers' prefixes from names as long as the patch embedding has one; returns the prefixes as well."""
    names, found = dict(state), []
    while prefix := next(
        (p for p in _PREFIXES if any(name.startswith(p) and "patch_embed." in name for name in names)), ""
    ):
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
        found.append(prefix)
    return names, tuple(found)


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


def _joined(tensors: Tensors, where: str) -> Tensors:
    """Bring queries, keys and values into one matrix, their biases into two vectors; the key has none."""
    found = dict(tensors)
    for name in tensors:
        layer = name.rpartition("attn.")[0] + "attn."
        if name.endswith("attn.query.weight"):
            parts = [found.pop(f"{layer}{part}.weight", None) for part in ("query", "key", "value")]
            if any(part is None for part in parts):
                raise UsageError(f"{where}: {layer}query, key and value are not all there")
            found[f"{layer}qkv.weight"] = torch.cat([part for part in parts if part is not None])
        elif name.endswith(("attn.query.bias", "attn.value.bias")):
            found[f"{layer}{name.removeprefix(layer)[0]}_bias"] = found.pop(name)
        elif name.endswith("attn.key.bias"):
            _refuse_key_bias(found.pop(name), name, where)
        elif name.endswith("attn.qkv.bias"):
            query, key, value = found.pop(name).chunk(3)
            _refuse_key_bias(key, name, where)
            found |= {f"{layer}q_bias": query, f"{layer}v_bias": value}
    return found


def _refuse_key_bias(bias: Tensor, name: str, where: str) -> None:
    if bias.any():
        raise UsageError(f"{where}: {name!r} gives the keys a bias; VideoMAE's keys have none")
