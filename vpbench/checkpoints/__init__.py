"""Weights: the embedded ones, random ones, or a file in any published layout; loaded strictly, and never executed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vpbench.api import Backbone, GridBackbone
from vpbench.backbones.catalog import CATALOG, Config
from vpbench.backbones.models import network
from vpbench.backbones.vitdet import ViTDet
from vpbench.backbones.vitdet_config import ViTDetConfig, sized
from vpbench.checkpoints import files, mvit, names, settings, videomae, videoswin, vitdet, vivit
from vpbench.checkpoints.recognised import Recognised
from vpbench.errors import UsageError, VpbenchError

# Whether names are of a family, and what maps its tensors to our names; a plain ViT's names are told apart last.
_FAMILIES: tuple[tuple[Callable[[Iterable[str]], bool], Callable[[Mapping[str, Tensor], str], Recognised]], ...] = (
    (mvit.matches, mvit.recognise),
    (videoswin.matches, videoswin.recognise),
    (vitdet.matches, vitdet.recognise),
    (vivit.matches, vivit.recognise),
    (videomae.matches, videomae.recognise),
)


def weights_file(backbone: str, weights: str) -> Path | None:
    """Return the file that `weights` (`embedded`, `random` or a path) means, None for random weights."""
    if weights == "random":
        return None
    if weights != "embedded":
        return Path(weights)
    file = CATALOG[backbone].weights
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


def build(backbone: str, weights: str, seed: int) -> Backbone:
    """Build a backbone in evaluation mode, float32, on the CPU; random weights depend on `seed` alone.

    Raises UsageError in one line for backbones that classify no clips, and for files that cannot be read, are of
    another model, or do not fit in every tensor.
    """
    if CATALOG[backbone].detects:
        raise UsageError(f"{backbone} finds objects in the frames of videos; it cannot classify clips")
    model = _build(backbone, weights, seed)
    assert isinstance(model, Backbone)
    return model


def build_detector(backbone: str, weights: str, seed: int, side: int | None = None) -> ViTDet:
    """Build a detector as `build` does a backbone, for frames of `side` pixels (None: its own).

    Raises UsageError as `build` does, for backbones that detect nothing, and for sides that patches do not tile.
    """
    if not CATALOG[backbone].detects:
        raise UsageError(f"{backbone} classifies clips; it cannot find objects in frames")
    model = _build(backbone, weights, seed, side)
    assert isinstance(model, ViTDet)
    return model


def _build(backbone: str, weights: str, seed: int, side: int | None = None) -> nn.Module:
    file = weights_file(backbone, weights)
    if file is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return network(_of_side(CATALOG[backbone].config, side)).eval()
    config, found = _recognise(backbone, file)
    config = _of_side(config, side)
    _check_sizes(config, found, f"weights {file}")
    with torch.random.fork_rng(devices=[]):
        model = network(config)
    if isinstance(model, GridBackbone):
        model.addons = found.scorers
    load_strictly(model, found.tensors, f"weights {file}")
    return model.eval()


def _of_side(config: Config, side: int | None) -> Config:
    return sized(config, side) if side is not None and isinstance(config, ViTDetConfig) else config


def recognise(tensors: Mapping[str, Tensor], where: str) -> Recognised:
    """Tell by the tensors' names which family they are of, and map them to our names.

    Raises UsageError, in one line that starts with `where`, for tensors of no family and as the family's own
    `recognise` does.
    """
    for matches, family in _FAMILIES:
        if matches(tensors):
            return family(tensors, where)
    raise names.foreign(where, "a checkpoint of VideoMAE, MViT, VideoSwin, ViViT or ViTDet", tensors)


def _recognise(backbone: str, file: Path) -> tuple[Config, Recognised]:
    """Return what a file says about the backbone it was named for: its sizes, and the tensors."""
    contents, where = files.read(file), f"weights {file}"
    found = recognise(contents.tensors, where)
    fitting = found.backbones()
    if backbone not in fitting:
        known = " or ".join(fitting)
        hint = f"this is {known}: use --backbone {known}" if fitting else "no backbone here has these sizes"
        raise UsageError(f"{where}: {found.sizes} is not {backbone}; {hint}")
    return _config(backbone, found, contents, where), found


def _config(backbone: str, found: Recognised, contents: files.Contents, where: str) -> Config:
    """Return a backbone's sizes with what the file decides.

    The norms' eps are in no tensor, so those that `convert` wrote down count; raises UsageError if they are not there.
    """
    config = found.config(CATALOG[backbone].config)
    if contents.metadata.get("format") != "vpbench" or "sizes" not in contents.metadata:
        return config
    try:
        sizes = json.loads(contents.metadata["sizes"])
        eps: dict[str, Any] = {key: float(sizes[key]) for key in ("eps", "pool_eps") if hasattr(config, key)}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        eps = {}
    if not eps or not all(0 < value < 1 for value in eps.values()):
        raise UsageError(f"{where}: its metadata 'sizes' hold no eps of norms; convert the checkpoint anew")
    return replace(config, **eps)


def _check_sizes(config: Config, found: Recognised, where: str) -> None:
    # compared before a model takes memory: its sizes come from a file that nobody vouches for
    with torch.device("meta"):
        check_fit(network(config), found.tensors, where)


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Load tensors; raises UsageError as `check_fit` does."""
    check_fit(model, tensors, where)
    model.load_state_dict(dict(tensors))


