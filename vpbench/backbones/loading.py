"""Backbones by name, built with their weights: the embedded ones, random ones, or a file; on a device."""

import hashlib
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from vpbench import registry
from vpbench.api import Backbone, Classifier, FrameBackbone, GridBackbone, Preparation
from vpbench.api.backbone import classifier, network
from vpbench.api.contexts import plain
from vpbench.api.precisions import PRECISIONS
from vpbench.backbones.checkpoints import files, hub, kinetics710, places, reading
from vpbench.backbones.checkpoints.reading import NOTHING, Asked
from vpbench.backbones.checkpoints.recognised import Recognised
from vpbench.errors import UsageError, unusable
from vpbench.registry import FrameSizes, Sizes

#: in the metadata of weights that `train finetune` wrote: the method and its parameters
FINETUNED_WITH = "finetuned_with"
#: characters of it that are shown
_LONGEST = 120


def local(weights: str) -> str:
    """Return weights as they lie here: a name on a hub is fetched, and becomes the folder that it is in.

    Raises UsageError in one line where there is nothing of that name.
    """
    named = weights not in ("embedded", "random") and not Path(weights).exists() and hub.is_name(weights)
    return str(hub.fetch(weights)) if named else weights


def weights_file(backbone: str, weights: str) -> Path | None:
    """Return where `weights` (`embedded`, `random`, a path, a name on a hub) lie, None for random ones."""
    if weights == "random":
        return None
    if weights != "embedded":
        return Path(local(weights))
    file = registry.backbone(backbone).weights
    if file is None:
        raise UsageError(f"{backbone} has no embedded weights; give --weights FILE, FOLDER or org/name, or random")
    return file


def weights_digest(backbone: str, weights: str, key: str | None = None) -> str:
    """SHA-256 of the weights, or `random`; where others lie in the same file, and were asked for, of both.

    Raises UsageError if they cannot be read.
    """
    file = weights_file(backbone, weights)
    if file is None:
        return "random"
    digest = places.digest(file)
    if key is None or files.read(file, key, numbers=False).wrapper == _meant(file):
        return digest
    return hashlib.sha256(f"{digest} {key}".encode()).hexdigest()


def _meant(file: Path) -> str | None:
    """Return the key of the weights that are taken where none is asked for, None where one has to be."""
    try:
        return files.read(file, numbers=False).wrapper
    except UsageError:
        return None


def weights_key(backbone: str, weights: str, key: str | None = None) -> tuple[str | None, str]:
    """Return the key of weights in a file with several, None in others, and a line that says which was taken and why.

    The line is empty where a key was asked for, or nothing was to be chosen. Raises UsageError as reading does.
    """
    file = weights_file(backbone, weights)
    if file is None:
        if key is not None:
            raise UsageError("random weights are in no file; leave --weights-key out")
        return None, ""
    found = files.read(file, key, numbers=False)
    why = f", {found.why}" if found.why else ""
    others = f"weights {file}: taking {found.wrapper!r}{why}; --weights-key takes others ({', '.join(found.keys)})"
    return found.wrapper if found.keys or key else None, others if found.keys and key is None else ""


def backbone_of(weights: str, key: str | None = None) -> str:
    """Return the name of the backbone that weights fit, the first of several; raises UsageError where none does."""
    _, found = reading.read(Path(local(weights)), key)
    fitting = found.backbones()
    if not fitting:
        raise UsageError(f"weights {weights}: no backbone here has the sizes of {found.sizes}{found.unsaid}")
    return fitting[0]


