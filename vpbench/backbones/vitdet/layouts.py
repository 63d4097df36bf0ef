"""ViTDet's published checkpoint layouts, recognised by their tensor names and mapped to ours."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isqrt

from torch import Tensor

from vpbench.backbones.checkpoints import names, recognised
from vpbench.backbones.vitdet import ViTDetConfig
from vpbench.errors import UsageError
from vpbench.registry import Sizes

_PREFIXES = ("module.", "model.", "net.")
_POSITIONS = "net.pos_embed"
_PATCHES = "net.patch_embed.proj.weight"
_HEAD = "roi_heads.box_predictor.cls_score.weight"
_TABLE = re.compile(r"net\.blocks\.([0-9]+)\.attn\.rel_pos_h$")
# Follows from the sizes, so it is made anew instead of read.
_EXTRAS = re.compile(r"pixel_(mean|std)$|proposal_generator\.anchor_generator\.")
_DETECTRON2 = ((r"backbone\.(net|simfp_\d+)\.", r"\1."),)
_STAGES = {
    0: ("0", "1", "3", "4", "4.norm", "5", "5.norm"),
    1: ("0", "1", "1.norm", "2", "2.norm"),
    2: ("0", "0.norm", "1", "1.norm"),
    3: ("1", "1.norm", "2", "2.norm"),
}
# where the numbers of the layers above begin, and which numbers are activations without tensors
_NUMBERS = {0: (0, 1, 3, 4, 5, 6, 7), 1: (0, 1, 2, 3, 4), 2: (0, 1, 2, 3), 3: (1, 2, 3, 4)}
_RGTP = (
    (r"embedding\.conv\.", "net.patch_embed.proj."),
    (r"backbone\.position_encoding\.encoding$", _POSITIONS),
    (r"backbone\.blocks\.(\d+)\.input_layer_norm\.", r"net.blocks.\1.norm1."),
    (r"backbone\.blocks\.(\d+)\.qkv\.", r"net.blocks.\1.attn.qkv."),
    (r"backbone\.blocks\.(\d+)\.projection\.", r"net.blocks.\1.attn.proj."),
    (r"backbone\.blocks\.(\d+)\.relative_position\.y_embedding$", r"net.blocks.\1.attn.rel_pos_h"),
    (r"backbone\.blocks\.(\d+)\.relative_position\.x_embedding$", r"net.blocks.\1.attn.rel_pos_w"),
    (r"backbone\.blocks\.(\d+)\.mlp_layer_norm\.", r"net.blocks.\1.norm2."),
    (r"backbone\.blocks\.(\d+)\.mlp_([12])\.", r"net.blocks.\1.mlp.fc\2."),
    *(
        (rf"pyramid\.stages\.{stage}\.{number}\.", f"simfp_{stage + 2}.{layer}.")
        for stage, layers in _STAGES.items()
        for number, layer in zip(_NUMBERS[stage], layers, strict=True)
    ),
)


class Recognised(recognised.Recognised):
    """A ViTDet checkpoint under our names; no method trains parts along with it that would be in `scorers`."""

    head = _HEAD

    @property
    def classes(self) -> int:
        """Number of classes, without background."""
        return int(self.tensors[_HEAD].shape[0]) - 1

    @property
    def _tables(self) -> tuple[int, ...]:
        """Sides of the grids that each block's relative positions were trained for."""
        found = {int(match[1]): tensor for name, tensor in self.tensors.items() if (match := _TABLE.match(name))}
        return tuple((found[block].shape[0] + 1) // 2 for block in sorted(found))

    @property
    def _shapes(self) -> tuple[int, int, int, tuple[int, ...]]:
        """Width and patch of the embedding; side of the table of positions; the tables of relative positions."""
        width, _, patch, _ = self.tensors[_PATCHES].shape
        return width, patch, isqrt(self.tensors[_POSITIONS].shape[1]), self._tables

    @property
    def sizes(self) -> str:
        """The family and the sizes that tell its members apart, in words."""
        width, patch, positions, tables = self._shapes
        each = "+".join(map(str, tables))
        return f"ViTDet with {len(tables)} blocks of width {width}, {patch}x{patch} patches, {positions}x{positions} " \
               f"positions, relative ones of {each}"  # fmt: skip

    def fits(self, config: Sizes) -> bool:
        """Whether a detector's sizes are those of this file; heads and the input's size are in no file."""
        if not isinstance(config, ViTDetConfig):
            return False
        tables = tuple(config.window if n in config.windowed else config.global_table for n in range(config.depth))
        return self._shapes == (config.dim, config.patch, config.positions, tables)

    def config(self, base: Sizes, frames: int | None = None, size: int | None = None) -> ViTDetConfig:
        """Return the detector's sizes with what the file decides: classes."""
        assert isinstance(base, ViTDetConfig)
        return replace(base, head=replace(base.head, classes=self.classes))

    def details(self) -> dict[str, str]:
        """Nothing more than what all families have."""
        return {}


def matches(state: Iterable[str]) -> bool:
    """Whether tensors of these names are a ViTDet's: it proposes regions."""
    return any("proposal_generator.rpn_head." in name for name in state)


def recognise(state: Mapping[str, Tensor], where: str) -> Recognised:
    """Map the tensors of a file to our names, as float32; whether all are there, the model has to say.

    Takes detectron2's names (with or without the table's entry for a class token, which no detector has), RGTP's and
    ours. Raises UsageError, in one line that starts with `where`, for files that are no ViTDet detector, for two
    tensors that mean the same one of ours, and for non-finite weights.
    """
    plain, _ = names.without_prefixes(state, _PREFIXES, where, ("proposal_generator.",))
    extras, kept = names.split(plain, _EXTRAS.match)
    if any(name.startswith("pyramid.stages.") for name in kept):
        layout, rules = "RGTP", _RGTP
    else:
        layout = "detectron2" if any(name.startswith("backbone.") for name in kept) else "vpbench"
        rules = _DETECTRON2
    tensors = names.with_names(names.renamer(rules), kept, where)
    _check(tensors, state, where)
    table = tensors[_POSITIONS]
    if isqrt(table.shape[1]) ** 2 != table.shape[1]:
        tensors[_POSITIONS] = table[:, 1:]
    return Recognised(layout, names.single(tensors, where), {}, tuple(sorted(extras)))


def transformer(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the transformer's tensors of a file in detectron2's names, or ours, as float32; pyramid and head may lack.

    Raises UsageError, in one line that starts with `where`, for tensors of anything else.
    """
    tensors = names.with_names(names.renamer(_DETECTRON2), dict(state), where)
    own = {name.removeprefix("net."): tensor for name, tensor in tensors.items() if name.startswith("net.")}
    if "pos_embed" not in own or own["pos_embed"].ndim != 3:
        raise names.foreign(where, "the transformer of a ViTDet", state)
    length = own["pos_embed"].shape[1]
    if isqrt(length) ** 2 != length:
        own["pos_embed"] = own["pos_embed"][:, 1:]
    return {name: tensor.float() for name, tensor in own.items()}


def _check(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError for what cannot be a ViTDet detector, or lacks what its sizes are read from."""
    if not matches(tensors) or not any(_TABLE.match(name) for name in tensors):
        raise names.foreign(where, "a ViTDet checkpoint with its detection head", state)
    names.check_head(tensors, _HEAD, where, "it has no classifier of regions")
    for name, axes, said in (
        (_PATCHES, 4, "[width, 3, patch, patch]"),
        (_POSITIONS, 3, "[1, positions, width]"),
        *((name, 2, "[offsets, width]") for name in tensors if _TABLE.match(name)),
    ):
        if name not in tensors:
            raise UsageError(f"{where}: {name!r} is missing")
        if tensors[name].ndim != axes or 0 in tensors[name].shape:
            raise UsageError(f"{where}: {name!r} is {names.shape(tensors[name])}, not {said}")
    length = tensors[_POSITIONS].shape[1]
    if length not in (isqrt(length) ** 2, isqrt(length) ** 2 + 1):
        raise UsageError(
            f"{where}: {_POSITIONS!r} holds {length} positions, which are no square with or without one more"
        )
    names.check_precision(tensors, where)
