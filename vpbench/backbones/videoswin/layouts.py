"""VideoSwin's published checkpoint layouts, recognised by their tensor names and mapped to ours."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import prod

from torch import Tensor

from vpbench.backbones.checkpoints import names, recognised
from vpbench.backbones.checkpoints.names import SCORERS
from vpbench.backbones.videoswin import VideoSwinConfig
from vpbench.errors import UsageError
from vpbench.registry import Sizes

_PREFIXES = ("module.", "model.", "net.", "backbone.")
_BIASES = "attn.relative_position_bias_table"
# Follows from the window's size, so it is made anew instead of read.
_INDEX = re.compile(r".*\.attn\.relative_position_index$")
_BLOCK = re.compile(r"layers\.([0-9]+)\.blocks\.([0-9]+)\.")
_TORCHVISION_PART = re.compile(r"features\.([0-9]+)\.")
_MLP = (
    (r"(layers\.\d+\.blocks\.\d+\.)mlp\.0\.", r"\1mlp.fc1."),
    (r"(layers\.\d+\.blocks\.\d+\.)mlp\.3\.", r"\1mlp.fc2."),
)
# mmaction2 from 1.0 on names the norm after the stage that it follows, the last of four
_MMACTION = ((r"cls_head\.fc_cls\.", "head."), (r"norm3\.", "norm."))


class Recognised(recognised.Recognised):
    """A VideoSwin checkpoint under our names."""

    head = "head.weight"

    @property
    def _shapes(self) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
        """Width and tubelet of the embedding; blocks and heads of each stage; offsets that a window has biases for."""
        width, _, *patch = self.tensors["patch_embed.proj.weight"].shape
        blocks = {match.groups() for name in self.tensors if (match := _BLOCK.match(name))}
        depths = Counter(int(stage) for stage, _ in blocks)
        tables = [self.tensors[f"layers.{stage}.blocks.0.{_BIASES}"].shape for stage in sorted(depths)]
        heads = tuple(table[1] for table in tables)
        return width, tuple(patch), tuple(depths[stage] for stage in sorted(depths)), heads, tables[0][0]

    @property
    def sizes(self) -> str:
        """The family and the sizes that tell its members apart, in words."""
        width, patch, depths, heads, offsets = self._shapes
        blocks, each = "+".join(map(str, depths)), "+".join(map(str, heads))
        tubelet = "x".join(map(str, patch))
        return f"VideoSwin with {blocks} blocks of {each} heads from width {width}, {tubelet} patches, {offsets} biases"

    def fits(self, config: Sizes) -> bool:
        """Whether a backbone's sizes are those of this file; frames and their size are in no file."""
        if not isinstance(config, VideoSwinConfig):
            return False
        offsets = prod(2 * size - 1 for size in config.window)
        return self._shapes == (config.dim, config.patch, config.depths, config.heads, offsets)


def matches(state: Iterable[str]) -> bool:
    """Whether tensors of these names are a Swin's: its windows have learned biases."""
    return any(name.endswith(_BIASES) for name in state)


def recognise(state: Mapping[str, Tensor], where: str) -> Recognised:
    """Map the tensors of a file to our names, as float32; whether all are there, the model has to say.

    Takes STTS's and mmaction2's `state_dict` (also a backbone saved alone with its head) and torchvision's names.
    Raises UsageError, in one line that starts with `where`, for files that are no VideoSwin classifier, for two tensors
    that mean the same one of ours, and for non-finite weights.
    """
    plain, _ = names.without_prefixes(state, _PREFIXES, where)
    index, kept = names.split(plain, _INDEX.match)
    layout, rename = _layout(kept)
    tensors = names.with_names(rename, kept, where)
    _check(tensors, state, where)
    scorers, tensors = names.without_scorers(names.single(tensors, where), where)
    return Recognised(layout, tensors, scorers, tuple(sorted(index)))


def _layout(kept: Mapping[str, Tensor]) -> tuple[str, Callable[[str], str]]:
    """Return the name of the layout that these names are of, and what maps its names to ours."""
    if any(_TORCHVISION_PART.match(name) for name in kept):
        mlp = names.renamer(_MLP)
        # blocks and mergings take turns in one list
        return "torchvision swin3d", lambda name: mlp(_TORCHVISION_PART.sub(_stage, name, count=1))
    if not any(name.startswith("cls_head.") for name in kept):
        return "vpbench", lambda name: name
    scored = any(name.startswith(SCORERS) for name in kept)
    later = any(name.startswith("norm3.") for name in kept)
    return ("STTS" if scored else "mmaction2 1.x" if later else "Video Swin, mmaction2 0.x"), names.renamer(_MMACTION)


def _stage(match: re.Match[str]) -> str:
    stage, merging = divmod(int(match[1]), 2)
    return f"layers.{stage}.downsample." if merging else f"layers.{stage}.blocks."


def _check(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError for what cannot be a VideoSwin classifier, or lacks what its sizes are read from."""
    stages = names.numbered(tensors, "layers.")
    if not stages or not matches(tensors):
        raise names.foreign(where, "a VideoSwin checkpoint", state)
    names.check_patches(tensors, where)
    names.check_head(tensors, Recognised.head, where)
    for name in (f"layers.{stage}.blocks.0.{_BIASES}" for stage in stages):
        table = tensors.get(name)
        if table is None or table.ndim != 2:
            said = "missing" if table is None else f"{names.shape(table)}, not [offsets, heads]"
            raise UsageError(f"{where}: {name!r} is {said}")
    names.check_precision(tensors, where)
