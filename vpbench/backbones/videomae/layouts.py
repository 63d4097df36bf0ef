"""VideoMAE's published checkpoint layouts, recognised by their tensor names and mapped to ours."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vpbench.backbones.checkpoints import names, recognised
from vpbench.backbones.checkpoints.names import Tensors
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.errors import UsageError
from vpbench.registry import Sizes

#: asked after all others, since other families embed patches as well
late = True
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


class Recognised(recognised.Recognised):
    """A VideoMAE checkpoint under our names; no method trains parts along with it that would be in `scorers`."""

    head = "head.weight"
    licence = "not in the file; weights published by VideoMAE's authors are CC-BY-NC 4.0"

    @property
    def _shapes(self) -> tuple[int, int, tuple[int, ...]]:
        """Blocks, width, and the tubelet (t, h, w)."""
        width, _, *tubelet = self.tensors["patch_embed.proj.weight"].shape
        return len(names.numbered(self.tensors, "blocks.")), width, tuple(tubelet)

    @property
    def sizes(self) -> str:
        """The family and the sizes that tell its members apart, in words."""
        depth, width, tubelet = self._shapes
        return f"VideoMAE with {depth} blocks of width {width}, {'x'.join(map(str, tubelet))} patches"

    def fits(self, config: Sizes) -> bool:
        """Whether a backbone's width, depth and tubelet are those of this file; heads are in no file."""
        if not isinstance(config, VideoMAEConfig):
            return False
        return self._shapes == (config.depth, config.dim, (config.tubelet, config.patch, config.patch))

    def config(self, base: Sizes) -> VideoMAEConfig:
        """Return the backbone's sizes with what the file decides: classes, stored positions, run-length embeddings."""
        assert isinstance(base, VideoMAEConfig)
        lengths = self.tensors.get("length_embed")
        return replace(
            base,
            classes=self.classes,
            frames=base.frames if lengths is None else base.tubelet * int(lengths.shape[1]),
            stored_positions="pos_embed" in self.tensors,
            run_lengths=lengths is not None,
        )

    def details(self) -> dict[str, str]:
        """Say whether the file has run-length embeddings."""
        return {"run lengths": "yes (RLT)" if "length_embed" in self.tensors else "no"}


def matches(state: Iterable[str]) -> bool:
    """Whether tensors of these names may be a plain ViT's."""
    return any("patch_embed" in name for name in state)


def recognise(state: Mapping[str, Tensor], where: str) -> Recognised:
    """Map the tensors of a file to our names, as float32.

    Raises UsageError, in one line that starts with `where`, for files that are no VideoMAE classifier, and for
    non-finite weights.
    """
    layout, tensors, extras = renamed(state, where)
    names.check_head(tensors, Recognised.head, where, "a pre-training checkpoint, it has no classifier")
    width, lengths = tensors["patch_embed.proj.weight"].shape[0], tensors.get("length_embed")
    # decides the model like the classifier; the other shapes are compared with the model's own
    if lengths is not None and (lengths.ndim != 3 or lengths.shape[::2] != (1, width) or not lengths.shape[1]):
        raise UsageError(f"{where}: 'length_embed' is {names.shape(lengths)}, not [1, slots, {width}]")
    return Recognised(layout, names.single(tensors, where), {}, extras)


def renamed(state: Mapping[str, Tensor], where: str) -> tuple[str, Tensors, tuple[str, ...]]:
    """Return the layout, the tensors under our names in their own precision, and the names left aside.

    Raises UsageError for files of other models, for two tensors that mean the same one of ours, and where queries,
    keys and values cannot be joined as VideoMAE has them.
    """
    plain, prefixes = names.without_prefixes(state, _PREFIXES, where)
    extras, kept = names.split(plain, _EXTRAS.match)
    layout, rename = _layout(kept, prefixes)
    tensors = names.with_names(rename, kept, where)
    if "patch_embed.proj.weight" not in tensors or not names.numbered(tensors, "blocks."):
        raise names.foreign(where, "a VideoMAE checkpoint", state)
    names.check_patches(tensors, where)
    names.check_precision(tensors, where)
    tensors = _joined(tensors, tensors["patch_embed.proj.weight"].shape[0], where)
    table = tensors.get("pos_embed")
    if table is not None and table.ndim == 3 and len(table) == 1:  # a learned table is stored with a batch axis
        tensors["pos_embed"] = table[0]
    return layout, tensors, tuple(sorted(extras))


def _layout(kept: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> tuple[str, Callable[[str], str]]:
    if any("embeddings.patch_embeddings." in name for name in kept):
        old = any(name.endswith(".q_bias") for name in kept)
        return f"Hugging Face videomae, transformers {'4' if old else '5'}.x names", names.renamer(_HUGGING_FACE)
    if any(name.startswith(("cls_head.", "patch_embed.projection.")) for name in kept):
        return "mmaction2", names.renamer(_MMACTION)
    own = "vpbench" if "pos_embed" in kept and kept["pos_embed"].ndim == 2 else "VideoMAE"
    return f"{own}, prefix {''.join(prefixes)}" if prefixes else own, lambda name: name


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
            names.add(found, f"{layer}qkv.weight", torch.cat(there), where)
        elif name.endswith(("attn.query.bias", "attn.value.bias")):
            names.add(found, f"{layer}{name.removeprefix(layer)[0]}_bias", found.pop(name), where)
        elif name.endswith("attn.key.bias"):
            _refuse_key_bias(found.pop(name), width, name, where)
        elif name.endswith("attn.qkv.bias"):
            bias = found.pop(name)
            if bias.shape != (3 * width,):
                raise UsageError(f"{where}: {name!r} is {names.shape(bias)}, not [{3 * width}]")
            query, key, value = bias.split(width)
            _refuse_key_bias(key, width, name, where)
            names.add(found, f"{layer}q_bias", query, where)
            names.add(found, f"{layer}v_bias", value, where)
    return found


def _refuse_key_bias(bias: Tensor, width: int, name: str, where: str) -> None:
    if bias.shape != (width,):
        raise UsageError(f"{where}: {name!r} is {names.shape(bias)}, not [{width}]")
    if bias.any():
        raise UsageError(f"{where}: {name!r} gives the keys a bias; VideoMAE's keys have none")