def check_fit(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise UsageError that counts and names missing, unknown and odd-shaped tensors, if there are any."""
    own = model.state_dict()
    wrong = {
        "missing": own.keys() - tensors.keys(),
        "unknown": tensors.keys() - own.keys(),
        "of another shape": {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape},
    }
    said = [f"{len(those)} {what} ({_first(those)})" for what, those in wrong.items() if those]
    if said:
        raise UsageError(f"{where} do not fit: tensors {', '.join(said)}")


def _first(those: set[str]) -> str:
    return ", ".join(sorted(those)[:3]) + (", ..." if len(those) > 3 else "")


def inspect(file: Path) -> dict[str, str]:
    """Say what a file is and what it fits, line by line; raises UsageError if it holds no classifier of any family."""
    contents = files.read(file)
    found = recognise(contents.tensors, str(file))
    fitting = found.backbones()
    precision = sorted({str(t.dtype).removeprefix("torch.") for t in contents.tensors.values()})
    said = {
        "container": contents.container + (f", tensors under {contents.wrapper!r}" if contents.wrapper else ""),
        "layout": found.layout,
        "fits": ", ".join(fitting) or f"no backbone here ({found.sizes})",
        "classes": str(found.classes),
        "parameters": f"{sum(t.numel() for t in found.parameters.values()) / 1e6:.2f} M in {', '.join(precision)}",
        **found.details(),
        "selection": settings.selection(contents.settings),
        "left aside": ", ".join(names.grouped((*contents.others, *found.extras))) or "nothing",
        "sha256": files.digest(file),
        "licence": found.licence,
    }
    for name in fitting[:1]:
        _check_sizes(_config(name, found, contents, str(file)), found, str(file))
    # free text of the file, which might hold anything a terminal acts upon
    free = {_printable(f"metadata {key}"): _printable(value) for key, value in contents.metadata.items()}
    return {key: value for key, value in said.items() if value} | free


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def convert(file: Path, out: Path, overwrite: bool) -> None:
    """Write a checkpoint, scorers included, as safetensors under our names, float32, whole or not at all.

    Raises UsageError for files that no backbone could load, and for an `out` that exists (without `overwrite`) or has
    another suffix; VpbenchError if it cannot be written.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"{out}: give a name that ends in .safetensors")
    if out.exists() and not overwrite:
        raise UsageError(f"{out} exists; --force overwrites it")
    contents = files.read(file)
    found = recognise(contents.tensors, str(file))
    fitting = found.backbones()
    if not fitting:
        raise UsageError(f"{file}: no backbone here has the sizes of {found.sizes}")
    config = _config(fitting[0], found, contents, str(file))
    _check_sizes(config, found, str(file))
    metadata = {
        "format": "vpbench",
        "source": file.name,
        "source_sha256": files.digest(file),
        "layout": found.layout,
        "sizes": json.dumps(asdict(config)),
    }
    if selection := settings.selection(contents.settings):
        metadata["selection"] = selection
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        # a tensor of the file may be a view of another one, which safetensors will not write
        save_file(
            {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in found.parameters.items()},
            temporary,
            metadata,
        )
        temporary.chmod(mode)  # the library leaves the file readable for its owner alone
        os.replace(temporary, out)
    except (OSError, SafetensorError) as error:
        raise VpbenchError(f"{out} cannot be written: {str(error).splitlines()[0]}") from error
    finally:
        temporary.unlink(missing_ok=True)
