"""VideoMAE's published checkpoint layouts, recognised by their tensor names and mapped to ours."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import inf, isqrt, nextafter, prod
from typing import Any

import torch
from torch import Tensor

from vpbench.backbones.checkpoints import names, recognised
from vpbench.backbones.checkpoints.files import Contents
from vpbench.backbones.checkpoints.names import Tensors
from vpbench.backbones.videomae import VideoMAEConfig
from vpbench.backbones.videomae.stated import from_metadata, from_transformers
from vpbench.errors import UsageError
from vpbench.registry import Sizes

#: asked after all others, since other families embed patches as well
late = True
# Part of a training run or a fixed formula, not of the classifier; named when a file is inspected.
_EXTRAS = re.compile(r"decoder\.|encoder_to_decoder\.|mask_token$|data_preprocessor\.|position_embeddings$")
_PRETRAINING = re.compile(r"decoder\.|encoder_to_decoder\.|mask_token$")
# of LayerScale: BEiT's and VideoMAE's names, and timm's
_SCALE = re.compile(r"(blocks\.[0-9]+\.)(?:gamma_([12])|ls([12])\.gamma)$")
_MOST_TOKENS = 200_000
_PREFIXES = ("module.", "model.", "net.", "backbone.", "encoder.")
_HUGGING_FACE = (
    (r"(?:videomae\.)?embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.attention\.attention\.", r"blocks.\1.attn."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"(?:videomae\.)?encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"videomae\.layernorm\.", "norm."),
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
    unsaid = "; give the folder with its config.json, or the sizes: --backbone videomae:dim=...,depth=...,heads=..."
    licence = "not in the file; weights published by VideoMAE's authors are CC-BY-NC 4.0"

    @property
    def _shapes(self) -> tuple[int, int, tuple[int, ...]]:
        """Blocks, width, and the tubelet (t, h, w)."""
        width, _, *tubelet = self.tensors["patch_embed.proj.weight"].shape
        return len(names.numbered(self.tensors, "blocks.")), width, tuple(tubelet)

    @property
    def _hidden(self) -> int:
        """Width of the hidden layer of an MLP; 0 where the tensor is not there, which the model has to say."""
        first = self.tensors.get("blocks.0.mlp.fc1.weight")
        return 0 if first is None else int(first.shape[0])

    @property
    def sizes(self) -> str:
        """The family and the sizes that tell its members apart, in words."""
        depth, width, tubelet = self._shapes
        return f"VideoMAE with {depth} blocks of width {width}, {'x'.join(map(str, tubelet))} patches"

    def fits(self, config: Sizes) -> bool:
        """Whether a backbone's width, depth and tubelet are those of this file, and its heads where they are stated."""
        if not isinstance(config, VideoMAEConfig):
            return False
        told = config.heads, int(config.dim * config.mlp_ratio)
        if "heads" in self.stated and told != (self.stated["heads"], self._hidden):
            return False
        return self._shapes == (config.depth, config.dim, (config.tubelet, config.patch, config.patch))

    def own_sizes(self) -> VideoMAEConfig | None:
        """Return the sizes that tensors show and that are stated; None where nothing states the heads."""
        depth, dim, (tubelet, patch, width) = self._shapes
        if "heads" not in self.stated or patch != width:
            return None
        shown: dict[str, Any] = {
            "dim": dim,
            "depth": depth,
            "tubelet": tubelet,
            "patch": patch,
            "mlp_ratio": _ratio(self._hidden, dim),
        }
        return VideoMAEConfig(**shown | dict(self.stated))

    def config(self, base: Sizes, frames: int | None = None, size: int | None = None) -> VideoMAEConfig:
        """Return the backbone's sizes with what the file decides: classes, stored positions, run-length embeddings.

        The length of a stored table says for how many frames, or for which side, the file was trained.
        """
        assert isinstance(base, VideoMAEConfig)
        lengths, table = self.tensors.get("length_embed"), self.tensors.get("pos_embed")
        own = replace(
            base,
            **self.stated,
            classes=self.classes,
            stored_positions=table is not None,
            run_lengths=lengths is not None,
        )
        if lengths is not None:
            own = replace(own, frames=base.tubelet * int(lengths.shape[1]))
        return own if table is None or table.ndim != 2 else of_table(own, len(table), frames, size)

    def details(self) -> dict[str, str]:
        """Say whether the file has run-length embeddings."""
        return {"run lengths": "yes (RLT)" if "length_embed" in self.tensors else "no"}


