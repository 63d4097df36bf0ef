"""ViViT's published checkpoint layouts (factorised encoder), recognised by their tensor names and mapped to ours."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from vpbench.backbones.checkpoints import names, recognised
from vpbench.backbones.vivit import ViViTConfig
from vpbench.errors import UsageError
from vpbench.registry import Sizes

_PREFIXES = ("module.", "model.", "net.")
_SPATIAL, _TEMPORAL = "pos_embed", "temporal_pos_embed"
# TAdaConv's model zoo (`model_state`); of two heads the first is for verbs, the second for nouns
_TADACONV = (
    (r"backbone\.stem\.conv1\.", "patch_embed.proj."),
    (r"backbone\.cls_token$", "cls_token"),
    (r"backbone\.cls_token_out$", "temporal_cls_token"),
    (r"backbone\.pos_embd$", _SPATIAL),
    (r"backbone\.temp_embd$", _TEMPORAL),
    (r"backbone\.norm\.", "norm."),
    (r"backbone\.norm_out\.", "temporal_norm."),
    (r"head\.linear1?\.", "head."),
)
# files of fine-tuned temporal encoders, as RGTP's authors publish them
_RGTP = (
    (r"embedding\.conv\.", "patch_embed.proj."),
    (r"spatial_model\.class_token$", "cls_token"),
    (r"temporal_model\.class_token$", "temporal_cls_token"),
    (r"spatial_model\.backbone\.position_encoding\.encoding$", _SPATIAL),
    (r"temporal_model\.backbone\.position_encoding\.encoding$", _TEMPORAL),
    (r"spatial_model\.layer_norm\.", "norm."),
    (r"temporal_model\.layer_norm\.", "temporal_norm."),
    (r"classifier\.", "head."),
)
_BLOCKS = (
    (r"backbone\.layers\.", "blocks."),
    (r"backbone\.layers_temporal\.", "temporal_blocks."),
    (r"spatial_model\.backbone\.blocks\.", "blocks."),
    (r"temporal_model\.backbone\.blocks\.", "temporal_blocks."),
)
_PARTS = {
    "norm": "norm1",
    "attn.to_qkv": "attn.qkv",
    "norm_ffn": "norm2",
    "ffn.net.0": "mlp.fc1",
    "ffn.net.3": "mlp.fc2",
    "input_layer_norm": "norm1",
    "qkv": "attn.qkv",
    "projection": "attn.proj",
    "mlp_layer_norm": "norm2",
    "mlp_1": "mlp.fc1",
    "mlp_2": "mlp.fc2",
}
_PART = re.compile(r"((?:temporal_)?blocks\.[0-9]+\.)(.+)\.(weight|bias)$")
# of transformers' VivitForVideoClassification
_JOINT = "vivit.encoder.layer."
# the nouns' head of a model with two; its outputs follow those of the verbs
_NOUNS = re.compile(r"head\.linear2\.")


class Recognised(recognised.Recognised):
    """A ViViT checkpoint under our names; no method trains parts along with it that would be in `scorers`."""

    head = "head.weight"

    @property
    def _shapes(self) -> tuple[int, tuple[int, ...], int, int, int, int]:
        """Width and tubelet; blocks in space and in time; positions in space and in time, without class tokens."""
        width, _, *tubelet = self.tensors["patch_embed.proj.weight"].shape
        depths = (len(names.numbered(self.tensors, kind)) for kind in ("blocks.", "temporal_blocks."))
        tables = (self.tensors[name].shape[1] - 1 for name in (_SPATIAL, _TEMPORAL))
        return width, tuple(tubelet), *depths, *tables  # type: ignore[return-value]

    @property
    def sizes(self) -> str:
        """The family and the sizes that tell its members apart, in words."""
        width, tubelet, depth, temporal, places, steps = self._shapes
        cut = "x".join(map(str, tubelet))
        return f"ViViT with {depth}+{temporal} blocks of width {width}, {cut} patches, {steps} x {places} positions"

    def fits(self, config: Sizes) -> bool:
        """Whether a backbone's sizes are those of this file; heads are in no file."""
        if not isinstance(config, ViViTConfig):
            return False
        steps, rows, cols = config.grid
        tubelet = (config.tubelet, config.patch, config.patch)
        return self._shapes == (config.dim, tubelet, config.depth, config.temporal_depth, rows * cols, steps)


def matches(state: Iterable[str]) -> bool:
    """Whether tensors of these names are a ViViT's: it has a positional table in time of its own."""
    marks = ("backbone.temp_embd", "temporal_model.backbone.position_encoding.encoding", _TEMPORAL)
    return any(name.endswith(mark) or _JOINT in name for name in state for mark in marks)


def recognise(state: Mapping[str, Tensor], where: str) -> Recognised:
    """Map the tensors of a file to our names, as float32; whether all are there, the model has to say.

    Takes TAdaConv's `model_state` (also one with heads for verbs and nouns, which become one: first the verbs) and the
    names of RGTP's fine-tuned files. Raises UsageError, in one line that starts with `where`, for files that are no
    such classifier, for two tensors that mean the same one of ours, and for non-finite weights.
    """
    if any(_JOINT in name for name in state):
        raise UsageError(
            f"{where}: Hugging Face's ViViT, in which all tokens of a clip attend to each other (model 1 of its "
            "paper); the ViViT here encodes the steps of a clip one by one (model 2); --backbone hf runs such a folder"
        )
    plain, _ = names.without_prefixes(state, _PREFIXES, where, ("temp_embd", "temporal_model", _TEMPORAL))
    # TAdaConv's own names begin with "backbone." as well, ours do not
    plain, _ = names.without_prefixes(plain, (*_PREFIXES, "backbone."), where, (_TEMPORAL,))
    nouns, kept = names.split(plain, _NOUNS.match)
    layout = next((said for mark, said in _LAYOUTS if any(name.startswith(mark) for name in kept)), "vpbench")
    tensors = names.with_names(_rename, kept, where)
    if not matches(tensors) or not names.numbered(tensors, "blocks."):
        raise names.foreign(where, "a ViViT checkpoint", state)
    names.check_patches(tensors, where)
    names.check_head(tensors, Recognised.head, where)
    tensors = _with_nouns(tensors, nouns, where)
    names.check_precision(tensors, where)
    for name in (_SPATIAL, _TEMPORAL):
        if name not in tensors or tensors[name].ndim != 3:
            said = names.shape(tensors[name]) if name in tensors else "missing"
            raise UsageError(f"{where}: {name!r} is {said}, not [1, positions, width]")
    return Recognised(layout, names.single(tensors, where), {}, ())


def _with_nouns(tensors: dict[str, Tensor], nouns: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Append the nouns' outputs to those of the verbs; raises UsageError where they do not fit together."""
    if not nouns:
        return tensors
    heads = {name.rpartition(".")[2]: tensor for name, tensor in nouns.items()}
    try:
        joined = {f"head.{kind}": torch.cat([tensors[f"head.{kind}"], heads[kind]]) for kind in ("weight", "bias")}
    except (KeyError, RuntimeError) as error:
        raise UsageError(f"{where}: the heads of verbs (head.linear1) and nouns (head.linear2) do not fit") from error
    return tensors | joined


_LAYOUTS = (("backbone.", "TAdaConv"), ("spatial_model.", "RGTP"))
_table = names.renamer((*_TADACONV, *_RGTP, *_BLOCKS))


def _rename(name: str) -> str:
    found = _table(name)
    if match := _PART.match(found):
        block, part, kind = match.groups()
        return f"{block}{_PARTS.get(part, part)}.{kind}"
    return found