def meant(backbone: str | None, weights: str, key: str | None = None) -> str:
    """Return the backbone that is named, or the one that weights fit where none is, or one that stands for several.

    Raises UsageError where none of them does.
    """
    if backbone is None:
        return backbone_of(weights, key)
    if _model_type(registry.backbone(backbone).sizes) != "":
        return backbone
    types = {str(_model_type(each.sizes)): name for name, each in registry.backbones().items() if _any_size(each.sizes)}
    if weights not in ("embedded", "random") and not Path(weights).exists():
        raise UsageError(f"weights {weights}: no such file or folder")
    place = places.find(Path(weights))
    kind = None if place.config is None else places.read_json(place.config).get("model_type")
    if kind not in types:
        said = "no config.json lies beside it" if kind is None else f"its config.json says {str(kind)[:40]!r}"
        raise UsageError(f"weights {weights}: {said}; --backbone {backbone} runs {', '.join(types)}")
    return types[kind]


def _model_type(sizes: Any) -> str | None:
    return getattr(sizes, "model_type", None)


def _any_size(sizes: Any) -> bool:
    return getattr(sizes, "any_size", False)


def preparation(backbone: str, weights: str) -> Preparation | None:
    """Return how clips are prepared, where that is stated beside weights of a backbone that follows it.

    Raises UsageError for settings that are not understood.
    """
    target = registry.backbone(backbone).layouts
    file = None if weights in ("embedded", "random") else weights_file(backbone, weights)
    if file is None or target is None:
        return None
    reads = getattr(registry.imported(target), "preparation", None)
    place = places.find(file)
    if reads is None or place.processor is None:
        return None
    said = places.read_json(place.processor)
    found: Preparation = reads(said.get("video_processor", said), f"weights {file}")
    return found


def weights_kind(weights: str) -> str:
    """Return `embedded`, `random`, or, of the user's own, `file` or what a fine-tuning says of itself.

    That is `fine-tuned with rlt (threshold 0.1)`: the method that was at work in training, with its parameters.
    """
    if not is_own(weights):
        return weights
    said = files.read(Path(local(weights)), numbers=False).metadata.get(FINETUNED_WITH, "")
    return f"fine-tuned with {said[:_LONGEST]}" if said.isprintable() and said else "file"


def is_own(weights: str) -> bool:
    """Whether weights are the user's own: a file, a folder, or a name on a hub."""
    return weights not in ("embedded", "random")


@dataclass(frozen=True)
class Outputs:
    """The outputs of weights: how many there are, and what they are called, in order; no names where nothing says."""

    count: int
    names: tuple[str, ...] = ()


