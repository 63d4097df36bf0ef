"""Backbones by name, built with their weights: the embedded ones, random ones, or a file; on a device."""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from vpbench import registry
from vpbench.api import Backbone, Classifier, FrameBackbone, GridBackbone
from vpbench.api.backbone import network
from vpbench.api.contexts import plain
from vpbench.api.precisions import PRECISIONS
from vpbench.backbones.checkpoints import files
from vpbench.backbones.checkpoints.reading import _check_sizes, _recognise, load_strictly, recognise
from vpbench.errors import UsageError, unusable
from vpbench.registry import FrameSizes, Sizes


def weights_file(backbone: str, weights: str) -> Path | None:
    """Return the file that `weights` (`embedded`, `random` or a path) means, None for random weights."""
    if weights == "random":
        return None
    if weights != "embedded":
        return Path(weights)
    file = registry.backbone(backbone).weights
    if file is None:
        raise UsageError(f"{backbone} has no embedded weights; give --weights FILE (.safetensors, .pth) or random")
    return file


def weights_digest(backbone: str, weights: str) -> str:
    """SHA-256 of the weights file, or `random`; raises UsageError if it cannot be read."""
    file = weights_file(backbone, weights)
    return "random" if file is None else files.digest(file)


def weights_kind(weights: str) -> str:
    """Return `embedded`, `random`, or `file` for weights of the user's own."""
    return weights if weights in ("embedded", "random") else "file"


@dataclass(frozen=True)
class Outputs:
    """The outputs of weights: how many there are, and what they are called, in order; no names where nothing says."""

    count: int
    names: tuple[str, ...] = ()


def outputs(backbone: str, weights: str) -> Outputs | None:
    """Return what the outputs of a classifier's weights are, None for random ones.

    Raises UsageError for files that cannot be read or are of another model, as `build` does, and for names that are
    not as many as the outputs.
    """
    file = weights_file(backbone, weights)
    if file is None:
        return None
    try:
        status = file.stat()
    except OSError as error:
        raise UsageError(f"weights {file}: {error.strerror}") from error
    return _outputs(backbone, file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _outputs(backbone: str, file: Path, size: int, changed_ns: int) -> Outputs:
    """Read a file once for all who ask, as long as it stays what it is."""
    contents = files.read(file)
    found, names = recognise(contents.tensors, f"weights {file}"), contents.classes
    if backbone not in found.backbones():
        _recognise(backbone, file)  # says which one it is for
    if names and len(names) != found.classes:
        raise UsageError(
            f"weights {file}: {found.classes} outputs, but names of {len(names)} classes ({', '.join(names[:3])} ...); "
            "take the names out of the file"
        )
    return Outputs(found.classes, names)


def build(backbone: str, weights: str, seed: int) -> Classifier:
    """Build a backbone in evaluation mode, float32, on the CPU; random weights depend on `seed` alone.

    Raises UsageError in one line for backbones that classify no clips, and for files that cannot be read, are of
    another model, or do not fit in every tensor.
    """
    if registry.backbone(backbone).task != "recognition":
        raise UsageError(f"{backbone} finds objects in the frames of videos; it cannot classify clips")
    model = _build(backbone, weights, seed)
    assert isinstance(model, Classifier)
    return model


def build_detector(backbone: str, weights: str, seed: int, side: int | None = None) -> FrameBackbone:
    """Build a detector as `build` does a backbone, for frames of `side` pixels (None: its own).

    Raises UsageError as `build` does, for backbones that detect nothing, and for sides that patches do not tile.
    """
    if registry.backbone(backbone).task != "detection":
        raise UsageError(f"{backbone} classifies clips; it cannot find objects in frames")
    model = _build(backbone, weights, seed, side)
    assert isinstance(model, FrameBackbone)
    return model


@plain()
def _build(backbone: str, weights: str, seed: int, side: int | None = None) -> Backbone:
    file = weights_file(backbone, weights)
    if file is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return network(backbone, _of_side(backbone, registry.backbone(backbone).sizes, side)).eval()
    config, found = _recognise(backbone, file)
    config = _of_side(backbone, config, side)
    _check_sizes(backbone, config, found, f"weights {file}")
    with torch.random.fork_rng(devices=[]):
        model = network(backbone, config)
    if isinstance(model, GridBackbone):
        model.addons = found.scorers
    load_strictly(model, found.tensors, f"weights {file}")
    return model.eval()


def _of_side(backbone: str, sizes: Sizes, side: int | None) -> Sizes:
    if side is None:
        return sizes
    if not isinstance(sizes, FrameSizes):
        raise UsageError(f"{backbone} takes frames of its own size alone; leave --size out")
    return sizes.sized(side)


N = TypeVar("N", bound=Backbone)


class _Setting(Protocol):
    """What is read of a `plan.Setting`."""

    @property
    def backbone(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def frames(self) -> int | None: ...
    @property
    def size(self) -> int | None: ...
    @property
    def positions(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...


def load_backbone(setting: _Setting) -> Classifier:
    """Build the backbone with its weights on the device, and set the thread count."""
    backbone = build(setting.backbone, setting.weights, setting.seed)
    if setting.frames or setting.size:
        backbone.resize(setting.frames, setting.size, setting.positions)
    return use_device(backbone, setting)


def use_device(network: N, setting: _Setting) -> N:
    """Put a network on the device, in its precision, and set the thread count; raises UsageError where it cannot."""
    torch.set_num_threads(setting.threads)
    if torch.get_num_interop_threads() != 1:
        with suppress(RuntimeError):  # too late once torch has worked in parallel; rows say how many there are
            torch.set_num_interop_threads(1)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    precision = PRECISIONS[setting.dtype]
    try:
        network.requires_grad_(False).to(device=setting.device, dtype=precision.weights)
    except (RuntimeError, AssertionError) as error:
        raise unusable(setting.device, error) from error
    if precision.autocast is not None:
        network.autocast = _autocast(setting.device, setting.dtype, precision.autocast)
    return network


def _autocast(device: str, name: str, dtype: torch.dtype) -> tuple[str, torch.dtype]:
    """Return how a network enters autocast; raises UsageError where torch would not, and go on in float32."""
    kind = device.partition(":")[0]
    try:
        with warnings.catch_warnings(action="error"), torch.autocast(kind, dtype):
            return kind, dtype
    except (RuntimeError, UserWarning) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"--dtype {name} cannot run on {device} ({reason}); give another --dtype") from error
