"""VideoSwin's published checkpoint layouts, recognised by their tensor names and mapped to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vpbench.backbones.videoswin_config import VideoSwinConfig
from vpbench.checkpoints.mvit import SCORERS
from vpbench.errors import UsageError

Tensors = dict[str, Tensor]

# Half precision becomes float32; anything else was not written by a training run.
_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Follows from the window's size, so it is made anew instead of read.
_INDEX = re.compile(r".*\.attn\.relative_position_index$")
_TORCHVISION_PART = re.compile(r"features\.(\d+)\.")
_TORCHVISION = (
    (r"patch_embed\.(\w+)\.", r"patch_embed.\1."),
    (r"(layers\.\d+\.blocks\.\d+\.)mlp\.0\.", r"\1mlp.fc1."),
    (r"(layers\.\d+\.blocks\.\d+\.)mlp\.3\.", r"\1mlp.fc2."),
)


@dataclass(frozen=True)
class Recognised:
    """A VideoSwin checkpoint under our names: float32 `tensors`, the `layout` it came in, the selection's `scorers`."""

    layout: str
    tensors: Tensors
    scorers: Tensors

    def config(self, base: VideoSwinConfig) -> VideoSwinConfig:
        """Return the backbone's sizes with what the file decides: classes."""
        return replace(base, classes=int(self.tensors["head.weight"].shape[0]))


def recognise(state: Mapping[str, Tensor], where: str) -> Recognised:
    """Map the tensors of a file to our names, as float32; whether all are there, the model has to say.

    Takes STTS's and mmaction2's `state_dict` (also a backbone saved alone with its head) and torchvision's names.
    Raises UsageError, in one line that starts with `where`, for files that are no VideoSwin classifier, for two tensors
    that mean the same one of ours, and for non-finite weights.
    """
    torchvision = any(_TORCHVISION_PART.match(name) for name in state)
    tensors: Tensors = {}
    for name, tensor in state.items():
        if _INDEX.match(name):
            continue
        ours = _ours(name.removeprefix("module."), torchvision)
        if ours in tensors:
            raise UsageError(f"{where}: two tensors stand for {ours!r}; save the one that counts alone")
        tensors[ours] = tensor
    _check(tensors, state, where)
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise UsageError(f"{where}: tensor {broken[0]!r} holds NaN or infinity, or numbers beyond float32")
    scorers = {name: tensors.pop(name) for name in list(tensors) if name.startswith(SCORERS)}
    layout = "torchvision swin3d" if torchvision else "STTS" if scorers else "mmaction2 or VideoSwin"
    return Recognised(layout, tensors, scorers)


def _ours(name: str, torchvision: bool) -> str:
    """Return our name of a tensor."""
    if not torchvision:
        return re.sub(r"^cls_head\.fc_cls\.", "head.", name.removeprefix("backbone."))
    # blocks and mergings take turns in one list
    name = _TORCHVISION_PART.sub(_stage, name, count=1)
    return next((re.sub(f"^{theirs}", ours, name) for theirs, ours in _TORCHVISION if re.match(theirs, name)), name)


def _stage(match: re.Match[str]) -> str:
    stage, merging = divmod(int(match[1]), 2)
    return f"layers.{stage}.downsample." if merging else f"layers.{stage}.blocks."


def _check(tensors: Tensors, state: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError for what cannot be a VideoSwin classifier."""
    if not any(name.endswith("attn.relative_position_bias_table") for name in tensors):
        first = ", ".join(repr(name) for name in sorted(state)[:3])
        raise UsageError(f"{where}: not a VideoSwin checkpoint, no tensor fits; its first names are {first}")
    head = tensors.get("head.weight")
    if head is None:
        raise UsageError(f"{where}: it has no classifier ('cls_head.fc_cls.weight'); fine-tune it first")
    if head.ndim != 2 or 0 in head.shape:
        raise UsageError(f"{where}: 'cls_head.fc_cls.weight' is {list(head.shape)}, not [classes, width]")
    for name, tensor in tensors.items():
        if tensor.dtype not in _PRECISIONS:
            raise UsageError(f"{where}: tensor {name!r} is {tensor.dtype}; save it in half, single or double precision")