def outputs(backbone: str, weights: str, key: str | None = None, dataset: str | None = None) -> Outputs | None:
    """Return what the outputs of a classifier's weights are for the clips of a dataset, None for random ones.

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
    return _outputs(backbone, file, status.st_size, status.st_mtime_ns, key, dataset)


@lru_cache(maxsize=8)
def _outputs(backbone: str, path: Path, size: int, changed_ns: int, key: str | None, dataset: str | None) -> Outputs:
    """Read a file once for all who ask, as long as it stays what it is."""
    contents, found = reading.read(path, key, backbone)
    if not found.fits(registry.backbone(backbone).sizes):
        reading.recognised_as(backbone, path, Asked(key))  # says which one it is for
    if contents.classes and len(contents.classes) != found.classes:
        names = ", ".join(contents.classes[:3])
        raise UsageError(
            f"weights {path}: {found.classes} outputs, but names of {len(contents.classes)} classes ({names} ...); "
            "take the names out of the file"
        )
    found, _ = kinetics710.narrowed(found, dataset, f"weights {path}")
    return Outputs(found.classes, contents.classes[: found.classes])


def build(backbone: str, weights: str, seed: int, asked: Asked = NOTHING) -> Classifier:
    """Build a backbone in evaluation mode, float32, on the CPU; random weights depend on `seed` alone.

    `asked`: clips of these sizes tell what a table of positions in the file is for; the network is as it was trained,
    and `resize` makes it take them. Raises UsageError in one line for backbones that classify no clips, and for files
    that cannot be read, are of another model, or do not fit in every tensor.
    """
    check_classifies(backbone)
    model = _build(backbone, weights, seed, asked)
    assert isinstance(model, Classifier)
    return model


def check_classifies(backbone: str) -> None:
    """Raise UsageError for a backbone that classifies no clips."""
    if registry.backbone(backbone).task != "recognition":
        raise UsageError(f"{backbone} finds objects in the frames of videos; it cannot classify clips")


def build_detector(
    backbone: str, weights: str, seed: int, side: int | None = None, key: str | None = None
) -> FrameBackbone:
    """Build a detector as `build` does a backbone, for frames of `side` pixels (None: its own).

    Raises UsageError as `build` does, for backbones that detect nothing, and for sides that patches do not tile.
    """
    if registry.backbone(backbone).task != "detection":
        raise UsageError(f"{backbone} classifies clips; it cannot find objects in frames")
    model = _build(backbone, weights, seed, Asked(key), side)
    assert isinstance(model, FrameBackbone)
    return model


@plain()
def _build(backbone: str, weights: str, seed: int, asked: Asked, side: int | None = None) -> Backbone:
    file = weights_file(backbone, weights)
    if file is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return network(backbone, _of_side(backbone, registry.backbone(backbone).sizes, side)).eval()
    config, found, news = _fitting(backbone, file, asked, side)
    with torch.random.fork_rng(devices=[]):
        model = network(backbone, config)
    model.news = news
    if isinstance(model, GridBackbone):
        model.addons = found.scorers
    reading.load_strictly(model, found.tensors, f"weights {file}")
    return model.eval()


def _fitting(backbone: str, file: Path, asked: Asked, side: int | None) -> tuple[Sizes, Recognised, str]:
    """Do as `reading.recognised_as`, for frames of `side` pixels; raises UsageError where a tensor does not fit."""
    config, found, news = reading.recognised_as(backbone, file, asked)
    config = _of_side(backbone, config, side)
    reading.check_sizes(backbone, config, found, f"weights {file}")
    return config, found, news


@plain()
def fitting(backbone: str, weights: str, asked: Asked = NOTHING, side: int | None = None) -> Sizes:
    """Return the sizes of a backbone with these weights; raises UsageError as `build` does, and builds nothing."""
    file = weights_file(backbone, weights)
    if file is None:
        return _of_side(backbone, registry.backbone(backbone).sizes, side)
    return _fitting(backbone, file, asked, side)[0]


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
    def dataset(self) -> str: ...
    @property
    def weights_key(self) -> str | None: ...
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


def outline(setting: _Setting, sizes: Sizes | None = None) -> Classifier:
    """Build the backbone of a setting on the meta device: sizes without numbers; raises UsageError as `resize` does."""
    with torch.device("meta"):
        model = classifier(setting.backbone, sizes).eval().requires_grad_(False)
        _resize(model, setting)
    return model


def sized(setting: _Setting) -> Classifier:
    """Return the outline of a setting with the sizes of its weights; raises UsageError as `check` does."""
    return outline(setting, fitting(setting.backbone, setting.weights, _asked(setting)))


def check(setting: _Setting) -> None:
    """Raise UsageError where `load_backbone` would, for the weights and for the clips; takes no memory for numbers."""
    sized(setting)


def _asked(setting: _Setting) -> Asked:
    return Asked(setting.weights_key, setting.frames, setting.size, setting.dataset)


def load_backbone(setting: _Setting) -> Classifier:
    """Build the backbone with its weights on the device, and set the thread count."""
    backbone = build(setting.backbone, setting.weights, setting.seed, _asked(setting))
    _resize(backbone, setting)
    return use_device(backbone, setting)


def _resize(network: Classifier, setting: _Setting) -> None:
    """Make a network take the clips of a setting."""
    if not (setting.frames or setting.size):
        return
    trained = network.config
    network.resize(setting.frames, setting.size, setting.positions)
    own = network.config
    if (own.frames, own.height, own.width) != (trained.frames, trained.height, trained.width):
        network.repositioned = setting.positions


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