def _ratio(hidden: int, dim: int) -> float:
    """Return a ratio of which `int(dim * ratio)` is the hidden width."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else nextafter(ratio, inf)


def of_table(config: VideoMAEConfig, length: int, frames: int | None, size: int | None) -> VideoMAEConfig:
    """Return the sizes whose clips have as many tokens as a stored table of positions is long.

    Those that are asked for count first, then the config's own; else another number of frames, or another side. Raises
    UsageError where both would do. A length that nothing has is left to who compares tensors.
    """
    asked = replace(config, frames=frames or config.frames, height=size or config.height, width=size or config.width)
    for each in (asked, config):
        if _tokens(each) == length:
            return each
    slots, places = config.frames // config.tubelet, _tokens(replace(config, frames=config.tubelet))
    longer = replace(config, frames=length // places * config.tubelet) if length % places == 0 else None
    side = isqrt(length // slots) * config.patch
    larger = (
        replace(config, height=side, width=side)
        if _tokens(replace(config, height=side, width=side)) == length
        else None
    )
    if longer and larger:
        raise UsageError(
            f"its table of {length} positions is for {longer.frames} frames of {config.height}x{config.width}, or for "
            f"{larger.frames} of {side}x{side}; give --frames {longer.frames}, or --size {side}"
        )
    return longer or larger or config


def _tokens(config: VideoMAEConfig) -> int:
    return config.frames // config.tubelet * (config.height // config.patch) * (config.width // config.patch)


def stated(found: Recognised, contents: Contents, where: str) -> dict[str, Any]:
    """Return sizes that no tensor shows, from what lies beside them; raises UsageError for heads that do not fit."""
    if "sizes" in contents.metadata:
        sizes = from_metadata(contents.metadata["sizes"], where)
    else:
        known = contents.config.get("model_type") == "videomae"
        sizes = from_transformers(contents.config, contents.processor, where) if known else {}
        if known:
            _check_stated(found, contents.config, where)
    width, _, *tubelet = found.tensors["patch_embed.proj.weight"].shape
    pixels = sizes.get("frames", 1) * sizes.get("height", 1) * sizes.get("width", 1)
    if pixels > _MOST_TOKENS * prod(tubelet):  # positions of all of them would be made at once
        raise UsageError(f"{where}: clips of {pixels} pixels a colour are stated, more than any network here takes")
    if width % sizes.get("heads", 1):
        raise UsageError(f"{where}: {sizes['heads']} heads are stated, which do not divide its width of {width}")
    return sizes


def _check_stated(found: Recognised, config: Mapping[str, Any], where: str) -> None:
    """Raise UsageError where a `config.json` states sizes that are not those of the tensors beside it."""
    depth, width, (tubelet, patch, _) = found._shapes
    shown = {
        "num_hidden_layers": depth,
        "hidden_size": width,
        "intermediate_size": found._hidden,
        "tubelet_size": tubelet,
        "patch_size": patch,
    }
    for name, value in shown.items():
        if config.get(name, value) not in (value, [value, value]):
            said = str(config[name])[:40]
            raise UsageError(f"{where}: its config.json says {name} {said}, and its tensors {value}; one is another's")


def matches(state: Iterable[str]) -> bool:
    """Whether tensors of these names may be a plain ViT's."""
    return any("patch_embed" in name for name in state)


def recognise(state: Mapping[str, Tensor], where: str) -> Recognised:
    """Map the tensors of a file to our names, as float32.

    Raises UsageError, in one line that starts with `where`, for files that are no VideoMAE classifier, and for
    non-finite weights.
    """
    layout, tensors, extras = renamed(state, where)
    names.check_head(tensors, Recognised.head, where, _headless(tensors, extras))
    if "fc_norm.weight" not in tensors and "norm.weight" in tensors:
        raise UsageError(
            f"{where}: has 'norm', not 'fc_norm': it was trained to read the class off the first token, without mean "
            "pooling, and pruning may drop that token; only mean-pooled VideoMAEs are read"
        )
    width, lengths = tensors["patch_embed.proj.weight"].shape[0], tensors.get("length_embed")
    # decides the model like the classifier; the other shapes are compared with the model's own
    if lengths is not None and (lengths.ndim != 3 or lengths.shape[::2] != (1, width) or not lengths.shape[1]):
        raise UsageError(f"{where}: 'length_embed' is {names.shape(lengths)}, not [1, slots, {width}]")
    layout += ", LayerScale (multiplied in)" * any(_SCALE.match(name) for name in tensors)
    return Recognised(layout, _folded(_with_biases(names.single(tensors, where), width), where), {}, extras)


def _headless(tensors: Mapping[str, Tensor], extras: Iterable[str]) -> str:
    """Say what a file without a classifier is, by what else it has."""
    if any(_PRETRAINING.match(name) for name in extras):
        return "a pre-training checkpoint, it has no classifier"
    blocks = names.numbered(tensors, "blocks.")
    parts = {sum(name.startswith(f"blocks.{block}.") for name in tensors) for block in blocks}
    if blocks != list(range(len(blocks))) or len(parts) > 1:
        return "a part of a model (one of several shards?), it has no classifier"
    return "a pre-training checkpoint or a backbone alone, it has no classifier"


def _with_biases(tensors: Tensors, width: int) -> Tensors:
    """Give queries and values a bias of zero where no block has one (trained without `qkv_bias`): it is the same."""
    if any(name.endswith("_bias") for name in tensors):
        return tensors
    blocks = names.numbered(tensors, "blocks.")
    return tensors | {f"blocks.{block}.attn.{part}_bias": torch.zeros(width) for block in blocks for part in "qv"}


def _folded(tensors: Tensors, where: str) -> Tensors:
    """Multiply the scales of branches (LayerScale) into the layers before them, which gives the same sums."""
    found = dict(tensors)
    for name in tensors:
        if not (match := _SCALE.match(name)):
            continue
        block, first, timm = match.groups()
        layer = block + ("attn.proj" if (first or timm) == "1" else "mlp.fc2")
        scale, weight, bias = found.pop(name), found.get(f"{layer}.weight"), found.get(f"{layer}.bias")
        if weight is None or bias is None or scale.shape != bias.shape or len(weight) != len(scale):
            raise UsageError(f"{where}: {name!r} is {names.shape(scale)}, which does not scale {layer!r}")
        found |= {f"{layer}.weight": weight * scale[:, None], f"{layer}.bias": bias * scale}
    return found


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
        return "Hugging Face videomae" + ", names in transformers 5" * (not old), names.renamer(_HUGGING_FACE)
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
